"""PgBouncer: the address that clients use. Thousands of them share the few connections that PostgreSQL can serve well."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from deploys import tls
from deploys.exporters import WEB
from deploys.gateway import cluster
from deploys.lib import hosts
from deploys.lib.operations import Directory, File, service, template
from deploys.lib.settings import GatewaySettings, HostSettings

USER = "pgbouncer"
CONFIG = "/etc/pgbouncer/pgbouncer.ini"
LISTEN = "/etc/pgbouncer/listen.ini"
ACCESS = "/etc/pgbouncer/access.conf"
LOGINS = "/etc/pgbouncer/userlist.txt"
DROP_IN = "/etc/systemd/system/pgbouncer.service.d/phoenix.conf"
RUN = "/run/pgbouncer"
EXPORTER = "/etc/default/prometheus-pgbouncer-exporter"
EXPORTER_DROP_IN = "/etc/systemd/system/prometheus-pgbouncer-exporter.service.d/phoenix.conf"
EXPORTER_USER = "prometheus"
"""Its name for the system and for PgBouncer, which believes the system."""


def packages() -> list[str]:
    """Debian packages of the pooler, its exporter, and the client that checks them."""
    return ["pgbouncer", "prometheus-pgbouncer-exporter", f"postgresql-client-{cluster.database().version}"]


def entries() -> list[File | Directory]:
    """The files of PgBouncer and its exporter on the present host."""
    settings, own = hosts.settings(GatewaySettings), hosts.settings(HostSettings)
    pools = cluster.pools()
    configuration = template(
        "pgbouncer/pgbouncer.ini.j2",
        cfg=settings,
        listen=LISTEN,
        access=ACCESS,
        logins=LOGINS,
        lookup=cluster.LOOKUP,
        console=EXPORTER_USER,
        pools=pools,
        tls=tls,
    )
    access = template(
        "pgbouncer/access.conf.j2",
        console=EXPORTER_USER,
        logins=cluster.logins(),
        networks=["127.0.0.1/32", *own.service_networks],
    )
    # Every client, every connection to the database, and what the program itself has open.
    open_files = settings.max_clients + sum(pool.total for pool in pools.values()) + 200
    exporter = template(
        "pgbouncer_exporter/default.j2",
        run=RUN,
        pooler_port=settings.port,
        user=EXPORTER_USER,
        address=own.address,
        port=settings.exporter_port,
        web=WEB,
    )
    return [
        Directory("/etc/pgbouncer", "root", USER, "750"),
        File(CONFIG, configuration),
        File(LISTEN, template("pgbouncer/listen.ini.j2", cfg=settings, address=own.address, run=RUN)),
        File(ACCESS, access),
        File(LOGINS, _userlist(cluster.LOOKUP), "root", USER, "640"),
        File(DROP_IN, template("pgbouncer/pgbouncer.service.conf.j2", user=USER, open_files=open_files)),
        File(EXPORTER, exporter),
        File(EXPORTER_DROP_IN, template("pgbouncer_exporter/prometheus-pgbouncer-exporter.service.conf.j2", user=EXPORTER_USER)),
    ]


def runs() -> None:
    """Both run with them. Only another address, or another number of clients, costs a restart."""
    service(
        name="PgBouncer runs with this configuration",
        unit="pgbouncer.service",
        restart_on=[LISTEN, DROP_IN],
        reload_on=[CONFIG, ACCESS, LOGINS, *tls.ALL],
    )
    service(
        name="PgBouncer exporter runs with this configuration",
        unit="prometheus-pgbouncer-exporter.service",
        restart_on=[EXPORTER, EXPORTER_DROP_IN, WEB],
    )


def metrics_url() -> str:
    """Where Prometheus asks PgBouncer's exporter of the present host."""
    return f"https://{hosts.settings(HostSettings).address}:{hosts.settings(GatewaySettings).exporter_port}/metrics"


def lookup() -> str:
    """Shell that asks the writer for a login as PgBouncer does. psql finds the password in its environment, which only its user reads."""
    connection = (
        f"host=127.0.0.1 port={hosts.settings(GatewaySettings).writer_port} dbname=phoenix user={cluster.LOOKUP} "
        f"sslmode=verify-full sslrootcert={tls.CA} connect_timeout=5"
    )
    question = "SELECT count(*) FROM gateway.login('architect')"
    ask = f"PGPASSWORD=$(head -n1 {LOGINS} | cut -d'\"' -f4) psql -XAtqc {shlex.quote(question)} {shlex.quote(connection)}"
    return f"runuser -u {USER} -- sh -c {shlex.quote(ask)} | grep -x 1"


def handshake() -> str:
    """Shell that comes in as a client does, as far as TLS."""
    port = hosts.settings(GatewaySettings).port
    return f"openssl s_client -starttls postgres -connect 127.0.0.1:{port} -CAfile {tls.CA} -verify_return_error -brief </dev/null"


def _userlist(login: str) -> Callable[[], str]:
    """PgBouncer's file of logins: the one that has to log in by itself, and the exporter, which has no password. All others it looks up."""
    password = hosts.secret(f"postgresql/{login}")
    return lambda: f'"{login}" "{password()}"\n"{EXPORTER_USER}" ""\n'
