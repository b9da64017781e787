"""The one place that shapes how Phoenix talks SSH.

paramiko leaves Nagle's algorithm on, so every remote command waits for a delayed acknowledgement of 40 ms: measured 48 ms a command
with it and 6.5 ms without (`bench/ssh.py`). pyinfra offers no setting for it, hence this.
"""

from __future__ import annotations

import socket

from pyinfra.connectors.ssh import SSHConnector

KEEPALIVE_S = 15


def send_commands_at_once() -> None:
    """Make every SSH connection of this process use TCP_NODELAY, and keepalives so that a dead host is noticed."""
    if getattr(SSHConnector, "phoenix_nodelay", False):
        return
    connect = SSHConnector._connect

    def connect_without_delay(self: SSHConnector) -> None:
        connect(self)
        transport = self.client.get_transport() if self.client else None
        if transport is not None and isinstance(transport.sock, socket.socket):
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport.set_keepalive(KEEPALIVE_S)

    SSHConnector._connect = connect_without_delay  # type: ignore[method-assign]
    SSHConnector.phoenix_nodelay = True  # type: ignore[attr-defined]
