"""Settings: what the inventory says, typed and checked before the first host is touched.

Every setting is one variable with its service's prefix (`postgresql_version`), in `inventory/group_data/<group>.py` with the comment that
explains it, or overridden for a group or a host in the inventory itself (pyinfra's precedence: host, then group, then `all`).
A model below declares the type, unit and range of each. Deploys call `of(host)`; the command line calls `load(inventory)`.
"""

from __future__ import annotations

import ast
import difflib
import ipaddress
import re
import runpy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

if TYPE_CHECKING:  # importing pyinfra takes half a second, which the command line need not wait for
    from pyinfra.api import Host

ROOT = Path(__file__).resolve().parents[2]
GROUP_DATA = ROOT / "inventory" / "group_data"

S = TypeVar("S", bound="ServiceSettings")

# Data that pyinfra's own connector reads; Phoenix passes it on.
CONNECTOR_PREFIXES = ("ssh_", "_")


class SettingsError(Exception):
    """One or more settings are wrong; the text is a line for each: file, key, reason, next step."""


def _address(value: str) -> str:
    return str(ipaddress.IPv4Address(value))  # PostgreSQL listens on IPv4 only, and pg_hba.conf says /32


def _network(value: str) -> str:
    return str(ipaddress.ip_network(value))


Address = Annotated[str, AfterValidator(_address)]
Network = Annotated[str, AfterValidator(_network)]
Port = Annotated[int, Field(ge=1, le=65535)]
ClusterName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]


SqlName = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$")]


class Model(BaseModel):
    """Base of all settings: unknown keys are refused, values are not coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ServiceSettings(Model):
    """Settings that share a prefix in the inventory: field `version` of prefix `postgresql` is `postgresql_version` there."""

    prefix: ClassVar[str]


class AptSource(Model):
    """A vendor's Debian repository. A mirror replaces `uris`; the key stays the vendor's."""

    uris: list[str] = Field(min_length=1)
    suites: list[str] = Field(min_length=1)
    components: list[str] = Field(min_length=1)
    key_url: str
    """Where the host fetches the signing key."""
    key_fingerprint: str = Field(pattern=r"^[0-9A-F]{40}$")
    """40 hexadecimal digits; a key that does not match is refused."""


class HostSettings(ServiceSettings):
    """What every host has."""

    prefix = "host"

    address: Address
    """The address at which the other hosts reach this one (tailnet or private network)."""
    memory_mb: int | None = Field(default=None, ge=1024)
    """RAM to size services for, in MB; None takes what the host has."""
    ssh_networks: list[Network] = Field(min_length=1)
    """Networks that may reach SSH."""
    service_networks: list[Network] = Field(min_length=1)
    """Networks that may reach the services: the tailnet, or a private network."""
    operator: str = Field(pattern=r"^[a-z_][a-z0-9_-]*$")
    operator_keys: list[str] = Field(min_length=1)
    """Public SSH keys of the people who operate the platform."""
    timezone: str = Field(pattern=r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$")
    own_clock: bool
    """Whether the host keeps a clock of its own, and its synchronisation is watched; a container has its computer's."""
    journal_max_mb: int = Field(ge=50)
    min_free_mb: int = Field(ge=100)
    """A deploy is refused when a host has less free disk than this."""
    apt_sources: dict[Annotated[str, Field(pattern=r"^[a-z0-9-]+$")], AptSource] = Field(default_factory=dict)
    secrets_file: str
    """The secret store of this inventory; relative paths are relative to the checkout."""


class EtcdSettings(ServiceSettings):
    """The store in which Patroni keeps who leads."""

    prefix = "etcd"

    cluster_name: ClusterName
    client_port: Port
    peer_port: Port
    lost: list[str] = Field(default_factory=list)
    """Members that are gone for good and may be done without when a cluster begins anew; `phoenix rebuild` says so, nobody else."""


