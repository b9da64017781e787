"""HAProxy: the writer and the readers at one address each of the host's loopback, whoever leads."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy

from deploys import tls
from deploys.gateway import cluster
from deploys.lib import hosts, verify
from deploys.lib.operations import Directory, File, files, service, template
from deploys.lib.settings import GatewaySettings, HostSettings
from deploys.postgresql.patroni import PROBE

PACKAGES = ["haproxy"]
CONFIG = "/etc/haproxy/haproxy.cfg"
HOLD = "/etc/haproxy/hold.lua"
DROP_IN = "/etc/systemd/system/haproxy.service.d/phoenix.conf"


@deploy("HAProxy")
def haproxy() -> None:
    """The leader answers at the writer's port. Another set of members is taken over without cutting a session."""
    settings = hosts.settings(GatewaySettings)
    own = hosts.settings(HostSettings).address
    tls.readers(name="HAProxy may read the host's key", users=["haproxy"])
    files(
        name="Configuration",
        entries=[
            Directory("/etc/haproxy"),
            File(
                CONFIG,
                template(
                    "haproxy/haproxy.cfg.j2",
                    cfg=settings,
                    address=own,
                    database=cluster.database(),
                    members={str(member.name): hosts.address(member) for member in cluster.members()},
                    tls=tls,
                ),
            ),
            File(HOLD, template("haproxy/hold.lua.j2", probe=PROBE)),
            File(DROP_IN, template("haproxy/haproxy.service.conf.j2")),
        ],
    )
    service(
        name="HAProxy runs with this configuration",
        unit="haproxy.service",
        restart_on=[DROP_IN],
        reload_on=[CONFIG, HOLD, *tls.ALL],
    )
    url = f"https://{own}:{settings.metrics_port}/metrics"
    verify.answers(
        name="HAProxy finds the writer",
        script=f"{tls.CURL} --max-time 10 {url} | grep '^haproxy_backend_active_servers{{proxy=\"writer\"}} 1$'",
        seconds=30,
        problem=f"HAProxy on {host.name} finds no leader of {settings.cluster_name}: see 'phoenix logs haproxy', and whether its members "
        f"answer on port {cluster.database().patroni_port}.",
    )
