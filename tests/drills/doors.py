"""Doors from this computer into the lab's machines: a local port whose connections are made inside a machine, in its network.

A drill's clients are outside the database, and this computer is not in the tailnet: a connection that comes in here is made anew by a
thread that has entered the machine's network for a moment. What is off is refused; what is frozen, or cut from this computer, says nothing.
"""

from __future__ import annotations

import ctypes
import os
import socket
import socketserver
import threading
import time
from contextlib import suppress
from pathlib import Path

from tests.drills import network
from tests.drills.machines import DrillError, Machine

_CLONE_NEWNET = 0x40000000
_CONNECT_S = 5
_libc = ctypes.CDLL(None, use_errno=True)
_doors: dict[tuple[str, int], socketserver.ThreadingTCPServer] = {}


def to(machine: Machine, port: int) -> int:
    """The local port that leads to `port` of `machine` at its address; open as long as this process lasts."""
    if (machine.name, port) not in _doors:

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with suppress(OSError, DrillError):
                    self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    _join(machine, self.request, _connected(machine, port))

        server = _Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _doors[(machine.name, port)] = server
    return int(_doors[(machine.name, port)].server_address[1])


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 256


def _connected(machine: Machine, port: int) -> socket.socket:
    """A connection that was made in the machine's network. Runs in a thread of its own, which goes back afterwards."""
    _seen(machine)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(Path(f"/proc/{machine.pid}/ns/net"), os.O_RDONLY)
    try:
        _enter(there)
        try:
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        finally:
            _enter(home)
    finally:
        os.close(there)
        os.close(home)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.settimeout(_CONNECT_S)
    made.connect((machine.address, port))
    made.settimeout(None)
    return made


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot enter the machine's network")


def _seen(machine: Machine) -> None:
    """Wait while the machine is cut from this computer: packets are lost, and sent again."""
    while network.hidden(machine):
        time.sleep(0.1)


def _join(machine: Machine, one: socket.socket, other: socket.socket) -> None:
    """Pass on what either says until both have ended."""
    back = threading.Thread(target=_pass_on, args=(machine, other, one), daemon=True)
    back.start()
    _pass_on(machine, one, other)
    back.join()
    other.close()


def _pass_on(machine: Machine, source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            _seen(machine)
            target.sendall(data)
    for end in (source, target):  # a connection that one side lost is lost
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
