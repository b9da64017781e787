"""Prometheus and Alertmanager: scrape every host of the inventory, judge by the rules, tell the receivers of the settings."""

from __future__ import annotations

from collections import Counter

from pyinfra import host, inventory
from pyinfra.api import deploy

from deploys import tls
from deploys.exporters import WEB
from deploys.lib import hosts, monitoring, streams, verify
from deploys.lib.monitoring import Expected, Target
from deploys.lib.operations import Directory, File, files, nothing_else, service, template
from deploys.lib.settings import (
    ConnectSettings,
    EtcdSettings,
    ExporterSettings,
    GatewaySettings,
    HostSettings,
    KafkaSettings,
    MonitoringSettings,
    N8nSettings,
    PostgresqlSettings,
    RedisSettings,
    Region2Settings,
    StreamSettings,
    of,
)
from deploys.neo4j import graph
from deploys.postgresql import archive

PACKAGES = ["prometheus", "prometheus-alertmanager"]
RULES = "/etc/prometheus/rules"
PROMETHEUS, ALERTMANAGER = "/etc/prometheus/prometheus.yml", "/etc/prometheus/alertmanager.yml"
HTTP_CLIENT, AMTOOL = "/etc/prometheus/http-client.yml", "/etc/amtool/config.yml"


def targets() -> list[Target]:
    """Everything there is to scrape, host by host. The lab's `world` is somebody else's and is not watched."""
    found: list[Target] = []
    for member in sorted(inventory, key=lambda one: str(one.name)):
        groups, name = set(member.groups), str(member.name)
        if "world" in groups:
            continue
        address, exporter = hosts.address(member), of(member, ExporterSettings)
        jobs = {"node": exporter.node_port}
        if "etcd" in groups:
            jobs["etcd"] = of(member, EtcdSettings).client_port
        if "postgresql" in groups:
            jobs |= {"patroni": of(member, PostgresqlSettings).patroni_port, "postgres": exporter.postgres_port, "phoenix": exporter.port}
        if "gateway" in groups:
            gateway = of(member, GatewaySettings)
            jobs |= {"haproxy": gateway.metrics_port, "pgbouncer": gateway.exporter_port}
        if "n8n" in groups:
            jobs["n8n"] = of(member, N8nSettings).port
        if "connect" in groups:
            jobs["connect"] = of(member, ConnectSettings).metrics_port
        if "redis" in groups:
            jobs["redis"] = of(member, RedisSettings).exporter_port
        if "kafka" in groups:
            jobs["kafka"] = of(member, KafkaSettings).metrics_port
        if "monitoring" in groups:
            settings = of(member, MonitoringSettings)
            jobs |= {"prometheus": settings.prometheus_port, "alertmanager": settings.alertmanager_port}
        found += [Target(job, name, address, port) for job, port in jobs.items()]
        if "stream" in groups:
            found += [Target("stream", name, address, port) for port in streams.ports(of(member, StreamSettings)).values()]
    return found


def expected() -> list[Expected]:
    """What there has to be beyond answering exporters, so that its absence is an alert."""
    scraped = targets()
    names = sorted({target.host for target in scraped})
    database = hosts.members("postgresql")
    extra = [Expected(name, "tls") for name in names] + [Expected(str(member.name), "postgresql") for member in database]
    extra += [
        Expected(str(member.name), "clock") for member in inventory if of(member, HostSettings).own_clock and str(member.name) in names
    ]
    clusters = Counter(of(member, PostgresqlSettings).cluster_name for member in database)
    extra += [Expected(str(member.name), "replication") for member in database if clusters[of(member, PostgresqlSettings).cluster_name] > 1]
    extra += [Expected(str(member.name), "archive") for member in archive.members()]
    read = {of(member, ConnectSettings).cluster_name for member in hosts.members("connect")}
    extra += [Expected(str(member.name), "outbox") for member in database if of(member, PostgresqlSettings).cluster_name in read]
    copies = {of(member, Region2Settings).source for member in hosts.members("region2")}
    for member in database:
        name, cluster = str(member.name), of(member, PostgresqlSettings).cluster_name
        extra.append(Expected(name, "region2" if "region2" in member.groups else "platform"))
        if cluster in copies and clusters[cluster] > 1:
            extra.append(Expected(name, "failover_slot"))
    for member in hosts.members("neo4j"):
        extra += [Expected(str(member.name), "neo4j")] + [Expected(str(member.name), "graph_backup")] * graph.backs_up(member)
    extra += [Expected(str(member.name), "drill") for member in hosts.members("drill")]
    extra += [Expected(str(member.name), "tailscale") for member in hosts.members("tailscale")]
    return monitoring.expected_of(scraped, extra)


