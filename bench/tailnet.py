"""What the tailnet costs between two of its hosts: `python -m bench.tailnet`, on the lab.

In turns over the tailnet and over the cable below it, from the host that watches to the first of the others: the delay of single bytes
there and back, and one TCP connection that sends as fast as it can. The other's host exporter is away meanwhile: its port is open to this
host.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploys.lib.settings import ExporterSettings
from ops import inventory
from ops.errors import DONE, Refused
from ops.options import count
from ops.terminal import Terminal
from tests.drills.cluster import Cluster
from tests.drills.machines import Machine, wait_until

EXPORTER = "prometheus-node-exporter.service"
UNIT = "phoenix-bench-tailnet.service"
LONGEST_S = 900
"""The listener ends by itself after so many seconds."""

LISTENER = """
import socket, sys
with socket.create_server(("0.0.0.0", int(sys.argv[1]))) as server:
    while True:
        client, _ = server.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client:
            how = client.recv(1)
            while data := client.recv(1 << 20):
                if how == b"e":
                    client.sendall(data)
            client.sendall(b"!") if how == b"s" else None
"""
"""Sends back what comes, or swallows it and says at the end that all of it came."""

DELAY = """
import socket, sys, time
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10) as peer:
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.sendall(b"e")
    for _ in range(int(sys.argv[3])):
        started = time.perf_counter()
        peer.sendall(b"x")
        peer.recv(1)
        print((time.perf_counter() - started) * 1000)
"""
"""Milliseconds of each byte there and back."""

THROUGHPUT = """
import socket, sys, time
block, sent = bytes(1 << 18), 0
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60) as peer:
    peer.sendall(b"s")
    started = time.perf_counter()
    while time.perf_counter() - started < float(sys.argv[3]):
        peer.sendall(block)
        sent += len(block)
    peer.shutdown(socket.SHUT_WR)
    assert peer.recv(1) == b"!"
    print(sent * 8 / 1e6 / (time.perf_counter() - started))
"""
"""Mbit/s, from the first byte sent to the last one received."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--inventory", type=Path, default=inventory.DEFAULT)
    parser.add_argument("-n", "--turns", type=count, default=3, help="over each way (%(default)s)")
    parser.add_argument("--seconds", type=count, default=5, help="of sending in a turn (%(default)s)")
    given = parser.parse_args(arguments)
    try:
        cluster = Cluster.of(inventory.made(given.inventory.resolve()))
    except Refused as error:
        parser.exit(Refused.exit_code, f"{error}\n")
    here = cluster.machine(cluster.platform.group("monitoring")[0].name)
    there = cluster.machine(next(host.name for host in cluster.platform.group("tailscale") if host.name != here.name))
    port = cluster.platform.hosts[there.name][ExporterSettings].node_port
    ways = {"tailnet": there.address, "cable": there.underlay}
    delays: dict[str, list[float]] = {way: [] for way in ways}
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    with listening(there, here, port):
        for _ in range(given.turns):
            for way, address in ways.items():
                delays[way] += ask(here, DELAY, address, port, 500)
                speeds[way] += ask(here, THROUGHPUT, address, port, given.seconds)
    terminal = Terminal()
    terminal.line(f"{here.name} to {there.name}, {given.turns} turns over each way")
    rows = []
    for way, found in delays.items():
        fast = speeds[way]
        speed = f"{statistics.median(fast):.0f} ({min(fast):.0f} to {max(fast):.0f})"
        rows.append([way, f"{statistics.median(found):.2f}", f"{statistics.quantiles(found, n=20)[-1]:.2f}", speed])
    terminal.table(["way", "delay p50, ms", "p95, ms", "Mbit/s"], rows)
    return DONE


@contextmanager
def listening(there: Machine, here: Machine, port: int) -> Iterator[None]:
    """`there` answers at the port, in both networks; afterwards its exporter does again, and its firewall is as it was."""
    there.run(f"systemctl stop {EXPORTER}; nft insert rule inet phoenix input ip saddr {here.underlay} tcp dport {port} accept")
    try:
        there.run(f"systemd-run --quiet --collect --unit={UNIT} -p RuntimeMaxSec={LONGEST_S} python3 -c '{LISTENER}' {port}")
        wait_until(lambda: f":{port} " in there.run("ss -Hltn"), seconds=10, what=f"{there.name} listens")
        yield
    finally:
        there.run(f"systemctl stop {UNIT}; systemctl restart phoenix-firewall; systemctl start {EXPORTER}", check=False)


def ask(here: Machine, program: str, address: str, port: int, amount: int) -> list[float]:
    """The numbers that the program prints."""
    return [float(line) for line in here.run(f"python3 - {address} {port} {amount}", stdin=program, timeout_s=120).split()]


if __name__ == "__main__":
    sys.exit(main())
