"""Keys and client configuration. Host keys are made with the machine, so it is known before its first answer."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from lab import shell
from lab.config import Lab
from lab.machines import Machine


def ensure_keys(lab: Lab) -> None:
    """The lab's own key, one host key per machine, known_hosts and the client configuration: made where missing."""
    lab.paths.ssh_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    _ensure_key(lab.paths.ssh_key, "lab")
    for machine in lab.machines:
        lab.paths.machine(machine.name).mkdir(parents=True, exist_ok=True, mode=0o700)
        _ensure_key(lab.paths.host_key(machine.name), machine.name)
    known = "".join(
        f"{machine.name},{lab.address(machine)} {' '.join(lab.paths.host_key(machine.name).with_suffix('.pub').read_text().split()[:2])}\n"
        for machine in lab.machines
    )
    _write(lab.paths.known_hosts, known)
    _write(lab.paths.ssh_config, client_config(lab))


def forget_host_key(lab: Lab, machine: Machine) -> None:
    """Drop the host key of a machine whose disk is gone: the next one gets its own."""
    key = lab.paths.host_key(machine.name)
    for file in (key, key.with_suffix(".pub")):
        file.unlink(missing_ok=True)


def client_config(lab: Lab) -> str:
    """The client configuration: for OpenSSH, for testinfra (--ssh-config) and for paramiko alike."""
    paths = lab.paths
    hosts = "\n".join(f"Host {machine.name}\n    HostName {lab.address(machine)}\n" for machine in lab.machines)
    names = " ".join(machine.name for machine in lab.machines)
    return f"""# Written by `python -m lab up`; gone after `python -m lab down`.
{hosts}
Host {names}
    User root
    IdentityFile {paths.ssh_key}
    IdentitiesOnly yes
    UserKnownHostsFile {paths.known_hosts}
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    UpdateHostKeys no
    HostKeyAlgorithms ssh-ed25519
    PreferredAuthentications publickey
    PasswordAuthentication no
    ForwardAgent no
    ConnectTimeout 10
    ServerAliveInterval 15
    ControlMaster auto
    ControlPath {paths.ssh_dir}/cm-%C
    ControlPersist 60
    LogLevel ERROR
"""


def command(lab: Lab, name: str, words: Sequence[str] = ()) -> list[str]:
    """The ssh command line that runs `words` on machine `name`, or opens a shell there.

    One word is passed on as it is, so that a whole shell line can be given; several arrive as exactly these arguments.
    """
    remote = [words[0]] if len(words) == 1 else [shlex.join(words)] if words else []
    return ["ssh", "-F", str(lab.paths.ssh_config), name, *remote]


def system_state(lab: Lab, machine: Machine) -> str:
    """What systemd on the machine says of itself: `running`, `starting`, `degraded`, …; empty when it does not answer."""
    # Without the shared connection: a master that outlived an earlier machine must not answer for this one.
    ask = ["-o", "ControlPath=none", machine.name, "systemctl is-system-running"]
    return shell.run(["ssh", "-F", str(lab.paths.ssh_config), *ask], check=False, timeout_s=20).stdout.strip()


def close_connections(lab: Lab) -> None:
    """End the shared connections that ControlPersist keeps open, so that none outlives its machine."""
    for control in lab.paths.ssh_dir.glob("cm-*"):
        end = ["-o", f"ControlPath={control}", "-O", "exit", "any"]
        shell.run(["ssh", "-F", str(lab.paths.ssh_config), *end], check=False)
        control.unlink(missing_ok=True)


def _ensure_key(path: Path, comment: str) -> None:
    if path.is_file() and path.with_suffix(".pub").is_file():
        return
    for leaving in (path, path.with_suffix(".pub")):
        leaving.unlink(missing_ok=True)
    shell.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])


def _write(path: Path, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.read_text() == text:
            return
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.replace(path)
