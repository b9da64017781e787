"""Every service of a platform: which host runs it, as which unit, where it answers. For `phoenix status` and `phoenix logs`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from deploys.lib import streams
from deploys.lib.settings import (
    BackupSettings,
    ConnectSettings,
    EtcdSettings,
    ExporterSettings,
    GatewaySettings,
    HostSettings,
    KafkaSettings,
    MonitoringSettings,
    N8nSettings,
    Neo4jSettings,
    Platform,
    PlatformHost,
    PostgresqlSettings,
    RedisSettings,
    StreamSettings,
    WorldSettings,
)

Kind = Literal["http", "said", "tcp", "postgresql", "unit", "tailscale"]


@dataclass(frozen=True)
class Service:
    """One service on one host.

    `kind` says how it is asked whether it is well: `http` GETs `health_path` and wants a 2xx answer, `said` as well and shows what
    the answer says, `tcp` opens a connection, `postgresql` runs a query as the superuser on the host, `unit` believes systemd,
    `tailscale` asks tailscaled for its place in the tailnet. All want the unit to be active.
    What runs by a timer is known by its timer.
    """

    host: str
    name: str
    unit: str
    kind: Kind = "unit"
    address: str = ""
    """Where the service answers, an IP address; empty when it listens nowhere."""
    port: int = 0
    scheme: Literal["", "http", "https"] = ""
    """`https` presents the host's certificate and checks the other side's against the platform's authority."""
    health_path: str = ""
    shown_path: str = ""
    """The part of the URL that a person or Prometheus uses, for example `/metrics`."""

    @property
    def url(self) -> str:
        """Address for people: `https://100.66.0.11:9188/metrics`, `100.66.0.11:5432`, or empty."""
        if not self.port:
            return ""
        return f"{self.scheme}://{self.address}:{self.port}{self.shown_path}" if self.scheme else f"{self.address}:{self.port}"


def services(platform: Platform) -> list[Service]:
    """The services of all hosts, host by host in the inventory's order; on each the base first, the watchers last."""
    headscale, upstreams = bool(platform.group("tailscale")), bool(platform.group("n8n"))
    return [service for host in platform.hosts.values() for service in _of_host(host, headscale=headscale, upstreams=upstreams)]


def _of_host(host: PlatformHost, *, headscale: bool = False, upstreams: bool = False) -> Iterator[Service]:
    name, address = host.name, host[HostSettings].address
    yield Service(name, "ssh", "ssh.service", "tcp", address, 22)
    yield Service(name, "firewall", "phoenix-firewall.service")
    yield Service(name, "clock", "systemd-timesyncd.service")
    yield Service(name, "security-updates", "unattended-upgrades.service")
    if "tailscale" in host.groups:
        yield Service(name, "tailscale", "tailscaled.service", "tailscale", address)
        yield Service(name, "tailnet-metrics", "phoenix-tailnet-metrics.timer")
    if "etcd" in host.groups:
        port = host[EtcdSettings].client_port
        yield Service(name, "etcd", "etcd.service", "http", address, port, "https", "/health")
    if "postgresql" in host.groups:
        database = host[PostgresqlSettings]
        yield Service(name, "patroni", "patroni.service", "http", address, database.patroni_port, "https", "/health")
        yield Service(name, "postgresql", "patroni.service", "postgresql", address, database.port)
        yield Service(name, "watcher", "phoenix-watcher.service")
    if "drill" in host.groups:
        yield Service(name, "drill", "phoenix-drill.timer")
    if "gateway" in host.groups:
        gateway = host[GatewaySettings]
        yield Service(name, "haproxy", "haproxy.service", "http", address, gateway.metrics_port, "https", "/metrics", "/metrics")
        yield Service(name, "pgbouncer", "pgbouncer.service", "tcp", address, gateway.port)
    yield from _followers(host, address)
    if "world" in host.groups:
        yield from _world(host, headscale=headscale, upstreams=upstreams)
        return  # nobody watches the world: in production it is somebody else's
    if "backup" in host.groups:
        yield from _backup(host, address)
    yield from _exporters(host, address)
    if "monitoring" in host.groups:
        monitoring = host[MonitoringSettings]
        for service, unit, port in (
            ("prometheus", "prometheus.service", monitoring.prometheus_port),
            ("alertmanager", "prometheus-alertmanager.service", monitoring.alertmanager_port),
        ):
            yield Service(name, service, unit, "http", address, port, "https", "/-/ready", "/")