class PostgresqlSettings(ServiceSettings):
    """PostgreSQL and Patroni, which runs it."""

    prefix = "postgresql"

    version: Literal[16, 17, 18]
    packages: list[str] = Field(min_length=1)
    """Debian packages, `{version}` stands for the major version."""
    extensions: list[str] = Field(min_length=1)
    timescaledb_license: Literal["timescale", "apache"]
    """`apache` where only the Apache edition of TimescaleDB is packaged (Debian); it lacks compression and continuous aggregates."""
    port: Port
    max_connections: int = Field(ge=20, le=10_000)
    memory_share: float = Field(gt=0.1, le=0.9)
    """Share of the host's RAM that is PostgreSQL's; the rest is for the host's other services."""
    wal_keep_gb: float = Field(ge=0.5)
    """Disk that WAL may take: max_wal_size, and the bound for replication slots."""
    cluster_name: ClusterName
    patroni_port: Port
    failover_ttl_s: int = Field(ge=20)
    loop_wait_s: int = Field(ge=1)
    retry_timeout_s: int = Field(ge=3)
    parameters: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Further postgresql.conf parameters; they win over the sized ones."""

    @model_validator(mode="after")
    def _leader_has_time(self) -> Self:
        # Patroni lowers loop_wait and retry_timeout by itself, and silently, where they break this rule.
        if self.loop_wait_s + 2 * self.retry_timeout_s > self.failover_ttl_s:
            raise ValueError("loop_wait_s + 2 * retry_timeout_s must not exceed failover_ttl_s: raise that, or lower these")
        return self


class Region2Settings(ServiceSettings):
    """The second region: a cluster of its own that holds a copy of some of the platform's tables."""

    prefix = "region2"

    source: ClusterName
    """`postgresql_cluster_name` of the cluster that is copied."""
    tables: dict[SqlName, list[SqlName]] = Field(min_length=1)
    """Tables of schema phoenix that are copied, with their columns; none named are all, also those that come later."""


class GatewaySettings(ServiceSettings):
    """HAProxy and PgBouncer: one address for the writer and the readers of a cluster."""

    prefix = "gateway"

    cluster_name: ClusterName
    """The `postgresql_cluster_name` of the members that are served."""
    port: Port
    writer_port: Port
    readers_port: Port
    metrics_port: Port
    exporter_port: Port
    max_clients: int = Field(ge=100, le=50_000)
    """Client connections that one gateway takes."""
    hold_s: int = Field(ge=1, le=60)
    """How long a new connection to the database waits for a server."""
    query_wait_s: int = Field(ge=2, le=120)
    """How long a client waits for a connection to the database."""
    reader_max_lag_mb: int = Field(ge=1)

    @model_validator(mode="after")
    def _client_outlasts_hold(self) -> Self:
        if self.query_wait_s <= self.hold_s:
            raise ValueError("query_wait_s must be greater than hold_s, or clients give up while their connection still waits: raise it")
        return self


class RedisSettings(ServiceSettings):
    """Redis, which holds the hormone levels of the agents for those who ask all the time."""

    prefix = "redis"

    cluster_name: ClusterName
    """`postgresql_cluster_name` of the cluster whose agents' levels it holds."""
    port: Port
    exporter_port: Port
    memory_share: float = Field(gt=0.005, le=0.5)
    """Share of the host's RAM that its data may take."""
    max_clients: int = Field(ge=50, le=50_000)
    """Connections that it takes."""
    parity_every_s: int = Field(ge=10, le=3600)
    """How often everything is compared with PostgreSQL."""
    parity_settle_s: int = Field(ge=0, le=60)
    """How long a level may be different before a comparison counts it."""


class StreamSettings(ServiceSettings):
    """Stream workers: events from Kafka into the stores."""

    prefix = "stream"

    cluster_name: ClusterName
    """`postgresql_cluster_name` of the cluster that is written to."""
    sinks: list[Literal["postgres", "redis", "neo4j"]] = Field(min_length=1)
    """The stores that get a worker."""
    metrics_port: Annotated[int, Field(ge=1, le=65533)]
    """The first of three ports, one for each sink: PostgreSQL, Redis, Neo4j."""
    session_timeout_ms: int = Field(ge=6000, le=300_000)
    """How long the brokers wait for a silent worker before its partitions may be another's."""
    batch_events: int = Field(ge=1, le=500)
    """Events that are written at once, at most."""
    linger_ms: dict[Literal["postgres", "redis", "neo4j"], Annotated[int, Field(ge=0, le=1000)]] = Field(min_length=3)
    """How long the first event of a batch waits for more, by sink."""


