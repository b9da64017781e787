"""How long change events stop when a part that carries them is killed, and whether one is lost: `python -m bench.kills`, on the lab.

Every part is killed in turn, again and again, while agents outside change and publish; some seconds lie between one's return and the next.
Seconds are from the kill until an event is seen, in the store that it leads to, that was committed (or acknowledged by Kafka) after the
kill. At the end everything rests, and whatever was acknowledged is looked for. Prints a table; ends with status 1 when the promise is
missed or anything is lost.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import pace
from bench.lab import reach
from ops import inventory
from ops.errors import DONE, FAILED
from ops.options import count
from ops.terminal import Cell, Terminal, ok_mark
from tests.drills.events import Stores, Traffic, settled
from tests.drills.machines import DrillError, wait_until
from tests.drills.parts import PARTS, PROMISED_S, strike
from tests.drills.rehearsal import Spread

REST_S = 5.0
"""Between a part's return and the next kill: others catch up meanwhile."""
COLUMNS = ["part killed", "kills", "min", "p50", "p95", "max", "promised", ""]


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill, look, print; the exit status tells whether the promise is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("-n", "--runs", type=count, default=20, help="kills of each (%(default)s)")
    parser.add_argument("-i", "--inventory", type=Path, default=inventory.DEFAULT)
    parser.add_argument("--rate", type=count, default=50, help="changes a second, and half as many figures and heartbeats (%(default)s)")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.parts if name not in PARTS]:
        parser.error(f"there is no part {', '.join(unknown)}: choose from {', '.join(PARTS)}")
    chosen = given.parts or list(PARTS)
    terminal = Terminal()
    took: dict[str, list[float]] = {name: [] for name in chosen}
    with tempfile.TemporaryDirectory(prefix="phoenix-kills-") as scratch:
        cluster, ways = reach(parser, given.inventory, Path(scratch))
        stores = Stores(cluster.platform, Path(scratch))
        with Traffic(ways, stores, rate=given.rate) as traffic:
            wait_until(lambda: PARTS["stream-redis"].through(traffic) > 0, seconds=60, what="events come through")
            for number in range(1, given.runs + 1):
                pace.tell(terminal)
                for name in chosen:
                    took[name].append(strike(cluster, PARTS[name], traffic))
                    terminal.say(f"{name} {number}/{given.runs}: {took[name][-1]:.1f} s")
                    time.sleep(REST_S)
            traffic.rest()
            missing = ""
            try:
                settled(traffic)
            except DrillError as error:
                missing = str(error)
            told = f"{traffic.number:,} changes, {len(traffic.figures):,} figures and the last heartbeats of {len(traffic.agents)} agents"
        stores.close()
    terminal.table(COLUMNS, [_row(name, values) for name, values in took.items()])
    terminal.line(missing or f"{told}: none lost.", "red" if missing else "green")
    return FAILED if missing or any(max(values) > PROMISED_S for values in took.values()) else DONE


def _row(name: str, values: Sequence[float]) -> list[Cell]:
    spread = Spread.of(values)
    figures = [f"{value:.1f}" for value in (spread.low, spread.median, spread.p95, spread.high)]
    return [name, str(len(values)), *figures, f"max {PROMISED_S:g}", ok_mark(spread.high <= PROMISED_S)]


if __name__ == "__main__":
    sys.exit(main())
