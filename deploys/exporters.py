"""What Prometheus asks: the standard exporters of host and PostgreSQL, and the platform's own, all HTTPS with client certificates."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy

from deploys import tls
from deploys.lib import hosts, monitoring, programs, verify, wheels
from deploys.lib.operations import Directory, File, files, service, template
from deploys.lib.programs import account as account  # noqa: PLC0414 - other services take it from here
from deploys.lib.settings import ExporterSettings, HostSettings, PostgresqlSettings

PACKAGES = ["prometheus-node-exporter"]
POSTGRESQL_PACKAGES = ["prometheus-postgres-exporter", *programs.PACKAGES]

WEB = "/etc/prometheus/web.yml"
TEXTFILES = "/var/lib/prometheus/node-exporter"
TLS_EXPIRY = "/usr/local/lib/phoenix/phoenix-tls-expiry"
HOME = "/opt/phoenix/exporter"
CONFIG = "/etc/phoenix-exporter/config.yml"


@deploy("Host exporter")
def node() -> None:
    """Prometheus sees the host: resources, units, and until when its certificates are valid."""
    settings = hosts.settings(ExporterSettings)
    own = hosts.settings(HostSettings).address
    default = "/etc/default/prometheus-node-exporter"
    drop_in = "/etc/systemd/system/prometheus-node-exporter.service.d/phoenix.conf"
    tls.readers(name="Exporters may read the host's key", users=["prometheus"])
    files(
        name="Configuration",
        entries=[
            Directory("/etc/prometheus"),
            File(WEB, monitoring.web),
            File(default, template("node_exporter/default.j2", address=own, port=settings.node_port)),
            File(drop_in, template("node_exporter/prometheus-node-exporter.service.conf.j2")),
            Directory(TEXTFILES),
            File(TLS_EXPIRY, template("node_exporter/phoenix-tls-expiry.j2", certificates=[tls.CA, tls.CERTIFICATE]), mode="755"),
            File("/etc/systemd/system/phoenix-tls-expiry.service", template("node_exporter/phoenix-tls-expiry.service.j2")),
            File("/etc/systemd/system/phoenix-tls-expiry.timer", template("node_exporter/phoenix-tls-expiry.timer.j2")),
        ],
    )
    service(name="Host exporter runs with this configuration", unit="prometheus-node-exporter.service", restart_on=[default, drop_in])
    service(
        name="Certificates are looked at",
        unit="phoenix-tls-expiry.timer",
        restart_on=["/etc/systemd/system/phoenix-tls-expiry.timer", tls.CERTIFICATE],
    )
    _answers("Host exporter", settings.node_port, "phoenix_tls_not_after_timestamp_seconds{", "prometheus-node-exporter")


@deploy("PostgreSQL exporter")
def postgres() -> None:
    """Prometheus sees what PostgreSQL says of itself, by the role `monitor`."""
    settings = hosts.settings(ExporterSettings)
    password = "/etc/prometheus/monitor.password"  # noqa: S105 - a path
    default = "/etc/default/prometheus-postgres-exporter"
    drop_in = "/etc/systemd/system/prometheus-postgres-exporter.service.d/phoenix.conf"
    uri = f"127.0.0.1:{hosts.settings(PostgresqlSettings).port}/phoenix?sslmode=verify-full&sslrootcert={tls.CA}"
    files(
        name="Configuration",
        entries=[
            File(password, hosts.secret("postgresql/monitor"), "root", "prometheus", "640"),
            File(
                default,
                template(
                    "postgres_exporter/default.j2",
                    address=hosts.settings(HostSettings).address,
                    port=settings.postgres_port,
                    uri=uri,
                    user="monitor",
                    password_file=password,
                ),
            ),
            File(drop_in, template("postgres_exporter/prometheus-postgres-exporter.service.conf.j2")),
        ],
    )
    service(
        name="PostgreSQL exporter runs with this configuration",
        unit="prometheus-postgres-exporter.service",
        restart_on=[default, drop_in, password],
    )
    _answers("PostgreSQL exporter", settings.postgres_port, "^pg_up 1", "prometheus-postgres-exporter")


@deploy("Phoenix exporter")
def phoenix() -> None:
    """Prometheus sees the platform: `phoenix_*`."""
    settings = hosts.settings(ExporterSettings)
    unit = "/etc/systemd/system/phoenix-exporter.service"
    password = "/etc/phoenix-exporter/monitor.password"  # noqa: S105 - a path
    account(name="User phoenix-exporter", user="phoenix-exporter")
    tls.readers(name="The exporter may read the host's key", users=["phoenix-exporter"])
    program = programs.installed(wheels.EXPORTER, HOME)
    files(
        name="Configuration",
        entries=[
            Directory("/etc/phoenix-exporter"),
            File(password, hosts.secret("postgresql/monitor"), mode="600"),
            File(
                CONFIG,
                template(
                    "exporter/config.yml.j2",
                    address=hosts.settings(HostSettings).address,
                    port=settings.port,
                    database_port=hosts.settings(PostgresqlSettings).port,
                    tls=tls,
                    password_file=password,
                    copy="region2" in host.groups,
                ),
            ),
            File(unit, template("exporter/phoenix-exporter.service.j2", home=HOME, config=CONFIG, password_file=password)),
        ],
    )
    service(
        name="Phoenix exporter runs with this configuration",
        unit="phoenix-exporter.service",
        restart_on=[CONFIG, unit, password, program],
    )
    _answers("Phoenix exporter", settings.port, "^phoenix_up 1", "phoenix-exporter")


def _answers(what: str, port: int, metric: str, unit: str) -> None:
    """Ask the exporter as Prometheus does."""
    address = hosts.settings(HostSettings).address
    verify.answers(
        name=f"{what} answers",
        script=f"{tls.CURL} --max-time 10 https://{address}:{port}/metrics | grep '{metric}'",
        seconds=30,
        problem=f"{what} on {host.name} does not answer at https://{address}:{port}/metrics: look at 'phoenix logs {unit}'.",
    )
