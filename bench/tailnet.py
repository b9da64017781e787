"""What the tailnet costs: `python -m bench.tailnet`, on the lab.

The delay of a packet there and back, by turns through the tailnet and on the cable below it, between two members of the database cluster;
and how fast a client of this computer reads a big answer, through the tailnet, TLS and a gateway. Writes nothing.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg

from bench import pace
from bench.lab import reach
from ops import inventory
from ops.errors import DONE
from ops.options import count
from ops.terminal import Terminal
from tests.drills.machines import Machine
from tests.drills.rehearsal import Spread

ROUNDS = 5
PACKETS = 200
ANSWER = "COPY (SELECT repeat(md5(i::text), 3000) FROM generate_series(1, 4000) i) TO STDOUT"
"""384 MB."""


def delays(sender: Machine, address: str) -> list[float]:
    """Milliseconds there and back of each of PACKETS packets, one every 10 ms. What is lost is missing."""
    said = sender.run(f"ping -c {PACKETS} -i 0.01 {address} || true")
    return [float(found) for found in re.findall(r"time=([0-9.]+) ms", said)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--inventory", type=Path, default=inventory.DEFAULT)
    parser.add_argument("-n", "--rounds", type=count, default=ROUNDS, help="of each (%(default)s)")
    given = parser.parse_args(arguments)
    terminal = Terminal()
    with tempfile.TemporaryDirectory(prefix="phoenix-tailnet-") as scratch:
        cluster, (way, *_) = reach(parser, given.inventory, Path(scratch))
        pace.tell(terminal)
        sender, receiver = cluster.members[:2]
        ways = {"tailnet": receiver.address, "cable": receiver.underlay}
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(given.rounds):
            for name, address in ways.items():
                found[name] += delays(sender, address)
        for name, some in found.items():
            lost = given.rounds * PACKETS - len(some)
            if not some:
                terminal.line(f"{name}: nothing came back from {receiver.name}")
                continue
            spread = Spread.of(some)
            terminal.line(f"{name}: {len(some)} packets, {lost} lost; ms there and back: p50 {spread.median:.2f}  p95 {spread.p95:.2f}")
        with psycopg.connect(way, autocommit=True) as conn:
            rates = []
            for _ in range(given.rounds):
                started, size = time.monotonic(), 0
                with conn.cursor().copy(ANSWER) as answer:
                    for part in answer:
                        size += len(part)
                rates.append(size * 8 / 1e6 / (time.monotonic() - started))
        terminal.line(f"through a gateway: {size / 1e6:,.0f} MB at a median of {statistics.median(rates):,.0f} Mbit/s")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
