"""The restore drill as a service: its program, its login, its unit and its timer, on the hosts of group `drill`."""

from __future__ import annotations

import json
import sys

from pyinfra import host
from pyinfra.api import Host, deploy

from deploys import exporters, tls
from deploys.lib import hosts, verify
from deploys.lib.operations import Directory, File, files, service, template, units_read
from deploys.lib.settings import ROOT, DrillSettings, PostgresqlSettings, SettingsError, of

USER = "phoenix-drill"
LIBRARY = "/usr/local/lib/phoenix"
PROGRAM = f"{LIBRARY}/drill.py"
CONFIG, PASSWORD = "/etc/phoenix-drill/config.json", "/etc/phoenix-drill/password"
PGBACKREST = "/etc/pgbackrest/pgbackrest.conf"
TEXTFILE = f"{exporters.TEXTFILES}/phoenix_drill.prom"
SERVICE, TIMER = (f"/etc/systemd/system/phoenix-drill.{kind}" for kind in ("service", "timer"))
SOURCES = sorted((ROOT / "services").glob("drill*.py"))


def drilled() -> list[Host]:
    """Members of the cluster that is drilled. Raises SettingsError when the inventory has none."""
    name = hosts.settings(DrillSettings).cluster_name
    found = [member for member in hosts.members("postgresql") if of(member, PostgresqlSettings).cluster_name == name]
    if not found:
        raise SettingsError(
            f"host {host.name}: drill_cluster_name is {name}, and no host of group postgresql has that cluster: correct it."
        )
    return found


def packages() -> list[str]:
    """Debian packages: the drilled cluster's server with its extensions, pgBackRest, and what the program is written with."""
    settings = of(drilled()[0], PostgresqlSettings)
    return [name.format(version=settings.version) for name in settings.packages] + ["pgbackrest", "python3-psycopg"]


@deploy("Restore drill")
def drill() -> None:
    """The drill is installed, may log in to the leader, and runs on its schedule."""
    settings = hosts.settings(DrillSettings)
    exporters.account(name=f"User {USER}", user=USER)
    files(
        name="Program, settings and units",
        entries=[
            *[File(f"{LIBRARY}/{path.name}", path.read_text(encoding="utf-8"), mode="755") for path in SOURCES],
            Directory("/etc/phoenix-drill"),
            File(CONFIG, configuration),
            File(PASSWORD, hosts.secret("postgresql/drill"), mode="600"),
            Directory(settings.directory, USER, USER),
            File(SERVICE, template("drill/phoenix-drill.service.j2", cfg=settings, drill=sys.modules[__name__], textfile=TEXTFILE)),
            File(TIMER, template("drill/phoenix-drill.timer.j2", cfg=settings)),
        ],
    )
    units_read(name="systemd knows the drill", units=["phoenix-drill.service"])
    service(name="Drills are made on schedule", unit="phoenix-drill.timer", restart_on=[TIMER])
    verify.answers(
        name="The drill may log in to the leader",
        script=f"{PROGRAM} --check",
        seconds=30,
        problem=f"The restore drill on {host.name} cannot log in to the leader as drill: run {PROGRAM} --check there.",
    )


def configuration() -> str:
    """What services/drill_config.py reads."""
    settings = hosts.settings(DrillSettings)
    members = drilled()
    postgresql = of(members[0], PostgresqlSettings)
    return json.dumps(
        {
            "host": str(host.name),
            "stanza": settings.cluster_name,
            "hosts": [hosts.address(member) for member in members],
            "port": postgresql.port,
            "database": "phoenix",
            "schema": "phoenix",
            "user": "drill",
            "ca": tls.CA,
            "bin_dir": f"/usr/lib/postgresql/{postgresql.version}/bin",
            "pgbackrest": "/usr/bin/pgbackrest",
            **settings.model_dump(exclude={"cluster_name", "calendar", "timeout_s"}),
        },
        indent=2,
    )
