"""deploy, plan, drift: bring hosts to their description, or say how far they are from it."""

from __future__ import annotations

import argparse
import fcntl
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TextIO

from deploys.lib.settings import Platform
from ops import bootstrap, inventory, pyinfra_run
from ops.errors import DONE, DRIFT, FAILED, REFUSED, Failed, Refused
from ops.terminal import Terminal, seconds

# The name of the first @deploy in deploys/site.py (deploys/base.py), which looks and changes nothing: what it stops was refused.
PREFLIGHT = "Host is fit for a deploy"


@dataclass(frozen=True)
class Difference:
    """One thing on a host that is not as described. `conditional`: only if an earlier operation of the same deploy changes."""

    host: str
    operation: str
    what: str
    conditional: bool = False


def arguments(verb: str, parser: argparse.ArgumentParser) -> None:
    """What the verbs take."""
    parser.add_argument("hosts", nargs="*", metavar="HOST", help="only these hosts (default: all of the inventory)")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Do the verb of `options`; the exit code."""
    platform = inventory.made(options.inventory)
    for name in options.hosts:
        inventory.host(platform, name)
    if options.verb == "deploy":
        return deploy(platform, options.hosts, terminal)
    return compare(platform, options.hosts, terminal, drift=options.verb == "drift")


def deploy(platform: Platform, hosts: Sequence[str], terminal: Terminal) -> int:
    """Deploy to `hosts` (all when empty) and print what came of it. 0 done, 1 failed, 2 when nothing was touched."""
    result = perform(platform, hosts, terminal)
    counts = {name: {"changed": host.changed, "failed": host.failed} for name, host in result.hosts.items()}
    terminal.result(
        {
            "ok": result.ok,
            "changed": result.changed,
            "seconds": round(result.seconds, 2),
            "hosts": counts,
            "findings": [vars(finding) for finding in result.findings],
            "problems": result.problems,
        }
    )
    rows = [[name, str(count["changed"]), str(count["failed"])] for name, count in counts.items()]
    terminal.table(["host", "changed", "failed"], rows)
    for problem in result.problems:
        terminal.say(f"phoenix: {problem}", "red")
    if result.ok:
        what = "nothing to change" if result.changed == 0 else f"{result.changed} changed"
        terminal.line(f"Deployed in {seconds(result.seconds)}: {what}.", "green")
    return exit_code(result)


def perform(
    platform: Platform,
    hosts: Sequence[str],
    terminal: Terminal,
    *,
    data: Mapping[str, Any] | None = None,
    held: Sequence[int] | None = None,
) -> pyinfra_run.Run:
    """Deploy to `hosts` (all when empty), with progress only. `data` are settings that win over the inventory's, for this run; `held`
    what `only_one` gave, when the caller has the hosts already. Raises Refused while another deploy holds one of them."""
    inventory.secrets(platform)  # a deploy without its secrets would stop half-way
    names = list(hosts) or list(platform.hosts)
    taken = nullcontext(list(held)) if held is not None else only_one(platform, names)
    with taken as locks, terminal.working("Starting") as working:
        show = _Progress(terminal)
        return pyinfra_run.run(
            platform.inventory,
            list(platform.hosts),
            limit=hosts,
            data=data or {},
            locks=locks,
            on_step=show.step,
            on_operation=working.now,
            on_line=show.raw,
        )


def compare(platform: Platform, hosts: Sequence[str], terminal: Terminal, *, drift: bool) -> int:
    """Say what a deploy would change; `drift` names the differences alone and returns 3 when there are any."""
    with terminal.working("Comparing the hosts with their description"):
        show = _Progress(terminal)
        result = pyinfra_run.run(platform.inventory, list(platform.hosts), limit=hosts, dry=True, on_line=show.raw)
    if not result.ok:
        raise as_error(result)
    changes = differences(result)
    certain = [change for change in changes if not change.conditional]
    rows = [[change.host, change.operation, change.what] for change in (certain if drift else changes)]
    if drift:
        findings = [{"host": c.host, "operation": c.operation, "what": c.what} for c in certain]
        terminal.result({"ok": not findings, "seconds": round(result.seconds, 2), "findings": findings})
    else:
        terminal.result(
            {"ok": True, "changes": len(changes), "seconds": round(result.seconds, 2), "plan": [vars(change) for change in changes]}
        )
    if rows:
        terminal.table(["host", "operation", "what differs"], rows)
    elif drift:
        terminal.line(f"No drift: {', '.join(result.hosts)} as described ({seconds(result.seconds)}).", "green")
    else:
        terminal.line(f"Nothing to change on {', '.join(result.hosts)} ({seconds(result.seconds)}).", "green")
    return DRIFT if drift and certain else DONE


def differences(result: pyinfra_run.Run) -> list[Difference]:
    """What a dry run would change, in the order of the deploy. An operation that reported findings is named by them."""
    reported: dict[tuple[str, str], list[str]] = {}
    for finding in result.findings:
        reported.setdefault((finding.host, finding.operation), []).append(finding.what)
    changes: list[Difference] = []
    for operation in result.plan:
        for name in operation["names"]:
            for host in [*operation["hosts_with_change"], *operation["hosts_with_conditional_change"]]:
                conditional = host not in operation["hosts_with_change"]
                whats = reported.pop((host, name), []) or ["would change"]
                changes += [Difference(host, name, what, conditional) for what in whats]
    # A finding of an operation that would run no command (a check) is a difference all the same.
    for (host, name), whats in reported.items():
        changes += [Difference(host, name, what) for what in whats]
    return changes


@contextmanager
def only_one(platform: Platform, names: Sequence[str]) -> Iterator[list[int]]:
    """Hold the hosts for this process, by the file descriptors it yields.

    Raises Refused at once when another run from this computer, of whichever verb, has one of them.
    """
    directory = bootstrap.cache_dir() / "locks"
    directory.mkdir(parents=True, exist_ok=True)
    held = []
    with ExitStack() as stack:
        for name in sorted(names):
            address = str(platform.hosts[name].data.get("ssh_hostname", name)).replace("/", "_")
            file = stack.enter_context((directory / f"{address}.lock").open("a+"))
            _take(file, name)
            held.append(file.fileno())
        yield held


def _take(file: TextIO, name: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "it has just begun"
        raise Refused(f"{name} is worked on by another run ({holder}): wait for it to end.") from None
    file.truncate(0)
    file.write(f"process {os.getpid()}, since {time.strftime('%H:%M:%S')}")
    file.flush()


def exit_code(result: pyinfra_run.Run) -> int:
    """0 done, 1 failed, 2 when it is certain that nothing was touched."""
    if result.ok:
        return DONE
    refused = all(name.startswith(PREFLIGHT) for name in result.failed_operations)
    if not result.executed or (result.failed_operations and refused and result.changed == 0):
        return REFUSED
    return FAILED


def as_error(result: pyinfra_run.Run) -> Failed | Refused:
    """What went wrong with a run, as the exception of its exit code."""
    kind = Refused if exit_code(result) == REFUSED else Failed
    return kind("\n".join(result.problems))


class _Progress:
    """Prints what changed or failed as it happens; with -v everything that pyinfra says."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def raw(self, line: str) -> None:
        if self._terminal.verbose:
            self._terminal.say(line, "dim")

    def step(self, step: pyinfra_run.Step) -> None:
        if step.outcome == "unchanged" or self._terminal.verbose:
            return
        style = "red" if step.outcome == "failed" else ""
        self._terminal.say(f"{step.host}  {step.outcome:8} {seconds(step.seconds):>7}  {step.operation}", style)
        for line in step.detail.splitlines()[-20:]:
            self._terminal.say(f"      {line}", "dim")
