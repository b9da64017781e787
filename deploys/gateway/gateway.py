"""A gateway: one address for the writer and the readers of a cluster, which no failover changes."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy

from deploys import tls
from deploys.exporters import account
from deploys.gateway import cluster, haproxy, pgbouncer
from deploys.lib import hosts, verify
from deploys.lib.operations import files
from deploys.lib.settings import GatewaySettings


def packages() -> list[str]:
    """Debian packages of a gateway."""
    return haproxy.PACKAGES + pgbouncer.packages()


def preflight() -> None:
    """Raise SettingsError, before anything changes, when there is no cluster to serve or it has too few connections to share."""
    cluster.pools()


@deploy("Gateway")
def gateway() -> None:
    """Clients find the writer as database `phoenix` and the readers as `phoenix_ro`, over TLS, with the passwords of the database."""
    settings = hosts.settings(GatewaySettings)
    account(name="User pgbouncer", user=pgbouncer.USER)
    tls.readers(name="Both may read the host's key", users=[haproxy.USER, pgbouncer.USER])
    files(name="Configuration", entries=haproxy.entries() + pgbouncer.entries())
    haproxy.runs()
    pgbouncer.runs()
    verify.answers(
        name="The way from the client's TLS to a login's look-up at the writer is open",
        script=f"{pgbouncer.lookup()} && {pgbouncer.handshake()}",
        seconds=40,
        problem=f"The gateway on {host.name} does not reach the writer of cluster {settings.cluster_name}, or takes no client on port "
        f"{settings.port}: see 'phoenix logs haproxy', 'phoenix logs pgbouncer' and 'phoenix drift'.",
    )
    ask = f"{tls.CURL} --max-time 10"
    verify.answers(
        name="HAProxy and PgBouncer are measured",
        script=f"{ask} {haproxy.metrics_url()} | grep '^haproxy_backend_active_servers{{proxy=\"writer\"}} 1$' "
        f"&& {ask} {pgbouncer.metrics_url()} | grep '^pgbouncer_up 1'",
        seconds=30,
        problem=f"HAProxy or PgBouncer on {host.name} is not measured at {haproxy.metrics_url()} and {pgbouncer.metrics_url()}: see "
        "'phoenix logs haproxy' and 'phoenix logs pgbouncer-exporter'.",
    )
