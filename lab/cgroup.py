"""Control groups of the machines: a tree of its own for each, with its ceilings, on whatever layout this computer has.

Only for computers that systemd does not run; where it does, the groups are its business (see nspawn.py).

Without one of their own, machines started from the same group would share one tree, and each one's systemd would see
the other's processes in its services.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.config import Lab
from lab.machines import Machine

_CPU_PERIOD_US = 100_000


@dataclass(frozen=True)
class Hierarchy:
    """A mounted hierarchy: `controllers` are version 1 controllers, `name=systemd`, or `unified` for version 2."""

    path: Path
    controllers: frozenset[str]


def parse_mounts(mountinfo: str) -> list[Hierarchy]:
    """The hierarchies in the text of /proc/self/mountinfo that matter for a machine."""
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2) if right.count(" ") >= 2 else ("", "", "")
        path = Path(left.split()[4]) if len(left.split()) > 4 else Path()
        if kind == "cgroup2":
            found.append(Hierarchy(path, frozenset({"unified"})))
        elif kind == "cgroup":
            controllers = frozenset(options.split(",")) & {"memory", "cpu", "name=systemd"}
            if controllers:
                found.append(Hierarchy(path, controllers))
    return found


def hierarchies() -> list[Hierarchy]:
    """The hierarchies mounted on this computer."""
    return parse_mounts(Path("/proc/self/mountinfo").read_text())


def ceilings(hierarchy: Hierarchy, machine: Machine) -> dict[str, str]:
    """Which control file gets which value in the machine's group of `hierarchy`."""
    memory, quota = str(machine.memory_mb * 1024 * 1024), machine.cpus * _CPU_PERIOD_US
    if "unified" in hierarchy.controllers:
        return {"memory.max": memory, "cpu.max": f"{quota} {_CPU_PERIOD_US}"}
    files = {}
    if "memory" in hierarchy.controllers:
        files["memory.limit_in_bytes"] = memory
    if "cpu" in hierarchy.controllers:
        files["cpu.cfs_quota_us"] = str(quota)
    return files


def affinity(lab: Lab, machine: Machine) -> list[str]:
    """What to put before the machine's command line where it has fewer cores than this computer."""
    cores = choose_cores(sorted(os.sched_getaffinity(0)), machine.cpus, lab.machines.index(machine))
    return ["taskset", "--cpu-list", ",".join(map(str, cores))] if cores else []


def choose_cores(available: list[int], wanted: int, turn: int) -> list[int]:
    """The cores for the machine that is number `turn` in the table, in turn so that machines share evenly; [] for all.

    Unlike a quota this is seen by `nproc` inside.
    """
    if wanted >= len(available):
        return []
    return sorted(available[(turn * wanted + step) % len(available)] for step in range(wanted))


def enter(lab: Lab, machine: Machine, pid: int) -> None:
    """Move process `pid` into the machine's own groups, made with their ceilings where the layout has such."""
    for hierarchy in hierarchies():
        group = hierarchy.path / lab.table / machine.name
        group.mkdir(parents=True, exist_ok=True)
        if "unified" in hierarchy.controllers:
            for above in (hierarchy.path, hierarchy.path / lab.table):
                for controller in ("memory", "cpu", "pids"):
                    with contextlib.suppress(OSError):  # in use by version 1, or not offered here
                        (above / "cgroup.subtree_control").write_text(f"+{controller}")
        for file, value in ceilings(hierarchy, machine).items():
            if (group / file).exists():
                (group / file).write_text(value)
        (group / "cgroup.procs").write_text(str(pid))


def leave(lab: Lab, name: str | None = None) -> None:
    """Remove the groups of machine `name`, or of the whole lab, once their processes have ended."""
    for hierarchy in hierarchies():
        top = hierarchy.path / lab.table
        for group in _deepest_first(top / name if name else top):
            for _ in range(20):
                try:
                    group.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:  # the last process has ended but is not yet accounted for
                    time.sleep(0.05)


def _deepest_first(top: Path) -> Iterator[Path]:
    if top.is_dir():
        for directory, _, _ in os.walk(top, topdown=False):
            yield Path(directory)
