"""PgBouncer: the address that clients use. Thousands of them share the few connections that PostgreSQL can serve well."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from pyinfra import host
from pyinfra.api import deploy

from deploys import tls
from deploys.exporters import WEB, account
from deploys.gateway import cluster
from deploys.lib import hosts, verify
from deploys.lib.operations import Directory, File, files, service, template
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


@deploy("PgBouncer")
def pgbouncer() -> None:
    """Clients find the writer as database `phoenix` and the readers as `phoenix_ro`, over TLS, with the passwords of the database."""
    settings = hosts.settings(GatewaySettings)
    pools = cluster.pools()
    account(name="User pgbouncer", user=USER)
    tls.readers(name="PgBouncer may read the host's key", users=[USER])
    files(
        name="Configuration",
        entries=[
            Directory("/etc/pgbouncer", "root", USER, "750"),
            File(
                CONFIG,
                template(
                    "pgbouncer/pgbouncer.ini.j2",
                    cfg=settings,
                    listen=LISTEN,
                    access=ACCESS,
                    logins=LOGINS,
                    lookup=cluster.LOOKUP,
                    console=EXPORTER_USER,
                    pools=pools,
                    tls=tls,
                ),
            ),
            File(LISTEN, template("pgbouncer/listen.ini.j2", cfg=settings, address=hosts.settings(HostSettings).address, run=RUN)),
            File(
                ACCESS,
                template(
                    "pgbouncer/access.conf.j2",
                    console=EXPORTER_USER,
                    logins=cluster.logins(),
                    networks=["127.0.0.1/32", *hosts.settings(HostSettings).service_networks],
                ),
            ),
            File(LOGINS, _userlist(cluster.LOOKUP), "root", USER, "640"),
            File(
                DROP_IN,
                template(
                    "pgbouncer/pgbouncer.service.conf.j2",
                    user=USER,
                    # Every client, every connection to the database, and what the program itself has open.
                    open_files=settings.max_clients + sum(pool.total for pool in pools.values()) + 200,
                ),
            ),
        ],
    )
    service(
        name="PgBouncer runs with this configuration",
        unit="pgbouncer.service",
        restart_on=[LISTEN, DROP_IN],
        reload_on=[CONFIG, ACCESS, LOGINS, *tls.ALL],
    )
    verify.answers(
        name="PgBouncer can look up a login at the writer",
        script=_lookup(settings),
        seconds=30,
        problem=f"PgBouncer on {host.name} cannot look up logins: see 'phoenix logs haproxy', and 'phoenix drift'.",
    )
    verify.answers(
        name="PgBouncer answers over TLS",
        script=f"openssl s_client -starttls postgres -connect 127.0.0.1:{settings.port} "
        f"-CAfile {tls.CA} -verify_return_error -brief </dev/null",
        seconds=30,
        problem=f"PgBouncer on {host.name} does not answer on port {settings.port} over TLS: look at 'phoenix logs pgbouncer'.",
    )


@deploy("PgBouncer exporter")
def exporter() -> None:
    """Prometheus sees who waits for what in PgBouncer."""
    settings = hosts.settings(GatewaySettings)
    own = hosts.settings(HostSettings).address
    files(
        name="Configuration",
        entries=[
            File(
                EXPORTER,
                template(
                    "pgbouncer_exporter/default.j2",
                    run=RUN,
                    pooler_port=settings.port,
                    user=EXPORTER_USER,
                    address=own,
                    port=settings.exporter_port,
                    web=WEB,
                ),
            ),
            File(EXPORTER_DROP_IN, template("pgbouncer_exporter/prometheus-pgbouncer-exporter.service.conf.j2", user=EXPORTER_USER)),
        ],
    )
    service(
        name="PgBouncer exporter runs with this configuration",
        unit="prometheus-pgbouncer-exporter.service",
        restart_on=[EXPORTER, EXPORTER_DROP_IN, WEB],
    )
    url = f"https://{own}:{settings.exporter_port}/metrics"
    verify.answers(
        name="PgBouncer exporter answers",
        script=f"{tls.CURL} --max-time 10 {url} | grep '^pgbouncer_up 1'",
        seconds=30,
        problem=f"PgBouncer exporter on {host.name} does not answer at {url}: look at 'phoenix logs pgbouncer-exporter'.",
    )


def _userlist(login: str) -> Callable[[], str]:
    """PgBouncer's file of logins: the one that has to log in by itself, and the exporter, which has no password. All others it looks up."""
    password = hosts.secret(f"postgresql/{login}")
    return lambda: f'"{login}" "{password()}"\n"{EXPORTER_USER}" ""\n'


def _lookup(settings: GatewaySettings) -> str:
    """Shell that asks for a login the way PgBouncer does. psql finds the password in its environment, which only its own user reads."""
    connection = (
        f"host=127.0.0.1 port={settings.writer_port} dbname=phoenix user={cluster.LOOKUP} sslmode=verify-full sslrootcert={tls.CA} "
        "connect_timeout=5"
    )
    question = "SELECT count(*) FROM gateway.login('architect')"
    ask = f"PGPASSWORD=$(cut -d'\"' -f4 {LOGINS}) psql -XAtqc {shlex.quote(question)} {shlex.quote(connection)}"
    return f"runuser -u {USER} -- sh -c {shlex.quote(ask)} | grep -x 1"
