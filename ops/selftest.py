"""The tests, part by part (`make test`): all parts run, one that fails fails the whole, the times are told.

`python -m ops.selftest [PART...]`. With CI set in the environment the lab is made from bare machines.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from deploys.lib.settings import ROOT
from ops import bootstrap
from ops.errors import DONE, FAILED
from ops.terminal import Cell, Terminal, ok_mark, seconds

Commands = Sequence[Sequence[str]]

ON_REQUEST = ("series",)
"""Parts that take hours and run only when they are named: `make drills`."""


def parts(*, fresh: bool) -> dict[str, Commands]:
    """Each part's commands, in the order in which they run: the quick ones first, the lab before what needs it."""
    python = [sys.executable, "-m"]
    pytest = [*python, "pytest", "--durations=5"]
    # What `up` would verify at its end is a part of tests/hosts.
    up = [*python, "ops", "up", "--skip-verify", *(["--fresh"] if fresh else [])]
    return {
        "lint": [[*python, "ruff", "check", "."], [*python, "mypy"], [*python, "ops.lockfile", "--check"]],
        "unit": [[*pytest, "tests/unit"]],
        "exporter": [[*pytest, "tests/exporter"]],
        "hormones": [[*pytest, "tests/hormones"]],
        "stream": [[*pytest, "tests/stream"]],
        "lab": [up],
        "rules": [[*pytest, "tests/rules"]],
        "sql": [[*pytest, "tests/sql"]],
        "hosts": [[*pytest, "tests/hosts"]],
        # Last: they end the leader, again and again.
        "drills": [[*pytest, "-m", "not long", "tests/drills"]],
        "series": [
            [*python, "bench.failover", "kill", "switchover"],
            [*python, "bench.failover", "--runs", "3", "--but", "kill", "--but", "switchover"],
            [*python, "bench.pitr"],
            [*python, "bench.kills"],
            [*pytest, "-m", "long", "-k", "not test_no_row_is_lost", "--timeout", "1800", "tests/drills"],
        ],
    }


def run(chosen: Mapping[str, Commands], terminal: Terminal) -> int:
    """Run the parts with their output as it comes, then print what took how long. 0 when all of them passed."""
    outcomes: list[tuple[str, bool, float]] = []
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        # Nobody may mistake tests that were skipped for want of the lab for tests that passed.
        "PHOENIX_TEST_REQUIRE_LAB": "1",
        # Some tests fetch with uv what they test against; a fresh machine has ours and no other.
        "PATH": f"{os.environ['PATH']}:{bootstrap.installer(bootstrap.cache_dir()) / 'bin'}",
    }
    for name, commands in chosen.items():
        terminal.say(f"== {name}", "bold")
        started = time.monotonic()
        # A list, so that every command of the part runs even when an earlier one failed.
        codes = [subprocess.run(command, cwd=ROOT, env=env, check=False).returncode for command in commands]
        outcomes.append((name, not any(codes), time.monotonic() - started))
    terminal.line("")
    rows: list[list[Cell]] = [[name, ok_mark(ok), seconds(took)] for name, ok, took in outcomes]
    total = sum(took for _, _, took in outcomes)
    good = all(ok for _, ok, _ in outcomes)
    terminal.table(["part", "", "time"], [*rows, ["all", ok_mark(good), seconds(total)]])
    return DONE if good else FAILED


def main(arguments: list[str] | None = None) -> int:
    """Run the named parts; by default all but those on request."""
    every = parts(fresh=bool(os.environ.get("CI")))
    parser = argparse.ArgumentParser(prog="make test", description="Run the tests of Phoenix.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(every)}")
    names = parser.parse_args(arguments).parts
    if unknown := [name for name in names if name not in every]:
        parser.error(f"there is no part {', '.join(unknown)}: choose from {', '.join(every)}")
    chosen = names or [name for name in every if name not in ON_REQUEST]
    return run({name: commands for name, commands in every.items() if name in chosen}, Terminal())


if __name__ == "__main__":
    sys.exit(main())