class Neo4jSettings(ServiceSettings):
    """Neo4j, which holds the knowledge graph."""

    prefix = "neo4j"

    cluster_name: ClusterName
    """`postgresql_cluster_name` of the cluster that the graph is made from."""
    port: Port
    memory_share: float = Field(gt=0.005, le=0.8)
    """Share of the host's RAM for heap and page cache together."""
    parity_every_s: int = Field(ge=30, le=86_400)
    """How often everything is compared with PostgreSQL."""
    parity_settle_s: int = Field(ge=0, le=300)
    """How long something may be different before a comparison counts it."""
    backup_calendar: str = Field(pattern=r"^[A-Za-z0-9*:.,/ ~+_-]+$")
    """When a dump is taken, as systemd's OnCalendar."""


class ExporterSettings(ServiceSettings):
    """Ports of what Prometheus asks: the platform's own exporter, the host's and PostgreSQL's."""

    prefix = "exporter"

    port: Port
    node_port: Port
    postgres_port: Port


class EmailReceiver(Model):
    """Alerts by mail; `smarthost` is `host:port` of the server that takes it."""

    to: list[str] = Field(min_length=1)
    sender: str
    smarthost: str = Field(pattern=r"^[^:]+:\d+$")
    username: str | None = None
    password_secret: str | None = None
    """Name of the SMTP password in the secret store."""


class WebhookReceiver(Model):
    """Alerts as JSON, sent to a URL."""

    url: str = Field(pattern=r"^https?://")


class Receiver(Model):
    """Who is told of alerts of the given severities: exactly one of `email` and `webhook`."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    severities: list[Literal["critical", "warning", "info", "watchdog"]] = Field(min_length=1)
    email: EmailReceiver | None = None
    webhook: WebhookReceiver | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.email is None) == (self.webhook is None):
            raise ValueError("give exactly one of email and webhook")
        return self


class MonitoringSettings(ServiceSettings):
    """Prometheus and Alertmanager."""

    prefix = "monitoring"

    prometheus_port: Port
    alertmanager_port: Port
    scrape_interval_s: int = Field(ge=1, le=120)
    retention_days: int = Field(ge=1)
    receivers: list[Receiver] = Field(min_length=1)
    runbook_url: str = Field(pattern=r"^https?://.*/$")
    """Where docs/runbooks is readable; alerts link to it. Ends with a slash."""
    rules: dict[str, float | bool] = Field(default_factory=dict)
    """Thresholds of the alert rules, over the defaults in templates/prometheus."""


class DrillSettings(ServiceSettings):
    """The restore drill: on a schedule the newest backup is restored, compared with the live leader and thrown away."""

    prefix = "drill"

    cluster_name: ClusterName
    """Cluster (and stanza of the repository) that is drilled."""
    calendar: str = Field(pattern=r"^[A-Za-z0-9*:.,/ ~+_-]+$")
    """When, as systemd's OnCalendar."""
    directory: str = Field(pattern=r"^/[a-z0-9_/.-]{1,60}$")
    """Where the scratch cluster and the receipts are. Short: the path of a socket may have 107 characters."""
    memory_mb: int = Field(ge=256)
    """Memory that the drill may take; the scratch cluster is sized by it."""
    jobs: int = Field(ge=0)
    """Processes for restore and checks; 0 takes the host's cores."""
    heapallindexed: bool
    """Whether amcheck also looks for every row in every index."""
    min_free_mb: int = Field(ge=100)
    """What has to stay free on the disk while a drill runs; one that would take more is refused."""
    witness_timeout_s: int = Field(ge=10)
    """How long the leader may take to count and hash a table, and to give a snapshot."""
    archive_timeout_s: int = Field(ge=60)
    """How long a commit may take to reach the repository; after that the drill has failed."""
    recovery_timeout_s: int = Field(ge=60)
    """How long the scratch cluster may take to replay WAL."""
    timeout_s: int = Field(ge=300)
    """How long the whole drill may take."""
    keep_receipts: int = Field(ge=1)
    """Receipts that are kept."""