def _followers(host: PlatformHost, address: str) -> Iterator[Service]:
    """What follows the database, in the order in which a change passes through."""
    name = host.name
    if "kafka" in host.groups:
        yield from _kafka(host, address)
    if "connect" in host.groups:
        watcher, port = "phoenix-connect-watcher.service", host[ConnectSettings].metrics_port
        yield Service(name, "connect", "phoenix-connect.service")
        yield Service(name, "connect-watcher", watcher, "http", address, port, "https", "/health", "/metrics")
    if "redis" in host.groups:
        yield Service(name, "redis", "redis-server.service", "tcp", address, host[RedisSettings].port)
        yield Service(name, "hormones", "phoenix-hormones.timer")
    if "stream" in host.groups:
        for sink, port in streams.ports(host[StreamSettings]).items():
            yield Service(name, f"stream-{sink}", streams.unit(sink), "http", address, port, "https", "/health/ready", "/metrics")
    if "neo4j" in host.groups:
        yield Service(name, "neo4j", "neo4j.service", "tcp", address, host[Neo4jSettings].port)
        yield Service(name, "graph-metrics", "phoenix-graph-metrics.timer")
        yield Service(name, "graph-parity", "phoenix-graph-parity.timer")
        if "backup" in host.groups:
            yield Service(name, "graph-backup", "phoenix-graph-backup.timer")
    if "n8n" in host.groups:
        port = host[N8nSettings].port
        yield Service(name, "n8n", "phoenix-n8n.service", "http", address, port, "https", "/healthz/readiness", "/")


def _world(host: PlatformHost, *, headscale: bool, upstreams: bool) -> Iterator[Service]:
    name, address = host.name, host[HostSettings].address
    port = host[WorldSettings].alert_receiver_port
    yield Service(name, "alert-receiver", "alert-receiver.service", "tcp", address, port, "http", shown_path="/")
    s3 = host[WorldSettings].s3_port
    yield Service(name, "s3", "phoenix-s3.service", "tcp", address, s3)
    if upstreams:
        port = host[WorldSettings].upstreams_port
        health, state = "/control/health", "/control/state"
        yield Service(name, "upstreams", "phoenix-upstreams.service", "http", address, port, "https", health, state)
    if headscale:
        yield Service(
            name, "headscale", "phoenix-headscale.service", "http", address, host[WorldSettings].headscale_port, "https", "/health"
        )
        yield Service(name, "way-in", "tailscaled.service")


def _kafka(host: PlatformHost, address: str) -> Iterator[Service]:
    settings = host[KafkaSettings]
    unit, port = "phoenix-kafka-exporter.service", settings.metrics_port
    yield Service(host.name, "kafka", "phoenix-kafka.service", "tcp", address, settings.client_port)
    yield Service(host.name, "kafka-exporter", unit, "http", address, port, "https", "/metrics", "/metrics")
    for topic in settings.topics:
        yield Service(host.name, f"kafka/{topic}", unit, "said", address, port, "https", f"/topics/{topic}", f"/topics/{topic}")


def _backup(host: PlatformHost, address: str) -> Iterator[Service]:
    settings = host[BackupSettings]
    if "postgresql" in host.groups and host[PostgresqlSettings].cluster_name == settings.stanza:
        yield Service(host.name, "backup", "phoenix-backup.timer")
        yield Service(host.name, "backup-server", "phoenix-backup-server.service", "tcp", address, settings.tls_port)
    yield Service(host.name, "backup-metrics", "phoenix-backup-metrics.timer")
    if "drill" in host.groups:
        yield Service(host.name, "retention", "phoenix-retention.timer")


def _exporters(host: PlatformHost, address: str) -> Iterator[Service]:
    ports = host[ExporterSettings]
    found = [("node-exporter", "prometheus-node-exporter.service", ports.node_port)]
    if "postgresql" in host.groups:
        found += [
            ("postgres-exporter", "prometheus-postgres-exporter.service", ports.postgres_port),
            ("phoenix-exporter", "phoenix-exporter.service", ports.port),
        ]
    if "gateway" in host.groups:
        found.append(("pgbouncer-exporter", "prometheus-pgbouncer-exporter.service", host[GatewaySettings].exporter_port))
    if "redis" in host.groups:
        found.append(("redis-exporter", "prometheus-redis-exporter.service", host[RedisSettings].exporter_port))
    for name, unit, port in found:
        yield Service(host.name, name, unit, "http", address, port, "https", "/metrics", "/metrics")
