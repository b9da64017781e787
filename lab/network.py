"""The lab's network on this computer: a bridge, forwarding, a masquerade in an nftables table of its own, and the way into the tailnet."""

from __future__ import annotations

import json
from pathlib import Path

from lab import shell
from lab.config import Lab
from lab.errors import LabError, LabRefused

WAY_IN = "world"
"""The machine by which this computer reaches the others at their addresses in the tailnet, which it is not in itself."""
TAILNET_MTU = 1280
"""Of tailscaled's interfaces, in bytes."""

_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def up(lab: Lab) -> None:
    """Bring bridge, forwarding and masquerade to what they must be, whatever is there. Needs some 50 ms.

    Raises LabRefused when another interface of this computer already uses the lab's network.
    """
    refuse_overlap(lab)
    if not _link_exists(lab.bridge):
        shell.run(["ip", "link", "add", "name", lab.bridge, "type", "bridge"])
    shell.run(["ip", "link", "set", lab.bridge, "mtu", str(mtu()), "up"])
    shell.run(["ip", "address", "replace", f"{lab.gateway}/24", "dev", lab.bridge])
    for machine in lab.machines:  # those that run were cut off when somebody removed the bridge
        if _link_exists(cable(lab, machine.name)):
            shell.run(["ip", "link", "set", cable(lab, machine.name), "master", lab.bridge, "up"])
    for machine in lab.machines:
        if machine.name == WAY_IN:
            # Smaller packets on both ways: the tailnet's carry others.
            route = [str(lab.tailnet), "via", lab.address(machine), "dev", lab.bridge, "mtu", str(TAILNET_MTU)]
            shell.run(["ip", "route", "replace", *route])
    _remember_forwarding(lab)
    if _FORWARD.read_text().strip() != "1":
        _FORWARD.write_text("1")
    shell.run(["nft", "-f", "-"], stdin=ruleset(lab))


def is_up(lab: Lab) -> bool:
    """Whether bridge, forwarding and table are there."""
    return (
        _link_exists(lab.bridge)
        and _FORWARD.read_text().strip() == "1"
        and shell.run(["nft", "list", "table", "inet", lab.table], check=False).returncode == 0
        and f" {lab.gateway}/24 " in shell.run(["ip", "-4", "address", "show", "dev", lab.bridge]).stdout
    )


def down(lab: Lab) -> None:
    """Take all of it away again and put forwarding back to what it was before the lab."""
    if shell.has("nft") and shell.run(["nft", "list", "table", "inet", lab.table], check=False).returncode == 0:
        shell.run(["nft", "delete", "table", "inet", lab.table])
    if _link_exists(lab.bridge):
        shell.run(["ip", "link", "delete", lab.bridge])
    record = _forwarding_record(lab)
    if record == "0":
        _FORWARD.write_text("0")
    (lab.paths.state / "ip_forward").unlink(missing_ok=True)


def cable(lab: Lab, name: str) -> str:
    """The host's end of the cable of machine `name`, as nspawn calls it."""
    return f"vb-{lab.nspawn_name(name)}"


def unplug(lab: Lab, name: str) -> None:
    """Remove the cable of a machine that does not run. The kernel does it too, but only when it comes round to it."""
    if _link_exists(cable(lab, name)):
        shell.run(["ip", "link", "delete", cable(lab, name)], check=False)


def ruleset(lab: Lab) -> str:
    """The nftables table. Made and deleted first, all in one step: whatever was in it is replaced."""
    inside = f"ip saddr {lab.network}"
    return f"""
table inet {lab.table} {{}}
delete table inet {lab.table}
table inet {lab.table} {{
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname "{lab.bridge}" tcp flags syn tcp option maxseg size set rt mtu
        oifname "{lab.bridge}" tcp flags syn tcp option maxseg size set rt mtu
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        {inside} ip daddr != {lab.network} masquerade
    }}
}}
"""


def mtu() -> int:
    """The largest packet (bytes) on this computer's way out; a machine's larger ones would be lost on a tunnelled uplink."""
    routes = json.loads(shell.run(["ip", "-json", "-4", "route", "show", "default"]).stdout or "[]")
    if not routes:
        return 1500
    links = json.loads(shell.run(["ip", "-json", "link", "show", "dev", routes[0]["dev"]]).stdout)
    return int(links[0]["mtu"])


def resolvers() -> str:
    """The resolv.conf for the machines: this computer's own, past a stub that only this computer can reach."""
    for path in (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")):
        lines = path.read_text().splitlines() if path.is_file() else []
        servers = [line.split()[1] for line in lines if line.startswith("nameserver ") and len(line.split()) > 1]
        outside = [server for server in servers if not server.startswith("127.") and server != "::1"]
        if outside:
            rest = [line for line in lines if line.startswith(("search ", "domain ", "options "))]
            return "".join(f"{line}\n" for line in [*(f"nameserver {server}" for server in outside), *rest])
    raise LabError("/etc/resolv.conf: no DNS server in it that a machine could reach: add a `nameserver` with an outside address")


def refuse_overlap(lab: Lab) -> None:
    """Raise LabRefused when a link that is not the lab's bridge has an address or a route in the lab's network, or in its tailnet."""
    for route in json.loads(shell.run(["ip", "-json", "-4", "route", "show"]).stdout or "[]"):
        destination = str(route.get("dst", ""))
        used = [net for net in (lab.network, lab.tailnet) if destination.startswith(str(net.network_address).rsplit(".", 1)[0] + ".")]
        if used and route.get("dev") != lab.bridge:
            raise LabRefused(
                f"{used[0]}: already in use on {route.get('dev')}: free it, or choose others with "
                "PHOENIX_LAB_NETWORK, PHOENIX_LAB_BRIDGE and PHOENIX_LAB_STATE"
            )


def _link_exists(name: str) -> bool:
    return Path("/sys/class/net", name).exists()


def _remember_forwarding(lab: Lab) -> None:
    # Once per boot of this computer: after a killed run the current value is ours, after a restart the record is stale.
    if _forwarding_record(lab) is None:
        part = lab.paths.state / "ip_forward.part"
        part.write_text(f"{_BOOT_ID.read_text().strip()} {_FORWARD.read_text().strip()}\n")
        part.replace(lab.paths.state / "ip_forward")


def _forwarding_record(lab: Lab) -> str | None:
    try:
        boot_id, _, value = (lab.paths.state / "ip_forward").read_text().strip().partition(" ")
    except FileNotFoundError:
        return None
    return value if boot_id == _BOOT_ID.read_text().strip() else None