class BackupSettings(ServiceSettings):
    """The archive and the backups: pgBackRest, in an S3 bucket that belongs to somebody else."""

    prefix = "backup"

    stanza: ClusterName
    """The cluster that is archived and backed up, by its postgresql_cluster_name. A host of another cluster in the group only reads."""
    s3_endpoint: str = Field(pattern=r"^[A-Za-z0-9.-]+(:\d+)?$")
    """Where the S3 service answers over https, `host` or `host:port`."""
    s3_bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    s3_region: str = Field(min_length=1)
    s3_uri_style: Literal["host", "path"]
    """Whether the bucket is part of the host name or of the path."""
    s3_ca_file: str | None = Field(default=None, pattern=r"^/")
    """Authorities that the S3 service's certificate may be of, a file on the host; None takes the system's."""
    path: str = Field(pattern=r"^/[A-Za-z0-9._/-]*$")
    """Where in the bucket the repository lies."""
    archive_timeout_s: int = Field(ge=5, le=300)
    """A segment of WAL that is not full is archived after this many seconds: with the time to send it, the RPO of the archive alone."""
    queue_max_gb: float = Field(ge=0.25)
    """WAL that may wait on a host's disk for an S3 service that is away. Beyond that it is given up, and the next backup starts anew."""
    diff_every_h: int = Field(ge=1, le=168)
    """Hours after which the hourly backup is a differential one: everything since the last full backup."""
    full_every_d: int = Field(ge=1, le=90)
    """Days after which the hourly backup is a full one."""
    retention_d: int = Field(ge=1)
    """Days back to any second of which the database can be restored."""
    retention_diffs: int = Field(ge=1)
    """How many differential backups are kept, with the incremental ones on them; they only make restores quicker."""
    tls_port: Port
    """Where a member lets the others read its files for a backup from the standby."""

    @model_validator(mode="after")
    def _full_backups_overlap(self) -> Self:
        if self.full_every_d > self.retention_d:
            raise ValueError("full_every_d must not exceed retention_d: take full backups more often, or keep them longer")
        return self


class N8nSettings(ServiceSettings):
    """n8n and its workflows: enrichment, publications, the CRM."""

    prefix = "n8n"

    port: Port
    owner_email: str = Field(pattern=r"^[^@\s]+@[^@\s]+$")
    executions_keep_h: int = Field(ge=1)
    hubspot_url: str = Field(pattern=r"^https://[^/]+$")
    """Base of the CRM's API, without a slash at the end."""
    hubspot_new_per_run: int = Field(ge=0)
    hubspot_verify_per_run: int = Field(ge=0)
    hubspot_max_vanished: float = Field(gt=0, le=1)
    enrichment_url: str = Field(pattern=r"^https://[^/]+$")
    """Base of the enrichment API, without a slash at the end."""
    enrichment_header: str = Field(pattern=r"^[A-Za-z0-9-]+$")
    enrichment_source: str = Field(min_length=1)
    enrichment_per_run: int = Field(ge=0)
    enrichment_per_day: int = Field(ge=0)
    enrichment_refresh_d: int = Field(ge=1)
    feeds: dict[Annotated[str, Field(pattern=r"^[a-z0-9.-]+$")], Annotated[str, Field(pattern=r"^https://")]]
    """Address of each feed by the name under which its publications are kept."""


class ConnectSettings(ServiceSettings):
    """Kafka Connect, whose connector carries the outbox to Kafka."""

    prefix = "connect"

    cluster_name: ClusterName
    """The `postgresql_cluster_name` of the cluster whose outbox is read."""
    rest_port: Port
    """Of Connect's REST interface, on the loopback address."""
    jmx_port: Port
    """Of the JVM's metrics, on the loopback address."""
    metrics_port: Port
    outbox_keep_days: int = Field(ge=1, le=365)
    """Days for which a row stays in the outbox."""
    poll_interval_ms: int = Field(ge=1, le=60_000)
    linger_ms: int = Field(ge=0, le=10_000)
    queue_size: int = Field(ge=16)
    """Events that the connector may hold in memory."""
    batch_size: int = Field(ge=1)
    """Events that it takes in one go."""

    @model_validator(mode="after")
    def _batch_fits(self) -> Self:
        if self.batch_size >= self.queue_size:
            raise ValueError("batch_size must be less than queue_size: lower it")
        return self


