"""The lab: real Debian machines on this computer, made, started and stopped. Nothing of the platform is in here.

`up`, `down`, `status`, `boot`, `power_off` and `ssh_command` work on the lab that the environment describes
(see `config.Lab`); `paths` tells where its files are.
"""

from __future__ import annotations

from lab.config import Lab, Paths
from lab.errors import LabError, LabRefused
from lab.machines import MACHINES, Machine
from lab.manage import Status, boot, down, power_off, ssh_command, status, up

paths: Paths  # worked out when asked for, so that a bad environment is an error of the verb and not of the import


__all__ = [
    "MACHINES",
    "Lab",
    "LabError",
    "LabRefused",
    "Machine",
    "Paths",
    "Status",
    "boot",
    "down",
    "paths",
    "power_off",
    "ssh_command",
    "status",
    "up",
]


def __getattr__(name: str) -> Paths:
    if name == "paths":
        return Lab.from_environment().paths
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
