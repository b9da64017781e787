"""HAProxy: the writer and the readers at one address each of the host's loopback, whoever leads."""

from __future__ import annotations

from deploys import tls
from deploys.gateway import cluster
from deploys.lib import hosts
from deploys.lib.operations import Directory, File, service, template
from deploys.lib.settings import GatewaySettings, HostSettings
from deploys.postgresql.patroni import PROBE

PACKAGES = ["haproxy"]
USER = "haproxy"
CONFIG = "/etc/haproxy/haproxy.cfg"
HOLD = "/etc/haproxy/hold.lua"
DROP_IN = "/etc/systemd/system/haproxy.service.d/phoenix.conf"


def entries() -> list[File | Directory]:
    """The files of HAProxy on the present host."""
    settings = hosts.settings(GatewaySettings)
    configuration = template(
        "haproxy/haproxy.cfg.j2",
        cfg=settings,
        address=hosts.settings(HostSettings).address,
        database=cluster.database(),
        members={str(member.name): hosts.address(member) for member in cluster.members()},
        tls=tls,
    )
    return [
        Directory("/etc/haproxy"),
        File(CONFIG, configuration),
        File(HOLD, template("haproxy/hold.lua.j2", probe=PROBE)),
        File(DROP_IN, template("haproxy/haproxy.service.conf.j2")),
    ]


def runs() -> None:
    """HAProxy runs with them. Another set of members is taken over by a reload, which cuts no session."""
    service(
        name="HAProxy runs with this configuration",
        unit="haproxy.service",
        restart_on=[DROP_IN],
        reload_on=[CONFIG, HOLD, *tls.ALL],
    )


def metrics_url() -> str:
    """Where Prometheus asks HAProxy of the present host."""
    return f"https://{hosts.settings(HostSettings).address}:{hosts.settings(GatewaySettings).metrics_port}/metrics"
