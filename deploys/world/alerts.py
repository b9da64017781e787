"""The lab's `world` plays the one who receives alerts, and keeps them."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy

from deploys.lib import hosts, verify
from deploys.lib.operations import File, files, service, template
from deploys.lib.settings import ROOT, HostSettings, WorldSettings

PROGRAM = "/usr/local/lib/phoenix/alert_receiver.py"
UNIT = "/etc/systemd/system/alert-receiver.service"


@deploy("Receiver of alerts")
def alert_receiver() -> None:
    """Alertmanager's webhook ends here; what came can be read again at the same address."""
    own, port = hosts.settings(HostSettings).address, hosts.settings(WorldSettings).alert_receiver_port
    files(
        name="Program and unit",
        entries=[
            File(PROGRAM, (ROOT / "services" / "alert_receiver.py").read_text(encoding="utf-8")),
            File(UNIT, template("world/alert-receiver.service.j2", address=own, port=port, program=PROGRAM)),
        ],
    )
    service(name="Receiver runs", unit="alert-receiver.service", restart_on=[PROGRAM, UNIT])
    verify.answers(
        name="Receiver answers",
        script=f"curl -sf --max-time 5 http://{own}:{port}/alerts",
        seconds=20,
        problem=f"The receiver of alerts on {host.name} does not answer on port {port}: look at 'phoenix logs alert-receiver'.",
    )
