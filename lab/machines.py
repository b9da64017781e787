"""The machines of the lab: the only table to edit to add one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """One machine of the lab.

    `address` is its IPv4 address in the lab's network. `memory_mb` (MiB) and `cpus` (whole cores) are ceilings, not
    reservations: programs inside that ask the kernel for the memory see all of this computer's.
    """

    name: str
    address: str
    memory_mb: int
    cpus: int


MACHINES: tuple[Machine, ...] = (
    Machine("vps1", "10.66.0.11", memory_mb=6144, cpus=2),
    Machine("vps2", "10.66.0.12", memory_mb=6144, cpus=2),
    Machine("vps3", "10.66.0.13", memory_mb=6144, cpus=2),
    Machine("world", "10.66.0.20", memory_mb=2048, cpus=2),
)