class TopicSettings(Model):
    """A topic of Kafka."""

    partitions: int = Field(ge=1, le=1000)
    retention_h: int = Field(ge=1, le=24 * 3650)
    """Hours after which an event is deleted."""


class KafkaSettings(ServiceSettings):
    """Kafka: broker and controller in one process on every host of the group."""

    prefix = "kafka"

    client_port: Port
    controller_port: Port
    metrics_port: Port
    node_id: int | None = Field(default=None, ge=1, le=2**31 - 1)
    """The node's number in the cluster, for ever; None takes the one that the host's name ends with, or one made of the name."""
    heap_mb: int = Field(ge=0)
    """Heap of the JVM, in MB; 0 takes a share of the host's RAM."""
    topics: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9.-]{1,99}$")], TopicSettings] = Field(min_length=1)
    """The topics that there are, by name. What Connect makes for itself (`connect-*`) is Connect's."""
    session_timeout_ms: int = Field(ge=1000)
    heartbeat_interval_ms: int = Field(ge=100)

    @model_validator(mode="after")
    def _heartbeats_fit(self) -> Self:
        if self.heartbeat_interval_ms * 3 > self.session_timeout_ms:
            raise ValueError("session_timeout_ms must be three times heartbeat_interval_ms, or a lost heartbeat fences a broker: raise it")
        return self


class TailscaleSettings(ServiceSettings):
    """The private network between the hosts."""

    prefix = "tailscale"

    package: str | None
    """Debian package; None builds the programs from source on the computer that deploys."""
    login_server: str = Field(pattern=r"^https://[A-Za-z0-9.-]+(:\d+)?$")
    """Where the control server answers."""
    ca_file: str | None = Field(default=None, pattern=r"^/")
    """Authorities that the control server's certificate may be of, a file on the host; None takes the system's."""
    port: Port
    """UDP."""
    clients: list[str]
    """Who may reach the gateways and the other services for clients, as sources of the tailnet's policy."""
    operators: list[str]
    """Who may reach every port of every host."""


class WorldSettings(ServiceSettings):
    """The lab's machine that plays what belongs to somebody else."""

    prefix = "world"

    alert_receiver_port: Port
    s3_port: Port
    s3_bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    s3_region: str = Field(min_length=1)
    s3_lock_days: int = Field(ge=1)
    """Days for which nobody may remove an object's version."""
    upstreams_port: Port = 9443
    """Where the world plays the enrichment API, the feeds and the CRM."""
    headscale_port: Port = 8443
    headscale_stun_port: Port = 3478
    """UDP."""
    operator_address: Address | None = None
    """From where an operator comes into the tailnet by way of the world; None lets nobody in."""


SERVICES: dict[str, type[ServiceSettings]] = {
    model.prefix: model
    for model in (
        HostSettings,
        EtcdSettings,
        PostgresqlSettings,
        Region2Settings,
        GatewaySettings,
        RedisSettings,
        StreamSettings,
        Neo4jSettings,
        ExporterSettings,
        MonitoringSettings,
        BackupSettings,
        DrillSettings,
        N8nSettings,
        ConnectSettings,
        KafkaSettings,
        TailscaleSettings,
        WorldSettings,
    )
}
"""Every prefix there is. A group of the same name (`etcd`, `postgresql`, `backup`, `world`, ...) says which hosts run it."""


@dataclass(frozen=True)
class PlatformHost:
    """One host of an inventory with its checked settings."""

    name: str
    groups: frozenset[str]
    data: Mapping[str, Any]
    settings: Mapping[str, ServiceSettings]

    def __getitem__(self, model: type[S]) -> S:
        settings = self.settings[model.prefix]
        assert isinstance(settings, model)  # noqa: S101 - for the type checker; SERVICES maps prefix to model
        return settings


