"""Where a lab lives on this computer: directories, network, names. Two labs with different values do not meet."""

from __future__ import annotations

import hashlib
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabRefused
from lab.machines import MACHINES, Machine

_STATE = "/var/lib/phoenix-lab"
_CACHE = "/var/cache/phoenix"
_NETWORK = ipaddress.IPv4Network("10.66.0.0/24")
_BRIDGE = "phoenix0"
_TABLE = "phoenix_lab"
SUITE = "trixie"


@dataclass(frozen=True)
class Paths:
    """The files of one lab. Everything under `state` is removed by `down`; `cache` stays."""

    state: Path
    cache: Path

    @property
    def ssh_dir(self) -> Path:
        return self.state / "ssh"

    @property
    def ssh_key(self) -> Path:
        return self.ssh_dir / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.ssh_dir / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        return self.ssh_dir / "config"

    @property
    def secrets(self) -> Path:
        """Where the deploy of the lab keeps the secrets it generates; the lab itself only removes it."""
        return self.state / "secrets.yaml"

    @property
    def machines(self) -> Path:
        return self.state / "machines"

    def machine(self, name: str) -> Path:
        return self.machines / name

    def root(self, name: str) -> Path:
        """The root file system of one machine, on this computer's disk."""
        return self.machine(name) / "root"

    def host_key(self, name: str) -> Path:
        """The machine's SSH host key; its disk gets a copy."""
        return self.machine(name) / "ssh_host_ed25519_key"

    def console(self, name: str) -> Path:
        """What the machine wrote to its console since it was made."""
        return self.machine(name) / "console.log"


@dataclass(frozen=True)
class Lab:
    """One lab: its directories, its network and its machines. `Lab.from_environment()` is the one everybody uses."""

    paths: Paths = Paths(Path(_STATE), Path(_CACHE))
    network: ipaddress.IPv4Network = _NETWORK
    bridge: str = _BRIDGE
    table: str = _TABLE
    machines: tuple[Machine, ...] = MACHINES

    @classmethod
    def from_environment(cls, env: Mapping[str, str] | None = None) -> Lab:
        """The lab that PHOENIX_LAB_STATE, PHOENIX_LAB_NETWORK, PHOENIX_LAB_BRIDGE and PHOENIX_CACHE describe.

        Whoever moves the state directory must move network and bridge too, else the two labs fight over the addresses.
        Raises LabRefused for values that cannot work.
        """
        env = os.environ if env is None else env
        state = Path(env.get("PHOENIX_LAB_STATE") or _STATE)
        cache = Path(env.get("PHOENIX_CACHE") or _CACHE)
        bridge = env.get("PHOENIX_LAB_BRIDGE") or _BRIDGE
        given = env.get("PHOENIX_LAB_NETWORK") or str(_NETWORK)
        for variable, path in (("PHOENIX_LAB_STATE", state), ("PHOENIX_CACHE", cache)):
            if not path.is_absolute() or len(path.parts) < 3:
                raise LabRefused(f"{variable}={path}: must be an absolute path, two levels deep at least, like {_STATE}")
        try:
            network = ipaddress.IPv4Network(given)
        except ValueError as error:
            raise LabRefused(f"PHOENIX_LAB_NETWORK={given}: {error}: set it like {_NETWORK}") from error
        if network.prefixlen != 24:
            raise LabRefused(f"PHOENIX_LAB_NETWORK={given}: must be a /24: set it like {_NETWORK}")
        if not bridge.isalnum() or len(bridge) > 10:
            raise LabRefused(f"PHOENIX_LAB_BRIDGE={bridge}: must be 1 to 10 letters and digits: set it like {_BRIDGE}")
        default = state == Path(_STATE) and bridge == _BRIDGE
        return cls(Paths(state, cache), network, bridge, _TABLE if default else f"{_TABLE}_{bridge}")

    @property
    def gateway(self) -> str:
        """This computer's address in the lab's network."""
        return str(self.network.network_address + 1)

    @property
    def tailnet(self) -> ipaddress.IPv4Network:
        """The machines' addresses in the tailnet that they make, which are all in 100.64.0.0/10: 10.66.0.0/24 gives 100.66.0.0/24."""
        _, second, third, _ = self.network.network_address.packed
        return ipaddress.IPv4Network((bytes([100, 64 + second % 64, third, 0]), 24))

    def address(self, machine: Machine) -> str:
        """The address of `machine` in this lab's network: the host part is the table's."""
        return str(self.network.network_address + int(ipaddress.IPv4Address(machine.address)) % 256)

    def tailnet_address(self, machine: Machine) -> str:
        """The address of `machine` in the tailnet, with the same host part."""
        return str(self.tailnet.network_address + int(ipaddress.IPv4Address(machine.address)) % 256)

    def nspawn_name(self, name: str) -> str:
        """The name under which systemd-nspawn knows the machine: unique among the labs of this computer.

        It also names the host's end of the machine's cable, which may have 15 characters.
        """
        if self.bridge == _BRIDGE:
            return name
        return f"{hashlib.sha256(self.bridge.encode()).hexdigest()[:4]}-{name}"

    def select(self, names: list[str] | None) -> tuple[Machine, ...]:
        """The machines called `names`, all of them for None. Raises LabRefused for a name that is not in the table."""
        known = {machine.name: machine for machine in self.machines}
        unknown = [name for name in names or [] if name not in known]
        if unknown:
            raise LabRefused(f"{', '.join(unknown)}: not in lab/machines.py: choose from {', '.join(known)}")
        return tuple(machine for machine in self.machines if not names or machine.name in names)
