"""How long writes are away when the leader is struck, and whether a row is lost: `python -m bench.failover`, on the lab.

Each run: writers outside the database, one fault that befalls the leader, the mending, and the comparison of every acknowledged row
with both members' tables. Seconds are the longest time without an acknowledged write, as the writers see it. Prints a table; ends
with status 1 when a promise is missed, a row is lost or a run fails. `--list` names the faults.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.lab import reach
from ops import inventory
from ops.errors import DONE, FAILED
from ops.options import count
from ops.terminal import Cell, Terminal, ok_mark
from tests.drills.cluster import Cluster
from tests.drills.faults import FAULTS, Fault, mend_everything
from tests.drills.machines import DrillError
from tests.drills.rehearsal import Outcome, Spread, rehearse

COLUMNS = ["fault", "runs", "min", "p50", "p95", "max", "promised", "", "rows", "lost", "whole again p50", "max"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Rehearse, print, and tell by the exit status whether every promise is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help="which, in this order (default: all)")
    parser.add_argument("--but", action="append", default=[], metavar="FAULT", choices=FAULTS, help="leave this one out")
    parser.add_argument("-n", "--runs", type=count, default=20, help="runs of each (%(default)s)")
    parser.add_argument("-i", "--inventory", type=Path, default=inventory.DEFAULT)
    parser.add_argument("--through", choices=("gateway", "direct"), help="how the writers get in (gateway, where the inventory has one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run to FILE as well")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="keep the writers' ledgers there")
    parser.add_argument("--list", action="store_true", help="name the faults and end")
    given = parser.parse_args(arguments)
    terminal = Terminal()
    if given.list:
        terminal.table(["fault", "what"], [[fault.name, fault.what] for fault in FAULTS.values()])
        return DONE
    if unknown := [name for name in given.faults if name not in FAULTS]:
        parser.error(f"there is no fault {', '.join(unknown)}: choose from {', '.join(FAULTS)}")
    with tempfile.TemporaryDirectory(prefix="phoenix-drill-") as scratch:
        cluster, ways = reach(parser, given.inventory, Path(scratch), given.through)
        keep = given.keep or Path(scratch)
        keep.mkdir(parents=True, exist_ok=True)
        series = {
            name: _series(cluster, FAULTS[name], given.runs, ways=ways, directory=keep, terminal=terminal)
            for name in given.faults or FAULTS
            if name not in given.but
        }
    terminal.table(COLUMNS, [_row(FAULTS[name], *found) for name, found in series.items()])
    if given.json:
        given.json.write_text(json.dumps({name: _as_json(FAULTS[name], *found) for name, found in series.items()}, indent=1) + "\n")
    return DONE if all(_kept(FAULTS[name], *found) for name, found in series.items()) else FAILED


def _series(
    cluster: Cluster, fault: Fault, runs: int, *, ways: Sequence[str], directory: Path, terminal: Terminal
) -> tuple[list[Outcome], list[str]]:
    """The outcomes, and why runs failed. A failed run is mended and does not end the series."""
    outcomes: list[Outcome] = []
    failures: list[str] = []
    for number in range(1, runs + 1):
        started = time.monotonic()
        try:
            outcome = rehearse(cluster, fault, ways, directory)
        except (DrillError, KeyboardInterrupt) as error:
            terminal.say(f"{fault.name} {number}/{runs}: FAILED: {error}", "red")
            mend_everything(cluster)
            if isinstance(error, KeyboardInterrupt):
                raise
            failures.append(str(error))
            continue
        outcomes.append(outcome)
        lost = len(outcome.verdict.lost)
        terminal.say(
            f"{fault.name} {number}/{runs}: {outcome.outage_s:.2f} s, {outcome.leader} -> {outcome.successor}, "
            f"{outcome.verdict.acknowledged} rows, {lost} lost, whole after {outcome.whole_s:.1f} s "
            f"({time.monotonic() - started:.0f} s in all)",
            "red" if lost else "",
        )
    return outcomes, failures


def _kept(fault: Fault, outcomes: Sequence[Outcome], failures: Sequence[str]) -> bool:
    if failures or any(outcome.verdict.lost for outcome in outcomes):
        return False
    spread = Spread.of([outcome.outage_s for outcome in outcomes])
    return spread.high <= fault.limit_s and (fault.median_s is None or spread.median <= fault.median_s)


def _row(fault: Fault, outcomes: Sequence[Outcome], failures: Sequence[str]) -> list[Cell]:
    runs = f"{len(outcomes)}" + (f" + {len(failures)} failed" if failures else "")
    promised = f"max {fault.limit_s:g}" if fault.median_s is None else f"p50 {fault.median_s:g}, max {fault.limit_s:g}"
    kept = ok_mark(_kept(fault, outcomes, failures))
    if not outcomes:
        return [fault.what, runs, "", "", "", "", promised, kept, "", "", "", ""]
    outage, whole = Spread.of([one.outage_s for one in outcomes]), Spread.of([one.whole_s for one in outcomes])
    figures = [f"{value:.2f}" for value in (outage.low, outage.median, outage.p95, outage.high)]
    rows, lost = sum(one.verdict.acknowledged for one in outcomes), sum(len(one.verdict.lost) for one in outcomes)
    return [fault.what, runs, *figures, promised, kept, f"{rows:,}", str(lost), f"{whole.median:.1f}", f"{whole.high:.1f}"]


def _as_json(fault: Fault, outcomes: Sequence[Outcome], failures: Sequence[str]) -> dict[str, Any]:
    spread = asdict(Spread.of([one.outage_s for one in outcomes])) if outcomes else None
    return {
        "what": fault.what,
        "limit_s": fault.limit_s,
        "median_s": fault.median_s,
        "kept": _kept(fault, outcomes, failures),
        "outage_s": spread,
        "runs": [asdict(outcome) for outcome in outcomes],
        "failures": list(failures),
    }


if __name__ == "__main__":
    sys.exit(main())