@dataclass(frozen=True)
class Platform:
    """A whole inventory, checked."""

    inventory: Path
    hosts: Mapping[str, PlatformHost]

    def group(self, name: str) -> list[PlatformHost]:
        """Hosts of a group, in the inventory's order."""
        return [host for host in self.hosts.values() if name in host.groups]

    @property
    def secrets_file(self) -> Path:
        """The inventory's secret store."""
        first = next(iter(self.hosts.values()))
        return ROOT / first[HostSettings].secrets_file


def of(host: Host, model: type[S]) -> S:
    """The checked settings of `model`'s service for pyinfra's `host`. Raises SettingsError."""
    return _check_host(
        host.name,
        dict(host.data.dict()),  # type: ignore[no-untyped-call]
        [model],
        source=host.name,
    )[model.prefix]  # type: ignore[return-value]


def load(inventory: Path) -> Platform:
    """Read and check a whole inventory file. Raises SettingsError naming every fault at once."""
    groups, group_data, host_data = _read_inventory(inventory)
    for path in sorted(GROUP_DATA.glob("*.py")):
        group_data[path.stem] = group_data.get(path.stem, {}) | _variables(path)
    hosts: dict[str, PlatformHost] = {}
    faults: list[str] = []
    for name in host_data:
        # In the inventory's order: of two groups that set the same key, pyinfra takes the later one.
        members = [group for group, names in groups.items() if name in names and group != "all"]
        members += [inventory.stem] if inventory.stem not in groups else []
        merged: dict[str, Any] = dict(group_data.get("all", {}))
        for group in members:
            merged |= group_data.get(group, {})
        merged |= host_data[name]
        needed = [
            model for prefix, model in SERVICES.items() if model is HostSettings or any(key.startswith(f"{prefix}_") for key in merged)
        ]
        try:
            checked = _check_host(name, merged, needed, source=str(inventory))
        except SettingsError as error:
            faults.append(str(error))
            continue
        hosts[name] = PlatformHost(name, frozenset(members), merged, checked)
    if groups.get("postgresql") and not groups.get("etcd"):
        faults.append(f"{shown(inventory)}: group postgresql has hosts and group etcd has none, where Patroni keeps who leads: add one.")
    if groups.get("backup") and not groups.get("drill"):
        faults.append(f"{shown(inventory)}: group backup has hosts and group drill has none, where old backups are expired: add one.")
    faults += _second_region(hosts, shown(inventory))
    if faults:
        raise SettingsError("\n".join(dict.fromkeys("\n".join(faults).splitlines())))
    return Platform(inventory, hosts)


def _second_region(hosts: Mapping[str, PlatformHost], where: str) -> list[str]:
    """What is wrong with the group `region2`: a copy is a cluster of its own, of a cluster that there is."""
    clusters = {name: host[PostgresqlSettings].cluster_name for name, host in hosts.items() if "postgresql" in host.groups}
    faults = []
    for name, host in hosts.items():
        if "region2" not in host.groups:
            continue
        source = host[Region2Settings].source
        if name not in clusters:
            faults.append(f"{where}: host {name} is in group region2 and not in postgresql, where its copy would live: add it there.")
        elif clusters[name] == source:
            faults.append(
                f"{where}: host {name}: region2_source is {source}, the host's own cluster: "
                "give the host another postgresql_cluster_name, such as region2."
            )
        elif source not in clusters.values():
            faults.append(f"{where}: host {name}: region2_source is {source}, and no host of group postgresql has that cluster_name.")
    return faults


def _variables(path: Path) -> dict[str, Any]:
    try:
        content = runpy.run_path(str(path))
    except Exception as error:
        raise SettingsError(f"{shown(path)} cannot be read ({type(error).__name__}: {error}): mend the file.") from None
    imported = _imported_names(path)
    return {key: value for key, value in content.items() if not key.startswith("_") and key not in imported}


def _imported_names(path: Path) -> set[str]:
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    return {(alias.asname or alias.name).split(".")[0] for node in imports for alias in node.names}


