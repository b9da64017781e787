"""Whether a restore lands where it was told to: `python -m bench.pitr`, on the lab.

Rows are written in pairs, and between the two rows of each pair a moment is noted, by the database's clock or as a position in its WAL.
Then the archive is restored to each moment, beside everything else: the row before must be there with all before it, the row after and
all later ones must not. Each restore goes on from the files of the one before; pgBackRest compares every checksum. Ends with status 1
when one moment is missed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg

from ops import inventory
from ops.errors import DONE, FAILED, Refused
from ops.options import count
from ops.terminal import Terminal, ok_mark
from tests.drills import archive
from tests.drills.cluster import Cluster, Ways
from tests.drills.rehearsal import Spread, table
from tests.drills.scratch import Restored, Scratch


@dataclass(frozen=True)
class Moment:
    """A target between rows `2 * number + 1` and `2 * number + 2`."""

    number: int
    kind: str
    """time or lsn."""
    target: str

    @property
    def expected(self) -> list[int]:
        """The rows that there are at this moment."""
        return list(range(1, 2 * self.number + 2))


@dataclass(frozen=True)
class Landing:
    """Where a restore landed."""

    moment: Moment
    restored: Restored
    hit: bool
    missing: list[int]
    """Rows from before the moment that are not there."""
    surplus: list[int]
    """Rows from after it that are."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, restore, print, and tell by the exit status whether every moment was hit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", "--targets", type=count, default=20, help="how many moments (%(default)s)")
    parser.add_argument("-i", "--inventory", type=Path, default=inventory.DEFAULT)
    parser.add_argument("--on", default="vps3", metavar="HOST", help="where to restore to (%(default)s)")
    parser.add_argument("--random-seed", type=int, default=time.time_ns() % 1_000_000, help="another number gives other moments")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every landing to FILE as well")
    given = parser.parse_args(arguments)
    terminal = Terminal()
    try:
        cluster = Cluster.of(inventory.made(given.inventory.resolve()))
    except Refused as error:
        parser.exit(Refused.exit_code, f"{error}\n")
    chance = random.Random(given.random_seed)  # noqa: S311 - moments, no secrets
    terminal.say(f"random seed {given.random_seed}")
    with tempfile.TemporaryDirectory(prefix="phoenix-drill-") as scratch, table(cluster) as name:
        moments = write(cluster, Path(scratch), name, given.targets, chance)
        chance.shuffle(moments)
        found = []
        for landing in land(cluster, Scratch(cluster, cluster.machine(given.on)), moments, name):
            found.append(landing)
            at = landing.moment
            terminal.say(
                f"{len(found)}/{given.targets}: {at.kind} {at.target}: {'hit' if landing.hit else 'MISSED'}, "
                f"{landing.restored.restore_s:.1f} s of files, {landing.restored.recovery_s:.1f} s of WAL",
                "" if landing.hit else "red",
            )
    hits = sum(landing.hit for landing in found)
    spread = Spread.of([landing.restored.restore_s + landing.restored.recovery_s for landing in found])
    figures = [f"{value:.1f}" for value in (spread.low, spread.median, spread.p95, spread.high)]
    columns = ["moments", "hit", "", "seconds: min", "p50", "p95", "max"]
    terminal.table(columns, [[str(len(found)), str(hits), ok_mark(hits == len(found)), *figures]])
    if given.json:
        given.json.write_text(json.dumps({"random_seed": given.random_seed, "landings": [asdict(one) for one in found]}, indent=1) + "\n")
    return DONE if hits == len(found) else FAILED


def write(cluster: Cluster, directory: Path, name: str, targets: int, chance: random.Random) -> list[Moment]:
    """Write `targets` pairs of rows into the table `name` at random intervals, over several WAL segments, and wait for the archive."""
    leader = cluster.leader()
    moments = []
    with psycopg.connect(Ways(cluster, directory).to(leader), autocommit=True) as session:

        def insert(row: int) -> None:
            session.execute(f"INSERT INTO {name} (id) VALUES ({row})".encode())

        for number in range(targets):
            insert(2 * number + 1)
            time.sleep(chance.uniform(0.002, 0.3))
            found = session.execute("SELECT clock_timestamp()::text, pg_current_wal_insert_lsn()::text").fetchone()
            assert found is not None  # noqa: S101 - for the type checker
            time.sleep(chance.uniform(0.002, 0.3))
            kind = chance.choice(("time", "lsn"))
            moments.append(Moment(number, kind, str(found[0] if kind == "time" else found[1])))
            insert(2 * number + 2)
            if chance.random() < 0.3:
                archive.switch(cluster, leader)
    # Recovery to a time ends at the first commit after it: one more has to be in the archive.
    archive.wait_for(cluster, leader, archive.switch(cluster, leader))
    return moments


def land(cluster: Cluster, scratch: Scratch, moments: Sequence[Moment], name: str) -> Iterator[Landing]:
    """Restore to each moment, in this order, and compare the table `name` with what it must be then."""
    try:
        for moment in moments:
            restored = scratch.restore(moment.kind, moment.target)
            there, expected = set(scratch.rows(name)), set(moment.expected)
            yield Landing(moment, restored, there == expected, sorted(expected - there), sorted(there - expected))
    finally:
        scratch.remove()


if __name__ == "__main__":
    sys.exit(main())
