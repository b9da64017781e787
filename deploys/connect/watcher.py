"""Who looks after Connect: what failed in it is started again, and Prometheus is told."""

from __future__ import annotations

import sys

from pyinfra import host
from pyinfra.api import deploy

from deploys import exporters, tls
from deploys.lib import hosts, verify
from deploys.lib.operations import File, files, service, template
from deploys.lib.settings import ROOT, ConnectSettings, HostSettings

USER = "phoenix-connect-watcher"
PROGRAM = "/usr/local/lib/phoenix/connect_watcher.py"
UNIT = "/etc/systemd/system/phoenix-connect-watcher.service"


@deploy("Watcher of Kafka Connect")
def watcher() -> None:
    """The watcher runs, and finds everything well."""
    settings, address = hosts.settings(ConnectSettings), hosts.settings(HostSettings).address
    exporters.account(name=f"User {USER}", user=USER)
    tls.readers(name="The watcher may read the host's key", users=[USER])
    files(
        name="Program and unit",
        entries=[
            File(PROGRAM, (ROOT / "services" / "connect_watcher.py").read_text(encoding="utf-8")),
            File(
                UNIT,
                template(
                    "connect/phoenix-connect-watcher.service.j2", cfg=settings, address=address, watcher=sys.modules[__name__], tls=tls
                ),
            ),
        ],
    )
    service(name="Watcher runs", unit="phoenix-connect-watcher.service", restart_on=[PROGRAM, UNIT, *tls.ALL])
    verify.answers(
        name="Connect is well",
        script=f"{tls.CURL} --max-time 10 https://{address}:{settings.metrics_port}/health",
        seconds=60,
        problem=f"Kafka Connect on {host.name} is not well: /health on port {settings.metrics_port} says what, 'phoenix logs connect' why.",
    )
