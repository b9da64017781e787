"""The lab's `world` plays the vendor of the tailnet: headscale as control server, with a relay of its own.

What the vendor's console does by hand or API is done here: keys for one join, tags, and addresses. Headscale hands out addresses in the
order of joins and has no command to choose one, so the declared address is written into its database while it is stopped.
"""

from __future__ import annotations

import json
import shlex
from typing import Any

from pyinfra import context, host
from pyinfra.api import StringCommand, deploy, operation

from deploys import exporters, tailscale, tls
from deploys.lib import artifacts, facts, findings, hosts, tailnet, verify
from deploys.lib.artifacts import GoProgram
from deploys.lib.operations import Commands, Directory, File, files, service, template, upload
from deploys.lib.settings import HostSettings, WorldSettings

SERVER = GoProgram(
    module="github.com/juanfont/headscale",
    version="v0.29.3",
    checksum="h1:HtR0T+LiEC4PiUfiZnW1vz+jvDGlJy1YKKzGDPbuvRw=",
    package="github.com/juanfont/headscale/cmd/headscale",
    go=(1, 26),
    as_requirement=True,
)
USER = "phoenix-headscale"
HOME = "/opt/phoenix/headscale"
UNIT = "/etc/systemd/system/phoenix-headscale.service"
CONFIG, POLICY = "/etc/phoenix-headscale/config.yaml", "/etc/phoenix-headscale/policy.hujson"
DATA = "/var/lib/phoenix-headscale"
SOCKET = "/run/phoenix-headscale/headscale.sock"
CLIENT = f"{HOME}/{SERVER.name} --config {CONFIG}"
# Written to a file of memory, read once, gone.
KEY = "/run/phoenix-headscale-key"


@deploy("Control server of the tailnet")
def headscale() -> None:
    """The server answers with the policy of the inventory, and the store has a key for each host that has to join."""
    settings, own = hosts.settings(WorldSettings), hosts.settings(HostSettings).address
    exporters.account(name=f"User {USER}", user=USER)
    tls.readers(name="The control server may read the host's key", users=[USER])
    upload(name="Server", source=lambda: artifacts.go_program(SERVER), directory=HOME)
    files(
        name="Configuration, policy and unit",
        entries=[
            Directory("/etc/phoenix-headscale", "root", USER, "750"),
            File(
                CONFIG,
                template(
                    "headscale/config.yaml.j2",
                    address=own,
                    port=settings.headscale_port,
                    stun_port=settings.headscale_stun_port,
                    data=DATA,
                    policy=POLICY,
                    socket=SOCKET,
                    network=tailnet.NETWORK,
                    tls=tls,
                ),
                "root",
                USER,
                "640",
            ),
            File(POLICY, lambda: tailnet.policy(tailscale.members(), pools=False), "root", USER, "640"),
            File(
                UNIT,
                template("headscale/phoenix-headscale.service.j2", program=f"{HOME}/{SERVER.name}", config=CONFIG, user=USER, data=DATA),
            ),
        ],
    )
    service(
        name="Server runs with this configuration",
        unit="phoenix-headscale.service",
        restart_on=[UNIT, CONFIG, f"{HOME}/.phoenix-digest", *tls.ALL],
        reload_on=[POLICY],
    )
    verify.answers(
        name="Server answers over TLS",
        script=f"{tls.CURL} --max-time 5 https://{own}:{settings.headscale_port}/health",
        seconds=30,
        problem=f"The control server on {host.name} does not answer on port {settings.headscale_port}: look at 'phoenix logs headscale'.",
    )
    keys(name="Keys for hosts that have to join")


def _nodes() -> dict[str, dict[str, Any]]:
    """The server's nodes by name."""
    found = host.get_fact(facts.Json, script=f"{CLIENT} nodes list -o json") or []
    return {node["name"]: node for node in found}


@operation()
def keys() -> Commands:
    """The store has a new one-time key, good for an hour, for every host that the server does not know or whose key has expired."""
    nodes, store = _nodes(), hosts.secrets()
    for member in tailscale.members():
        node = nodes.get(member.name)
        if node and not _expired(node) and tailscale.identity_secret(member.name) in store:
            continue
        findings.report(f"{member.name} has no valid place in the tailnet")
        tags = ",".join(tailnet.tags(member.name, member.groups))
        path = f"{KEY}-{member.name}"
        yield f"umask 077 && {CLIENT} preauthkeys create --expiration 1h --tags {tags} -o json >{path}"
        made = host.get_fact(facts.Json, script=f"cat {path} && rm {path}")
        if context.state.is_executing and made:
            store.set(tailscale.key_secret(member.name), made["key"])


def _expired(node: dict[str, Any]) -> bool:
    """Whether the node's key has a time of expiry: hosts' keys have none, so one was set to be rid of it."""
    expiry = node.get("expiry")
    return bool(expiry) and int((expiry or {}).get("seconds", 0)) > 0


@deploy("Addresses and tags in the tailnet")
def nodes() -> None:
    """Every host of the tailnet has the address that the inventory declares, and the tags of its groups."""
    addresses(name="Declared addresses")
    tagged(name="Tags of the groups")
    verify.answers(
        name="Server is back",
        script=f"{CLIENT} nodes list -o json",
        seconds=30,
        problem=f"The control server on {host.name} does not answer: look at 'phoenix logs headscale'.",
    )


@operation()
def addresses() -> Commands:
    """The server's database gives each host its declared address."""
    nodes = _nodes()
    wanted = {
        nodes[member.name]["id"]: tailnet.address(member.settings)
        for member in tailscale.members()
        if member.name in nodes and tailnet.address(member.settings) not in nodes[member.name]["ip_addresses"]
    }
    if not wanted:
        return
    for number, address in wanted.items():
        findings.report(f"node {number} has not the address {address}")
    program = (
        "import json, sqlite3, sys; wanted = json.loads(sys.argv[1]); db = sqlite3.connect(sys.argv[2]); "
        # Two may want each other's, and no address may be there twice.
        '[db.execute("UPDATE nodes SET ipv4 = NULL WHERE id = ?", (int(n),)) for n in wanted]; '
        '[db.execute("UPDATE nodes SET ipv4 = ? WHERE id = ?", (a, int(n))) for n, a in wanted.items()]; db.commit()'
    )
    yield (
        f"systemctl stop phoenix-headscale; runuser -u {USER} -- python3 -c {shlex.quote(program)} "
        f"{shlex.quote(json.dumps(wanted))} {DATA}/db.sqlite; status=$?; systemctl start phoenix-headscale; exit $status"
    )


@operation()
def tagged() -> Commands:
    """Each host has the tags of its groups, also those that changed since it joined."""
    nodes = _nodes()
    commands: list[str | StringCommand] = []
    for member in tailscale.members():
        wanted, node = tailnet.tags(member.name, member.groups), nodes.get(member.name)
        if node and sorted(node.get("tags") or []) != wanted:
            findings.report(f"{member.name} has other tags")
            commands.append(f"{CLIENT} nodes tag --force -i {node['id']} -t {','.join(wanted)}")
    yield from commands
