"""Hands on the lab's machines that need no network: a drill cuts cables and stops services, and has to see and mend them all the same."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

import lab
from lab import nspawn


class DrillError(Exception):
    """A drill cannot be done, or did not end as it must. The text names the thing, the reason and the next step."""


@dataclass(frozen=True)
class Relay:
    """The machine of the lab that passes on a tailnet's packets which cannot go straight: its underlay address, and a TCP port.

    It is also the way by which this computer comes into the tailnet: that is UDP, as all that goes straight is.
    """

    underlay: str
    port: int


@dataclass(frozen=True)
class Machine:
    """One machine of the lab, by name.

    `address` is the IPv4 address at which the others reach its services, `underlay` the one that its cable has; without a tailnet, and so
    without a relay, they are one.
    """

    name: str
    address: str
    underlay: str
    relay: Relay | None = None

    def run(self, script: str, *, stdin: str = "", timeout_s: float = 60, check: bool = True) -> str:
        """What the shell `script` prints, run as root inside the machine by way of its namespaces (no SSH, no network).

        Raises DrillError when it fails (unless `check` is off; then what it printed so far) or takes longer than `timeout_s` seconds.
        """
        leader = self._leader()
        # PATH as a login has it: what calls this may have been started without the sbin directories.
        enter = ["nsenter", f"--target={leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wdns=/"]
        shell = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "sh", "-c", script]
        try:
            done = subprocess.run([*enter, *shell], input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired as error:
            if check:
                raise DrillError(f"{self.name}: no end of '{script[:80]}' after {timeout_s:.0f} s") from error
            return ""
        if check and done.returncode != 0:
            raise DrillError(f"{self.name}: '{script[:80]}' ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")
        return done.stdout.strip()

    def runs(self) -> bool:
        """Whether the machine is on."""
        found = nspawn.find(lab.Lab.from_environment()).get(self.name)
        return found is not None and found.leader is not None

    def power_off(self) -> None:
        """Pull the plug: everything in it ends at once."""
        lab.power_off(self.name)
        _leaders.pop(self.name, None)

    def boot(self) -> None:
        """Switch it on again; returns once SSH answers."""
        lab.boot(self.name)

    def _leader(self) -> int:
        """The pid of the machine's init on this computer. Looked up once for each boot: reading all of /proc takes a while."""
        pid = _leaders.get(self.name)
        if pid is None or not _is_alive(pid):
            found = nspawn.find(lab.Lab.from_environment()).get(self.name)
            if found is None or found.leader is None:
                raise DrillError(f"{self.name} does not run: start the lab with './phoenix up'")
            pid = _leaders[self.name] = found.leader
        return pid


_leaders: dict[str, int] = {}


def _is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:  # noqa: PTH123 - pathlib costs more than the read
            return stat.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def wait_until(condition: Callable[[], object], *, seconds: float, what: str, every_s: float = 0.3) -> float:
    """Seconds that it took until `condition` gave something true. Raises DrillError, saying `what` was waited for, after `seconds`.

    A DrillError of the condition itself counts as not yet: a machine that boots has no answers.
    """
    started = time.monotonic()
    last: object = None
    while True:
        try:
            if condition():
                return time.monotonic() - started
            last = None
        except DrillError as error:
            last = error
        if time.monotonic() - started > seconds:
            raise DrillError(f"after {seconds:.0f} s still not so: {what}{f' ({last})' if last else ''}")
        time.sleep(every_s)


def wait_for_none(problems: Callable[[], list[str]], *, seconds: float, what: str) -> float:
    """Seconds that it took until there were no `problems`. Raises DrillError, naming the last ones, after `seconds`."""
    seen: list[str] = []

    def none() -> bool:
        seen[:] = problems()
        return not seen

    try:
        return wait_until(none, seconds=seconds, what=what, every_s=0.5)
    except DrillError as error:
        raise DrillError(f"{error}: {len(seen)} in the way: {'; '.join(seen[:10])}") from error
