"""The verbs: up, down, status, boot, power_off. Each finds out what is there and does what is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lab import base, cgroup, disk, host, leftovers, mirror, network, nspawn, ssh
from lab.config import Lab
from lab.errors import LabError, LabRefused
from lab.machines import Machine

Progress = Callable[[str], None]
_BOOT_S = 90
# A machine with a failed unit is up: what failed is for its owner to see.
_READY = ("running", "degraded")
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Status:
    """One machine as it is now. `state` is absent, stopped or running; sizes in MiB, `uptime_s` in seconds."""

    name: str
    address: str
    state: str
    ssh: bool
    uptime_s: int
    memory_mb: int
    cpus: int


def _silent(_: str) -> None:
    return


def up(names: Sequence[str] | None = None, *, fresh: bool = False, progress: Progress = _silent, lab: Lab | None = None) -> list[Status]:
    """Bring the machines `names` (None: all) up and reachable over SSH; with `fresh` from bare machines.

    Returns the status of all machines. Raises LabRefused (nothing touched) or LabError.
    """
    lab = lab or Lab.from_environment()
    machines = lab.select(list(names) if names else None)
    host.require_root()
    with host.only_one(lab):
        _harvest(lab)
        if not fresh and _is_up(lab, machines):
            progress("already up")
            return status(lab=lab)
        host.ensure_tools(progress)
        host.allow_watches()
        missing = [machine for machine in machines if fresh or not _exists(lab, machine)]
        # Everything that this computer may lack comes before the first change: a refusal leaves the lab as it was.
        network.refuse_overlap(lab)
        mtu, resolvers = network.mtu(), network.resolvers()
        base_archive, sources = _prepare(lab, missing, progress)
        lab.paths.state.mkdir(parents=True, exist_ok=True)
        lab.paths.state.chmod(0o700)
        _discard_machines(lab, missing, progress)
        ssh.ensure_keys(lab)
        for machine in missing:
            disk.make(lab, machine, base_archive, sources)
            progress(f"{machine.name}: disk made")
        network.up(lab)
        _at_once(lambda machine: _ensure_running(lab, machine, mtu, resolvers, progress), machines)
        for machine in lab.machines:
            if _exists(lab, machine):
                disk.introduce(lab, machine)
            disk.remove_discarded(lab, machine.name)
    return status(lab=lab)


def down(*, progress: Progress = _silent, lab: Lab | None = None) -> None:
    """Stop all machines and remove everything of the lab but its download cache: disks, keys, secrets, network."""
    lab = lab or Lab.from_environment()
    host.require_root()
    with host.only_one(lab):
        present = {*nspawn.find(lab), *(machine.name for machine in lab.machines)}
        if lab.paths.machines.is_dir():
            present |= {entry.name for entry in lab.paths.machines.iterdir()}
        ssh.close_connections(lab)
        _end(lab, sorted(present), progress)
        _harvest(lab)
        disk.prune(lab)
        network.down(lab)
        cgroup.leave(lab)
        if lab.paths.state.exists():
            progress(f"removing {lab.paths.state}")
        for name in sorted(present):
            disk.discard(lab, name)
        leftovers.remove_tree(lab.paths.state)


def status(*, lab: Lab | None = None) -> list[Status]:
    """Every machine of the table as it is now; `ssh` tells whether its SSH server listens."""
    lab = lab or Lab.from_environment()
    host.require_root()
    running = nspawn.find(lab)

    def one(machine: Machine) -> Status:
        found = running.get(machine.name)
        alive = found is not None and found.leader is not None
        made = _exists(lab, machine)
        return Status(
            machine.name,
            lab.address(machine),
            "running" if alive else "stopped" if made else "absent",
            found is not None and nspawn.listens(found),
            round(time.time() - found.since) if found is not None and alive else 0,
            machine.memory_mb,
            machine.cpus,
        )

    return [one(machine) for machine in lab.machines]


def power_off(name: str, *, lab: Lab | None = None) -> None:
    """Pull the plug of one machine: everything in it ends at once. Its disk stays as it is at that moment."""
    lab = lab or Lab.from_environment()
    (machine,) = lab.select([name])
    host.require_root()
    with host.only_one(lab):
        nspawn.kill(lab, machine.name)


def boot(name: str, *, progress: Progress = _silent, lab: Lab | None = None) -> None:
    """Start one machine from the disk it has. Raises LabRefused when it has none."""
    lab = lab or Lab.from_environment()
    (machine,) = lab.select([name])
    host.require_root()
    if not _exists(lab, machine):
        raise LabRefused(f"{name}: has no disk: make it with `python -m lab up {name}`")
    up([name], progress=progress, lab=lab)


def ssh_command(name: str, words: Sequence[str] = (), *, lab: Lab | None = None) -> list[str]:
    """The command line that runs `words` on machine `name`, or opens a shell. Raises LabRefused when it is off."""
    lab = lab or Lab.from_environment()
    lab.select([name])
    host.require_root()
    found = nspawn.find(lab).get(name)
    if found is None or not nspawn.listens(found) or not lab.paths.ssh_config.is_file():
        raise LabRefused(f"{name}: does not answer: start it with `python -m lab up {name}`")
    return ssh.command(lab, name, words)


def _exists(lab: Lab, machine: Machine) -> bool:
    return lab.paths.root(machine.name).is_dir()


def _is_up(lab: Lab, machines: Sequence[Machine]) -> bool:
    running = nspawn.find(lab)
    return (
        not host.missing_packages()
        and lab.paths.ssh_config.is_file()
        and network.is_up(lab)
        and all(machine.name in running and nspawn.listens(running[machine.name]) for machine in machines)
        and all(_at_once(lambda machine: ssh.system_state(lab, machine) in _READY, machines))
    )


def _prepare(lab: Lab, missing: Sequence[Machine], progress: Progress) -> tuple[Path, list[mirror.Source]]:
    if not missing:
        return Path(), []
    host.require_space(lab, len(missing))
    lab.paths.cache.mkdir(parents=True, exist_ok=True)
    return base.ensure(lab.paths.cache, progress)


def _ensure_running(lab: Lab, machine: Machine, mtu: int, resolvers: str, progress: Progress) -> None:
    if machine.name in nspawn.find(lab):
        if _becomes_ready(lab, machine, 20):
            return
        progress(f"{machine.name}: runs but does not answer, starting it again")
        nspawn.stop(lab, machine.name, timeout_s=10)
    disk.configure(lab, machine, mtu, resolvers)
    nspawn.start(lab, machine)
    if not _becomes_ready(lab, machine, _BOOT_S):
        raise LabError(
            f"{machine.name}: did not come up at {lab.address(machine)} within {_BOOT_S} s: "
            f"see {lab.paths.console(machine.name)}, or make it anew with `up --fresh`"
        )
    progress(f"{machine.name}: running at {lab.address(machine)}")


def _becomes_ready(lab: Lab, machine: Machine, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = nspawn.find(lab).get(machine.name)
        if found is None:
            return False
        if nspawn.listens(found) and ssh.system_state(lab, machine) in _READY:
            return True
        time.sleep(0.1)
    return False


def _at_once(work: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
    """Do `work` for all items at the same time: a machine spends its boot and its shutdown waiting."""
    with ThreadPoolExecutor(max_workers=max(1, len(items))) as pool:
        return list(pool.map(work, items))


def _harvest(lab: Lab) -> None:
    # At every chance: a computer that is switched off, or a machine lost, must not cost the downloads.
    if lab.paths.machines.is_dir():
        for directory in lab.paths.machines.iterdir():
            disk.harvest(lab, directory.name)


def _end(lab: Lab, names: Sequence[str], progress: Progress) -> None:
    """Their disks go next: nothing is worth waiting for an orderly end."""

    def one(name: str) -> None:
        if name in nspawn.find(lab):
            nspawn.kill(lab, name)
            progress(f"{name}: ended")

    _at_once(one, names)


def _discard_machines(lab: Lab, machines: Sequence[Machine], progress: Progress) -> None:
    if not machines:
        return
    ssh.close_connections(lab)
    _end(lab, [machine.name for machine in machines], progress)
    _harvest(lab)
    for machine in machines:
        disk.discard(lab, machine.name)
        ssh.forget_host_key(lab, machine)
        lab.paths.console(machine.name).unlink(missing_ok=True)
