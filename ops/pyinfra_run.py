"""Runs pyinfra as a program of its own and understands what it says.

`pyinfra INVENTORY deploys/site.py` typed by hand does the same work: nothing here changes what is deployed. With -y pyinfra
evaluates every operation once, when its turn comes; with --dry it evaluates all of them and runs none. Its JSON comes only
from runs that end well, so failures are read from its log.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploys.lib import findings
from deploys.lib.settings import GROUP_DATA, ROOT

SITE = ROOT / "deploys" / "site.py"

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_STARTING = re.compile(r"--> Starting (?:.+ )?operation: (?P<name>.*?)\s*$")
_ON_HOST = re.compile(r"\s+\[(?P<host>[^\]]+)\] ?(?P<text>.*)$")
_FATAL = re.compile(r"--> (?P<kind>[\w ]*error)(?: in \S+ line \d+)?: (?P<text>.*)$")
_EXCEPTION = re.compile(r"(?P<kind>(?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt))(?:: (?P<text>.*))?$")
_UNREACHABLE = re.compile(
    r"(?P<what>SSH error|Could not resolve hostname|Could not connect|EOF error|Authentication error|SSH host key error)"
    r"(?:\s*\((?P<why>.*)\))?"
)
# pyinfra's own last words when the reason has been said before.
_EPILOGUE = ("No hosts remaining!", "Over 0% of hosts failed")


@dataclass(frozen=True)
class Finding:
    """What an operation found different on a host, in words (deploys/lib/findings.py)."""

    host: str
    operation: str
    what: str


@dataclass
class HostRun:
    """One host in one run. Counts are operations."""

    changed: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Step:
    """One operation that ended on one host. `outcome` is changed, unchanged or failed; `detail` what a failed one said."""

    host: str
    operation: str
    outcome: str
    seconds: float
    detail: str = ""


@dataclass
class Run:
    """What one run of pyinfra came to."""

    hosts: dict[str, HostRun]
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    """One sentence for each thing that went wrong; empty when all went well."""
    executed: bool = False
    """Whether it came as far as running operations."""
    failed_operations: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    plan: list[dict[str, Any]] = field(default_factory=list)
    """pyinfra's own plan (--json): name, hosts_with_change, hosts_with_conditional_change of each operation."""

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def changed(self) -> int:
        """Operations that changed something, all hosts together."""
        return sum(host.changed for host in self.hosts.values())


class LogReader:
    """Understands pyinfra's log (stderr), line by line."""

    def __init__(self, hosts: Sequence[str], on_step: Callable[[Step], None], on_operation: Callable[[str], None]) -> None:
        self.run = Run({name: HostRun() for name in hosts})
        self._on_step, self._on_operation = on_step, on_operation
        self._operation, self._started = "", time.monotonic()
        self._said: dict[str, list[str]] = {}
        self._exception = ""
        self._fatal = ""

    def line(self, raw: str) -> None:
        """Take in one line."""
        line = _COLOUR.sub("", raw.rstrip("\n"))
        if match := _STARTING.match(line):
            self._operation, self._started, self._said = match["name"], time.monotonic(), {}
            self.run.executed = True
            self._on_operation(self._operation)
        elif line.startswith("--> Beginning operation run"):
            self.run.executed = True
        elif match := _FATAL.match(line):
            self._fatal = match["text"].strip()
        elif (match := _ON_HOST.match(line)) and match["host"] in self.run.hosts:
            self._on_host(match["host"], match["text"].strip())
        elif match := _EXCEPTION.match(line):
            self._exception = f"{match['kind'].rpartition('.')[2]}: {match['text'] or ''}".rstrip(": ")
        elif self._exception and line.strip() and not line.startswith(("-->", " ", "2")):
            self._exception += f" {line.strip()}"  # a message of several lines

    def end(self, exit_code: int) -> Run:
        """Take in that the process ended."""
        if exit_code != 0 and not self.run.problems:
            self.run.problems.append(self._reason(exit_code))
        return self.run

    def _on_host(self, host: str, text: str) -> None:
        if not self.run.executed:
            if match := _UNREACHABLE.match(text):
                why = f" ({match['why']})" if match["why"] else ""
                self.run.problems.append(
                    f"{host} cannot be reached over SSH{why}: check that it is up and that the inventory's address, user and key are right."
                )
                self.run.hosts[host].failed += 1
            return
        if text == "No changes" or text.startswith("No changes on retry"):
            self._step(host, "unchanged")
        elif text == "Success" or text.startswith("Success on retry"):
            self.run.hosts[host].changed += 1
            self._step(host, "changed")
        elif text.startswith("Error: ") and not text.startswith("Error: Error"):
            self.run.hosts[host].failed += 1
            self.run.failed_operations.append(self._operation)
            said = [line for line in self._said.get(host, []) if line]
            detail = _telling(said)
            self.run.problems.append(f"{host}: {self._operation}: {detail}")
            self._step(host, "failed", "\n".join(said))
        elif text != "Skipped":
            self._said.setdefault(host, []).append(text)

    def _step(self, host: str, outcome: str, detail: str = "") -> None:
        self._on_step(Step(host, self._operation, outcome, time.monotonic() - self._started, detail))

    def _reason(self, exit_code: int) -> str:
        """The sentence for a run that broke off without an operation failing on a host."""
        if self._fatal and self._fatal not in _EPILOGUE:
            return self._fatal
        if self._exception:
            kind, _, text = self._exception.partition(": ")
            # Our own exceptions carry a whole sentence; a stranger's needs its kind beside it, and the log.
            ours = kind in {"SettingsError", "SecretError", "BundleError", "ArtifactError", "OperationError", "DeployError"} and bool(text)
            return text if ours else f"the deploy broke off with {self._exception}: run it again with -v for the whole log."
        if exit_code < 0:
            return f"pyinfra was ended by signal {-exit_code}: run the same command again."
        return f"pyinfra ended with exit code {exit_code} and gave no reason: run the same command with -v."


