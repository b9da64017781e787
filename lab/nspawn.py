"""Machines as processes: systemd-nspawn with systemd as PID 1, started detached, found by looking, never by pid files."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from lab import cgroup, leftovers, network, shell
from lab.config import Lab
from lab.errors import LabError
from lab.machines import Machine

# Waits until it is in its control groups (a starter that dies before ends it too). nspawn ends with 133 when the machine
# asks to be rebooted and expects whoever started it to start it again.
_KEEPER = 'read -r go || exit; while :; do "$@" </dev/null; [ $? -eq 133 ] || exit; done'

# Debian 13's systemd knows only the unified layout of control groups, also where this computer has the old one.
_UNIFIED = "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY"
_TUN = Path("/dev/net/tun")
_EXPORTS = Path("/run/systemd/nspawn/unix-export")


@dataclass(frozen=True)
class Running:
    """The processes of one running machine: pids on this computer, and since when (seconds since the epoch)."""

    keepers: tuple[int, ...]
    nspawns: tuple[int, ...]
    leader: int | None
    since: float


def command(lab: Lab, machine: Machine) -> list[str]:
    """The command line that boots the machine's disk."""
    argv = [
        "systemd-nspawn",
        "--quiet",
        "--boot",
        f"--directory={lab.paths.root(machine.name)}",
        f"--machine={lab.nspawn_name(machine.name)}",
        f"--hostname={machine.name}",
        f"--network-bridge={lab.bridge}",
        # This computer's own systemd, if it has one at all, is not asked: the lab keeps its machines itself.
        "--register=no",
        "--keep-unit",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        "--console=read-only",
    ]
    if _TUN.exists():
        argv.append(f"--bind={_TUN}")
    return argv


def start(lab: Lab, machine: Machine) -> None:
    """Start the machine, detached from the caller. Raises LabError when it ends within half a second."""
    if not _TUN.exists():
        shell.run(["modprobe", "tun"], check=False)
    if _TUN.exists():
        _TUN.chmod(0o666)  # as udev does where there is one: making an interface takes CAP_NET_ADMIN all the same
    _clear(lab, machine.name)
    console = lab.paths.console(machine.name)
    before = console.stat().st_size if console.exists() else 0
    if Path("/run/systemd/system").is_dir():
        shell.run([*service(lab, machine), *cgroup.affinity(lab, machine), *command(lab, machine)])
    else:
        _start_kept(lab, machine)
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        if machine.name not in find(lab):
            said = console.read_bytes()[before:].decode(errors="replace").split("\n")
            reason = " / ".join(line.strip() for line in said[:2] if line.strip())
            raise LabError(f"{machine.name}: systemd-nspawn ended at once: {reason}: mend that and run `up` again")
        time.sleep(0.1)


def service(lab: Lab, machine: Machine) -> list[str]:
    """The beginning of the command line that makes the machine a transient service, on a computer that systemd runs.

    The properties are those of systemd's own systemd-nspawn@.service: without KillMode=mixed a shutdown of this
    computer would wait 90 s for its machines.
    """
    console = lab.paths.console(machine.name)
    properties = {
        "Type": "exec",
        "KillMode": "mixed",
        "Delegate": "yes",
        "RestartForceExitStatus": "133",
        "SuccessExitStatus": "133",
        "MemoryMax": f"{machine.memory_mb}M",
        "CPUQuota": f"{machine.cpus * 100}%",
        "TasksMax": "infinity",
        "StandardOutput": f"append:{console}",
        "StandardError": f"append:{console}",
    }
    return [
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit={lab.table}-{machine.name}",
        "--slice=machine.slice",
        f"--setenv={_UNIFIED}=1",
        *(f"--property={key}={value}" for key, value in properties.items()),
        "--",
    ]


def _start_kept(lab: Lab, machine: Machine) -> None:
    """Start the machine under a shell that starts it again when it reboots, on a computer that systemd does not run."""
    keeper = ["sh", "-c", _KEEPER, _label(lab, machine.name), *cgroup.affinity(lab, machine), *command(lab, machine)]
    ready, go = os.pipe()
    with lab.paths.console(machine.name).open("ab") as console, os.fdopen(ready) as stdin:
        process = subprocess.Popen(
            keeper,
            stdin=stdin,
            stdout=console,
            stderr=console,
            start_new_session=True,
            cwd="/",
            env=shell.environment({_UNIFIED: "1"}),
        )
    with os.fdopen(go, "w") as started:
        cgroup.enter(lab, machine, process.pid)
        started.write("go\n")


def find(lab: Lab) -> dict[str, Running]:
    """All machines of this lab that run, found among the computer's processes by the disk they were started on."""
    keepers: dict[str, list[int]] = {}
    nspawns: dict[str, list[int]] = {}
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            argv = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue  # it ended while we looked
        children.setdefault(parent, []).append(int(entry.name))
        directory = next((word for word in argv if word.startswith("--directory=")), "").removeprefix("--directory=")
        path = Path(directory)
        if not directory or path.name != "root" or path.parent.parent != lab.paths.machines:
            continue
        name = path.parent.name
        if Path(argv[0]).name == "systemd-nspawn":
            nspawns.setdefault(name, []).append(int(entry.name))
        elif _label(lab, name) in argv:
            keepers.setdefault(name, []).append(int(entry.name))
    found = {}
    for name in {*keepers, *nspawns}:
        pids = tuple(nspawns.get(name, []))
        leader = next((child for pid in pids for child in children.get(pid, []) if _is_init(child)), None)
        since = _started(leader) if leader else 0.0
        found[name] = Running(tuple(keepers.get(name, [])), pids, leader, since)
    return found


def listens(running: Running, port: int = 22) -> bool:
    """Whether somebody in the machine listens on TCP `port`, read from its network namespace.

    Without a connection: sshd refuses an address for a while that came too often only to look (PerSourcePenalties).
    """
    lines: list[str] = []
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            lines += Path(f"/proc/{running.leader}/net/{table}").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines)


def stop(lab: Lab, name: str, timeout_s: float) -> bool:
    """Shut the machine down in order; after `timeout_s` seconds pull the plug. Returns whether it went in order."""
    running = find(lab).get(name)
    if running is None:
        return True
    if running.leader is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.leader, signal.SIGRTMIN + 4)  # systemd: start poweroff.target
        if _gone(lab, name, timeout_s):
            return True
    kill(lab, name)
    return False


def kill(lab: Lab, name: str) -> None:
    """End the machine at once, as a lost power supply does: nothing inside gets to say goodbye.

    What it had written without fsync is still in this computer's page cache, which a real power cut would lose as well.
    """
    for _ in range(3):
        running = find(lab).get(name)
        if running is None:
            return
        # The keeper first, else it might start the machine again.
        for pid in (*running.keepers, *([running.leader] if running.leader else []), *running.nspawns):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if _gone(lab, name, 5):
            _clear(lab, name)
            return
    raise LabError(f"{name}: its processes do not end: look at `ps` for systemd-nspawn and restart this computer")


def _clear(lab: Lab, name: str) -> None:
    """Remove what a killed nspawn leaves behind: with its mount or its end of the cable the next one refuses to start."""
    leftovers.remove_tree(_EXPORTS / lab.nspawn_name(name))
    network.unplug(lab, name)


def _gone(lab: Lab, name: str, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while name in find(lab):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _label(lab: Lab, name: str) -> str:
    return f"{lab.table}:{name}"


def _is_init(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    pids = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
    return len(pids) > 1 and pids[-1] == "1"


def _started(pid: int) -> float:
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0.0
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - uptime_s + ticks / os.sysconf("SC_CLK_TCK")