def _read_inventory(path: Path) -> tuple[dict[str, list[str]], dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Groups (name to host names), each group's and each host's data, with pyinfra's meaning of an inventory file."""
    if not path.is_file():
        known = ", ".join(sorted(shown(file) for file in (ROOT / "inventory").glob("*.py")))
        raise SettingsError(f"{shown(path)} does not exist: choose an inventory with -i (there are: {known}).")
    groups: dict[str, list[str]] = {}
    group_data: dict[str, dict[str, Any]] = {}
    hosts: dict[str, dict[str, Any]] = {}
    for group, value in _variables(path).items():
        members, shared = value if isinstance(value, tuple) else (value, {})
        if not isinstance(members, list):
            continue
        groups[group], group_data[group] = [], shared
        for member in members:
            name, data = member if isinstance(member, tuple) else (member, {})
            groups[group].append(name)
            hosts.setdefault(name, {}).update(data)
    if not hosts:
        raise SettingsError(f'{shown(path)} names no host: add one to a list such as postgresql = [("vps1", {{...}})].')
    return groups, group_data, hosts


def _check_host(name: str, data: dict[str, Any], models: list[type[ServiceSettings]], *, source: str) -> dict[str, ServiceSettings]:
    faults: list[str] = []
    checked: dict[str, ServiceSettings] = {}
    for model in models:
        start = f"{model.prefix}_"
        values = {key.removeprefix(start): value for key, value in data.items() if key.startswith(start)}
        try:
            checked[model.prefix] = model.model_validate(values)
        except ValidationError as error:
            faults += [_fault(name, model, fault, source) for fault in error.errors()]
    if len(models) > 1:  # the whole host: nothing may be left over
        known = tuple(f"{prefix}_" for prefix in SERVICES) + CONNECTOR_PREFIXES
        faults += [
            f"{_origin(key, source)}: host {name}: {key} belongs to no service: known prefixes are {', '.join(SERVICES)}."
            for key in data
            if not key.startswith(known)
        ]
    if faults:
        raise SettingsError("\n".join(faults))
    return checked


def _fault(host: str, model: type[ServiceSettings], fault: Any, source: str) -> str:
    """One sentence for one pydantic error: file, host, key, reason, next step."""
    field, *rest = [str(part) for part in fault["loc"]] or [""]
    key = f"{model.prefix}_{field}" if field else model.prefix
    path = ".".join([key, *rest])
    where = f"{_origin(key, source)}: host {host}: "
    if fault["type"] == "extra_forbidden" and not rest:
        near = difflib.get_close_matches(field, model.model_fields, n=1)
        hint = f"did you mean {model.prefix}_{near[0]}?" if near else f"remove it; {model.prefix} has {', '.join(model.model_fields)}."
        return f"{where}{path} is not a setting: {hint}"
    if fault["type"] == "missing":
        return f"{where}{path} is missing: set it in {shown(GROUP_DATA)}/ or for the host in {shown(Path(source))}."
    reason = str(fault["msg"]).removeprefix("Value error, ")
    if not field:  # of several settings together: the reason names them
        origins = [_origin(f"{model.prefix}_{name}", source) for name in model.model_fields if name in reason] or [source]
        own = shown(Path(source))  # what is set for a host or its group is more likely the mistake
        return f"{own if own in origins else origins[0]}: host {host}: {model.prefix} is refused: {reason}."
    return f"{where}{path} is {fault['input']!r}, refused: {reason[:1].lower()}{reason[1:]}."


def _origin(key: str, source: str) -> str:
    """The file that sets `key`: the group_data file that assigns it, else the inventory."""
    inventory = Path(source)
    if inventory.is_file() and re.search(rf"\b{re.escape(key)}\b", inventory.read_text(encoding="utf-8")):
        return shown(inventory)
    for path in sorted(GROUP_DATA.glob("*.py")):
        if any(line.startswith(f"{key} ") or line.startswith(f"{key}:") for line in path.read_text(encoding="utf-8").splitlines()):
            return shown(path)
    return shown(inventory)


def shown(path: Path) -> str:
    """`path` as a person would write it: relative when it is in the checkout."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
