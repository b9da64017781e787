"""The watcher: what Patroni does not notice, a server that is there and serves nobody, is ended, so that the standby takes over; and what
would make that wait, etcd's leader on the database leader's host, is moved."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy

from deploys import tls
from deploys.lib import hosts
from deploys.lib.operations import File, files, service, template
from deploys.lib.settings import ROOT, EtcdSettings, HostSettings, PostgresqlSettings
from deploys.postgresql import patroni

PROGRAM = "/usr/local/lib/phoenix/watcher.py"
UNIT = "/etc/systemd/system/phoenix-watcher.service"


@deploy("Watcher of PostgreSQL")
def watcher() -> None:
    """The watcher runs with these settings."""
    settings, own = hosts.settings(PostgresqlSettings), hosts.settings(HostSettings).address
    files(
        name="Program and unit",
        entries=[
            File(PROGRAM, (ROOT / "services" / "watcher.py").read_text(encoding="utf-8")),
            File(
                UNIT,
                template(
                    "postgresql/phoenix-watcher.service.j2",
                    cfg=settings,
                    data=patroni.data_directory(settings),
                    address=own,
                    program=PROGRAM,
                    tls=tls,
                    etcd=hosts.settings(EtcdSettings).client_port if "etcd" in host.groups else 0,
                ),
            ),
        ],
    )
    service(name="Watcher runs", unit="phoenix-watcher.service", restart_on=[PROGRAM, UNIT])
