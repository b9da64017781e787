"""verify: the tests of tests/hosts that change nothing, against the hosts of the inventory."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from deploys.lib.settings import ROOT
from ops import inventory
from ops.errors import DONE, FAILED, Failed
from ops.terminal import Terminal, seconds

# tests/hosts reads which inventory it is to test from here.
INVENTORY_VARIABLE = "PHOENIX_INVENTORY"
TESTS = ROOT / "tests" / "hosts"
NO_TESTS_RAN = 5


@dataclass(frozen=True)
class Verification:
    """What a run of the tests came to; the counts are tests."""

    ok: bool
    passed: int
    failed: int
    skipped: int
    seconds: float


def arguments(verb: str, parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("-k", metavar="WORDS", help="only tests whose names match, as in pytest")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Run the tests; 0 when all passed, 1 when one failed."""
    inventory.made(options.inventory)
    found = perform(options.inventory, terminal, words=options.k)
    terminal.result({**vars(found), "seconds": round(found.seconds, 2)})
    outcome = f"{found.passed} promises kept" if found.ok else f"promises broken: {found.failed}, kept: {found.passed}"
    terminal.line(f"Verified in {seconds(found.seconds)}: {outcome}.", "green" if found.ok else "red")
    return DONE if found.ok else FAILED


def perform(path: Path, terminal: Terminal, *, words: str | None = None, quick: bool = False) -> Verification:
    """Test the hosts of the inventory file `path`; pytest's own output is the progress. `quick` leaves out tests marked slow.

    Raises Failed when it cannot run.
    """
    chosen = "not changes and not slow" if quick else "not changes"
    with tempfile.TemporaryDirectory(prefix="phoenix-verify-") as scratch:
        report = Path(scratch) / "report.xml"
        command = [sys.executable, "-m", "pytest", str(TESTS), "-m", chosen, f"--junitxml={report}"]
        command += ["-p", "no:cacheprovider", *(["-v"] if terminal.verbose else []), *(["-k", words] if words else [])]
        env = {**os.environ, INVENTORY_VARIABLE: str(path), "PYTHONPATH": str(ROOT)}
        started = time.monotonic()
        # pytest writes to stderr here: with --json nothing but the object may be on stdout.
        exit_code = subprocess.run(command, cwd=ROOT, env=env, stdout=sys.stderr, check=False).returncode
        took = time.monotonic() - started
        if exit_code == NO_TESTS_RAN:
            raise Failed(f"no test matches '{words or chosen}': see tests/hosts for the names there are.")
        counts = _counts(report)
    failed = counts["failures"] + counts["errors"]
    passed = counts["tests"] - failed - counts["skipped"]
    return Verification(exit_code == 0, passed, failed, counts["skipped"], took)


def _counts(report: Path) -> dict[str, int]:
    keys = ("tests", "failures", "errors", "skipped")
    if not report.exists():
        raise Failed("the tests could not be started: read pytest's message above.")
    suites = ET.parse(report).getroot().iter("testsuite")  # noqa: S314 - our own pytest wrote it
    totals = dict.fromkeys(keys, 0)
    for suite in suites:
        for key in keys:
            totals[key] += int(suite.get(key, 0))
    return totals