def run(
    inventory: Path,
    hosts: Sequence[str],
    *,
    limit: Sequence[str] = (),
    dry: bool = False,
    data: Mapping[str, Any] | None = None,
    locks: Sequence[int] = (),
    site: Path = SITE,
    on_step: Callable[[Step], None] = lambda _: None,
    on_operation: Callable[[str], None] = lambda _: None,
    on_line: Callable[[str], None] = lambda _: None,
) -> Run:
    """Run the deploy file `site` on the inventory's `hosts` (only on those of `limit`, if any) and say what came of it.

    `dry` runs no operation. `data` are settings that win over the inventory's. `locks` are file descriptors that pyinfra keeps open: when
    this process is killed and pyinfra is not, its hosts stay taken until it ends. The callbacks get each operation's start, each host's
    end of it, and every line of pyinfra's log.
    """
    mode = ["--dry"] if dry else ["-y", "--fail-percent", "0"]
    # Named, so that an inventory that is kept outside the checkout has the settings of every group as well.
    command = [sys.executable, "-m", "pyinfra", str(inventory), str(site), *mode, "--json", "--group-data", str(GROUP_DATA)]
    for name in limit:
        command += ["--limit", name]
    for key, value in (data or {}).items():
        command += ["--data", f"{key}={json.dumps(value)}"]
    active = [name for name in hosts if not limit or name in limit]
    reader = LogReader(active, on_step, on_operation)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="phoenix-run-") as scratch:
        found = Path(scratch) / "findings"
        output = Path(scratch) / "output.json"
        env = {**os.environ, findings.FILE_VARIABLE: str(found), "PYTHONUNBUFFERED": "1", "PYINFRA_PROGRESS": "off"}
        # The checkout is where pyinfra looks for config.py and for the packages that deploys import.
        env["PYTHONPATH"] = str(ROOT)
        with (
            output.open("w") as stdout,
            _stopped_with_us(
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=env,
                    stdout=stdout,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    pass_fds=locks,
                )
            ) as process,
        ):
            assert process.stderr is not None  # noqa: S101 - asked for above
            for line in process.stderr:
                on_line(line.rstrip("\n"))
                reader.line(line)
            exit_code = process.wait()
        result = reader.end(exit_code)
        result.findings = _read_findings(found)
        _take_json(result, output.read_text())
    result.seconds = time.monotonic() - started
    return result


@contextmanager
def _stopped_with_us(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """pyinfra does not outlive us, whatever ends the `with`."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _read_findings(path: Path) -> list[Finding]:
    """The findings without repetitions: pyinfra may evaluate an operation more than once."""
    if not path.exists():
        return []
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return list(dict.fromkeys(Finding(row["host"], row["operation"], row["what"]) for row in rows))


def _take_json(result: Run, text: str) -> None:
    """Add pyinfra's own JSON, which it prints when a run ends well, to what the log said."""
    try:
        content = json.loads(text)
    except ValueError:
        return
    result.plan = content["plan"]
    if content["results"] is not None:
        for name, counts in result.hosts.items():
            counts.changed = sum(name in operation["success"] for operation in content["results"]["operations"])


def _telling(said: Sequence[str]) -> str:
    """Of what a failed operation printed, the line that says why."""
    marked = [line for line in said if re.match(r"(?i)(e:|error|fatal|.*: error|psql:.*error|failed)", line)]
    line = (marked or said or ["it failed without a word: run the deploy again with -v."])[-1]
    return line if line.endswith((".", "!", "?")) else f"{line}."
