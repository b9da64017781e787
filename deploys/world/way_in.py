"""The lab's `world` is an operator's computer in the tailnet, for the computer that the lab runs on: it joins, and passes packets on.

Whoever operates a platform of one's own joins the tailnet. The lab's computer is not made to: it has a route to `world` instead
(lab/network.py), and meets the same policy and the same firewalls as an operator does.
"""

from __future__ import annotations

import shlex

from pyinfra import host
from pyinfra.api import deploy, operation

from deploys import exporters, tailscale, tls
from deploys.lib import artifacts, facts, findings, hosts, tailnet
from deploys.lib.operations import Commands, Directory, File, files, service, template, upload
from deploys.lib.settings import TailscaleSettings, of
from deploys.world import headscale

UNIT = "/etc/systemd/system/phoenix-way-in.service"
DAEMON, CLIENT = f"{tailscale.HOME}/tailscaled", f"{tailscale.HOME}/tailscale"


@deploy("Way into the tailnet")
def way_in() -> None:
    """tailscaled runs, has joined as an operator's computer, and the kernel passes packets on."""
    exporters.account(name=f"User {tailscale.USER}", user=tailscale.USER)
    upload(name="Programs", source=lambda: artifacts.go_program(tailscale.PROGRAMS), directory=tailscale.HOME)
    files(
        name="Units",
        entries=[
            Directory("/var/lib/tailscale", tailscale.USER, tailscale.USER, "700"),
            File(tailscale.UNIT, tailscale.unit(_shared(), DAEMON)),
            File(UNIT, template("headscale/phoenix-way-in.service.j2")),
        ],
    )
    service(name="Packets are passed on", unit="phoenix-way-in.service", restart_on=[UNIT])
    service(name="tailscaled runs with this configuration", unit="tailscaled.service", restart_on=[tailscale.UNIT, DAEMON, tls.CA])
    joined(name="It has joined")


def _shared() -> TailscaleSettings:
    """What the whole tailnet has in common, of its first host."""
    return of(hosts.members(tailnet.EVERY_HOST)[0], TailscaleSettings)


@operation()
def joined() -> Commands:
    """The world has a place in the tailnet, with the tags of an operator; its key is made here, used once, and gone."""
    tags = sorted(source for source in _shared().operators if source.startswith("tag:"))
    script = f"{CLIENT} status --json --peers=false | python3 -c {shlex.quote(tailscale.TAGS)} {shlex.join(tags)}"
    if not host.get_fact(facts.Output, script=script).endswith(facts.FAILED):
        return
    findings.report("the world is not in the tailnet as an operator")
    key = tailscale.KEY_FILE
    flags = shlex.join(tailscale.flags(_shared()))
    yield (
        f"umask 077 && {headscale.CLIENT} preauthkeys create --expiration 5m --tags {','.join(tags)} -o json "
        f"| python3 -c 'import json, sys; print(json.load(sys.stdin)[\"key\"])' >{key} && "
        f"{CLIENT} up {flags} --force-reauth --auth-key=file:{key}; status=$?; rm -f {key}; exit $status"
    )
