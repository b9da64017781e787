"""The lab's `world` plays what n8n's workflows ask: the enrichment API, three feeds and the CRM. It can be told to misbehave."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy

from deploys import exporters, tls
from deploys.lib import hosts, verify
from deploys.lib.operations import Directory, File, files, service, template
from deploys.lib.settings import ROOT, HostSettings, WorldSettings

USER = "phoenix-upstreams"
PROGRAM = "/usr/local/lib/phoenix/upstreams.py"
UNIT = "/etc/systemd/system/phoenix-upstreams.service"
KEYS = "/etc/phoenix-upstreams"
SECRETS = {"hubspot-token": "n8n/hubspot-token", "enrichment-key": "n8n/enrichment-key"}


@deploy("Upstreams of n8n")
def upstreams() -> None:
    """They answer over https, to whoever has the right key; how they misbehave is set at /control by the platform's certificates."""
    own, port = hosts.settings(HostSettings).address, hosts.settings(WorldSettings).upstreams_port
    exporters.account(name=f"User {USER}", user=USER)
    tls.readers(name="They may read the host's key", users=[USER])
    files(
        name="Program, keys and unit",
        entries=[
            File(PROGRAM, (ROOT / "services" / "upstreams.py").read_text(encoding="utf-8")),
            Directory(KEYS),
            *[File(f"{KEYS}/{name}", hosts.secret(secret), mode="600") for name, secret in SECRETS.items()],
            File(
                UNIT,
                template(
                    "world/upstreams.service.j2",
                    address=own,
                    port=port,
                    program=PROGRAM,
                    user=USER,
                    keys=KEYS,
                    names=list(SECRETS),
                    tls=tls,
                ),
            ),
        ],
    )
    service(
        name="Upstreams run",
        unit="phoenix-upstreams.service",
        restart_on=[PROGRAM, UNIT, *[f"{KEYS}/{name}" for name in SECRETS], *tls.ALL],
    )
    verify.answers(
        name="Upstreams answer",
        script=f"{tls.CURL} --max-time 5 https://{own}:{port}/control/health",
        seconds=20,
        problem=f"The upstreams on {host.name} do not answer on port {port}: look at 'phoenix logs upstreams'.",
    )