def password_secrets(settings: MonitoringSettings) -> dict[str, str]:
    """Name of each receiver's SMTP password in the secret store, by the receiver's name."""
    return {one.name: one.email.password_secret for one in settings.receivers if one.email and one.email.password_secret}


def require_secrets() -> None:
    """Raise SecretError, before anything changes, when a receiver's password is not in the store."""
    for name in password_secrets(hosts.settings(MonitoringSettings)).values():
        hosts.secrets().get(name)


@deploy("Prometheus and Alertmanager")
def prometheus() -> None:
    """Both run with the rules and receivers of the settings, and every target answers."""
    settings = hosts.settings(MonitoringSettings)
    own = hosts.settings(HostSettings).address
    url = f"https://{own}:{settings.prometheus_port}"
    alertmanager_url = f"https://{own}:{settings.alertmanager_port}"
    scraped = targets()
    alertmanagers = [target for target in scraped if target.job == "alertmanager"]
    rule_files = monitoring.rules(expected=expected(), runbook_url=settings.runbook_url, overrides=settings.rules)
    passwords = password_secrets(settings)
    password_files = {name: f"/etc/prometheus/smtp-{name}.password" for name in passwords}
    defaults = {unit: f"/etc/default/{unit}" for unit in PACKAGES}
    drop_ins = {unit: f"/etc/systemd/system/{unit}.service.d/phoenix.conf" for unit in PACKAGES}

    files(
        name="Configuration",
        entries=[
            Directory(RULES),
            *[File(f"{RULES}/{name}", text) for name, text in rule_files.items()],
            File(
                PROMETHEUS,
                monitoring.prometheus(targets=scraped, alertmanagers=alertmanagers, scrape_interval_s=settings.scrape_interval_s),
            ),
            *[File(password_files[name], hosts.secret(secret), "root", "prometheus", "640") for name, secret in passwords.items()],
            File(
                ALERTMANAGER,
                monitoring.alertmanager(receivers=settings.receivers, password_files=password_files),
                "root",
                "prometheus",
                "640",
            ),
            File(HTTP_CLIENT, monitoring.http_client),
            Directory("/etc/amtool"),
            File(AMTOOL, monitoring.amtool(url=alertmanager_url, http_client_file=HTTP_CLIENT)),
            File("/usr/local/bin/phoenix-query", template("prometheus/phoenix-query.j2", url=url), mode="755"),
            File(
                defaults["prometheus"],
                template(
                    "prometheus/prometheus.default.j2",
                    address=own,
                    port=settings.prometheus_port,
                    retention_days=settings.retention_days,
                    external_url=f"{url}/",
                ),
            ),
            File(
                defaults["prometheus-alertmanager"],
                template(
                    "alertmanager/alertmanager.default.j2",
                    address=own,
                    port=settings.alertmanager_port,
                    external_url=f"{alertmanager_url}/",
                ),
            ),
            *[File(path, template("prometheus/service.conf.j2")) for path in drop_ins.values()],
        ],
    )
    nothing_else(name="No rules but these", directory=RULES, names=list(rule_files))
    service(
        name="Alertmanager runs with this configuration",
        unit="prometheus-alertmanager.service",
        restart_on=[defaults["prometheus-alertmanager"], drop_ins["prometheus-alertmanager"], WEB],
        reload_on=[ALERTMANAGER, *password_files.values()],
    )
    service(
        name="Prometheus runs with this configuration",
        unit="prometheus.service",
        restart_on=[defaults["prometheus"], drop_ins["prometheus"], WEB],
        reload_on=[PROMETHEUS, RULES, *[f"{RULES}/{name}" for name in rule_files]],
    )
    client = f"{tls.CURL} --max-time 10"
    verify.answers(
        name="Alertmanager answers",
        script=f"{client} {alertmanager_url}/-/ready",
        seconds=30,
        problem=f"Alertmanager on {host.name} does not answer at {alertmanager_url}: look at 'phoenix logs alertmanager'.",
    )
    verify.answers(
        name="Prometheus reaches every target",
        script=f"{client} {url}/api/v1/targets?state=active | python3 -c '{_EVERY_TARGET}' {len(scraped)}",
        seconds=60,
        problem=f"Prometheus on {host.name} does not reach all of its {len(scraped)} targets: ask it with phoenix-query 'up == 0'.",
    )


_EVERY_TARGET = (
    "import json, sys; "
    'up = [one for one in json.load(sys.stdin)["data"]["activeTargets"] if one["health"] == "up"]; '
    "sys.exit(len(up) != int(sys.argv[1]))"
)
