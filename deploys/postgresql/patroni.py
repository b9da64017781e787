"""Patroni runs PostgreSQL: it makes the cluster, starts, configures and, once there are several hosts, fails it over."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from pyinfra import context, host
from pyinfra.api import Host, deploy, operation

from deploys import base, tls
from deploys.lib import facts, findings, hosts, outbox, region2, sizing, verify
from deploys.lib.operations import Commands, Directory, File, files, refusal, service, template
from deploys.lib.settings import ROOT, ConnectSettings, EtcdSettings, HostSettings, PostgresqlSettings, Region2Settings, of
from deploys.postgresql import archive
from deploys.postgresql.psql import PSQL

CONFIG = "/etc/patroni/config.yml"
DROP_IN = "/etc/systemd/system/patroni.service.d/phoenix.conf"
ROLE_CHANGED = "/usr/local/lib/phoenix/role_changed.py"
CREATE_CLUSTER = "/etc/postgresql-common/createcluster.d/phoenix.conf"
UNREAD = "unread"
PROBE = "gateway_probe"
"""A login that does not exist. Gateways begin one with it, without TLS, to see whether the server lets people in; nobody can end it."""

# Parameters that have to be the same on all members: Patroni takes them from its store only.
SHARED = (
    "max_connections",
    "max_locks_per_transaction",
    "max_worker_processes",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_replication_slots",
    "wal_level",
    "wal_log_hints",
    "track_commit_timestamp",
)


INITDB = ("data-checksums", "encoding=UTF8", "locale=C.UTF-8", "auth-local=peer", "auth-host=scram-sha-256")
"""Long options of initdb for a new cluster."""


def peers() -> list[Host]:
    """Members of the present host's cluster, itself among them: the hosts of the group `postgresql` that have the same cluster name."""
    name = hosts.settings(PostgresqlSettings).cluster_name
    return [member for member in hosts.members("postgresql") if of(member, PostgresqlSettings).cluster_name == name]


def copies() -> list[Host]:
    """Hosts of the second region whose cluster copies the present host's."""
    own = hosts.settings(PostgresqlSettings).cluster_name
    return [copy for copy in hosts.members(region2.NAME) if of(copy, Region2Settings).source == own]


def connectors() -> list[Host]:
    """Hosts whose Kafka Connect reads the outbox of the present host's cluster."""
    own = hosts.settings(PostgresqlSettings).cluster_name
    return [one for one in hosts.members("connect") if of(one, ConnectSettings).cluster_name == own]


def data_directory(settings: PostgresqlSettings) -> str:
    """Where the server's data is."""
    return f"/var/lib/postgresql/{settings.version}/{settings.cluster_name}"


def packages() -> list[str]:
    """Debian packages of the server and of Patroni."""
    settings = hosts.settings(PostgresqlSettings)
    return [name.format(version=settings.version) for name in settings.packages] + ["patroni", "python3-etcd", "python3-psycopg2"]


@deploy("Host is fit for a deploy: its data")
def preflight() -> None:
    """Refuse, before anything changes, settings that would leave the host's data behind and begin an empty cluster beside it."""
    same_cluster(name="Data of this version and name, or none")


@operation()
def same_cluster() -> Commands:
    """What data there is belongs to the version and the cluster name of the settings."""
    settings = hosts.settings(PostgresqlSettings)
    found = host.get_fact(facts.Output, script="ls -d /var/lib/postgresql/*/*/PG_VERSION 2>/dev/null || true").split()
    wanted = f"{data_directory(settings)}/PG_VERSION"
    if found and wanted not in found:
        problem = (
            f"{host.name} has data in {', '.join(str(Path(path).parent) for path in found)}, and the settings ask for PostgreSQL "
            f"{settings.version} with cluster name {settings.cluster_name}: put postgresql_version and postgresql_cluster_name back."
        )
        findings.report(problem)
        yield refusal(problem)


@deploy("No cluster of the package's own")
def prepare() -> None:
    """Keep the server package from making a cluster at installation: it would lack checksums and Patroni would not know it."""
    files(
        name="No automatic cluster",
        entries=[Directory("/etc/postgresql-common"), File(CREATE_CLUSTER, template("postgresql/createcluster.conf.j2"))],
    )


@deploy("PostgreSQL under Patroni")
def patroni() -> None:
    """The cluster exists, runs with this configuration, and one member leads. Restarts only what PostgreSQL says must be restarted."""
    settings = hosts.settings(PostgresqlSettings)
    tls.readers(name="PostgreSQL may read the host's key", users=["postgres"])
    files(
        name="Configuration",
        entries=[
            Directory("/etc/patroni", "postgres", "postgres", "700"),
            File(CONFIG, template("postgresql/patroni.yml.j2", **_values(settings)), "postgres", "postgres", "600"),
            File(DROP_IN, template("postgresql/patroni.service.conf.j2", archive=archive.archives())),
            Directory("/usr/local/lib/phoenix"),
            File(ROLE_CHANGED, (ROOT / "services" / "role_changed.py").read_text(encoding="utf-8"), mode="755"),
        ],
    )
    # Whoever comes first makes a new cluster and leads it: the first of the inventory.
    if host.name == peers()[0].name:
        service(name="Patroni runs", unit="patroni.service", restart_on=[DROP_IN], reload_on=[CONFIG, *tls.ALL])
        verify.answers(
            name="Patroni has begun",
            script=f"{tls.CURL.replace('-sSf', '-sS')} --max-time 5 {_url(settings)}/patroni | grep '\"state\": ' | "
            "grep -vE 'uninitialized|stopped'",
            seconds=60,
            problem=f"Patroni on {host.name} does not begin its work: look at 'phoenix logs patroni'.",
        )
    else:
        service(name="Patroni runs beside it", unit="patroni.service", restart_on=[DROP_IN], reload_on=[CONFIG, *tls.ALL])
    verify.answers(
        name="A leader is elected",
        script=f'{tls.CURL} --max-time 5 {_url(settings)}/cluster | grep \'"role": *"leader", *"state": *"running"\'',
        seconds=120,
        problem=f"PostgreSQL on {host.name} does not come up under Patroni: look at 'phoenix logs patroni'.",
    )
    # One member after the other: Patroni answers 409 to two who change it at once, and the second finds nothing left to do.
    shared_configuration(name="Configuration shared by the members", _serial=True)
    restart_when_pending(name="Restart if parameters wait for one")
    verify.answers(
        name="PostgreSQL answers over TLS",
        script=f"runuser -u postgres -- psql -XAtqc 'SELECT 1' && openssl s_client -starttls postgres -connect 127.0.0.1:{settings.port} "
        f"-CAfile {tls.CA} -verify_return_error -brief </dev/null",
        seconds=30,
        problem=f"PostgreSQL on {host.name} does not answer on port {settings.port} over TLS: look at 'phoenix logs patroni'.",
        # A new member copies the whole database first, at the pace of network and disk.
        at_work=f"{tls.CURL.replace('-sSf', '-sS')} --max-time 5 {_url(settings)}/patroni | "
        'grep -E \'"state": "(creating replica|starting)"\'',
    )


def size() -> sizing.PostgresqlSize:
    """Sizes for the present host."""
    settings = hosts.settings(PostgresqlSettings)
    return sizing.postgresql(
        memory_mb=base.memory_mb(),
        cores=hosts.resources().cores,
        memory_share=settings.memory_share,
        max_connections=settings.max_connections,
        wal_keep_gb=settings.wal_keep_gb,
    )


def parameters() -> dict[str, Any]:
    """All of postgresql.conf that Phoenix sets, for the present host."""
    settings = hosts.settings(PostgresqlSettings)
    newer: dict[str, Any] = {}
    if settings.version >= 17:
        # A subscriber, or Kafka Connect, gets a change when every member that may lead next has it: after a failover it is never ahead.
        others = [peer for peer in peers() if peer.name != host.name] if copies() or connectors() else []
        waited_for = [region2.member_slot(str(peer.name)) for peer in others]
        newer = {"sync_replication_slots": True, "synchronized_standby_slots": ", ".join(waited_for)}
    return {
        **size().parameters(),
        **newer,
        "max_connections": settings.max_connections,
        "reserved_connections": 3,  # for the exporters: what is full has to be seen
        "max_locks_per_transaction": 256,  # hypertables and partitions take a lock for each chunk
        "max_prepared_transactions": 0,
        "max_wal_senders": 12,
        "max_replication_slots": 12,
        "wal_level": "logical",
        "wal_log_hints": True,
        "track_commit_timestamp": False,
        "huge_pages": "try",
        "wal_compression": "lz4",
        "checkpoint_timeout": "15min",
        "max_slot_wal_keep_size": f"{int(settings.wal_keep_gb * 1024)}MB",
        "hot_standby_feedback": True,
        # How old what a standby says it still reads may be; until then no old version of a row makes room (docs/decisions/0644).
        "wal_receiver_status_interval": "1s",
        # Commits wait for a standby that is cut off until its connection counts as dead; PostgreSQL's own 60 s are an outage of 63.
        "wal_sender_timeout": "10s",
        "wal_receiver_timeout": "10s",
        "random_page_cost": 1.1,
        "effective_io_concurrency": 200,
        "default_toast_compression": "lz4",
        **archive.parameters(),
        "jit": False,  # most statements here are shorter than compiling them
        "autovacuum_vacuum_scale_factor": 0.05,
        "autovacuum_analyze_scale_factor": 0.02,
        "autovacuum_vacuum_cost_limit": 1000,
        "idle_in_transaction_session_timeout": "5min",
        "statement_timeout": 0,
        "lock_timeout": 0,
        "authentication_timeout": "15s",  # who has not shown a password yet holds a connection as well
        "tcp_keepalives_idle": 60,
        "tcp_keepalives_interval": 10,
        "tcp_keepalives_count": 3,
        "ssl": True,
        "ssl_ca_file": tls.CA,
        "ssl_cert_file": tls.CERTIFICATE,
        "ssl_key_file": tls.KEY,
        "ssl_min_protocol_version": "TLSv1.2",
        "password_encryption": "scram-sha-256",
        "log_destination": "stderr",
        "logging_collector": False,  # the journal keeps the log
        "log_line_prefix": "%q%u@%d/%a ",
        "log_checkpoints": True,
        "log_connections": True,
        "log_disconnections": True,
        "log_lock_waits": True,
        "log_temp_files": "32MB",
        "log_min_duration_statement": "1s",
        "log_autovacuum_min_duration": "10s",
        # Values that clients send stay out of the log: some of them are personal.
        "log_parameter_max_length": 0,
        "log_parameter_max_length_on_error": 0,
        "shared_preload_libraries": "timescaledb,pg_cron,pgaudit,pg_stat_statements",
        "timescaledb.license": settings.timescaledb_license,
        "timescaledb.telemetry_level": "off",
        "cron.database_name": "phoenix",
        # pg_cron cannot log in under scram; with workers of its own it need not.
        "cron.use_background_workers": True,
        "cron.timezone": "UTC",
        # While pgaudit logs anything, COPY into a hypertable ends the server with a segmentation fault, whoever runs it (TimescaleDB
        # issue 7667, open in 2026): PostgreSQL's own log has the statements that change roles and definitions instead.
        "pgaudit.log": "none",
        "log_statement": "ddl",
        "pgaudit.log_parameter": False,
        "pg_stat_statements.max": 5000,
        "pg_stat_statements.track": "top",
        "pg_stat_statements.track_utility": False,
        "track_io_timing": True,
        "track_functions": "pl",
        **settings.parameters,
    }


def dynamic_configuration() -> dict[str, Any]:
    """What Patroni keeps in its store for all members."""
    settings = hosts.settings(PostgresqlSettings)
    return {
        "ttl": settings.failover_ttl_s,
        "loop_wait": settings.loop_wait_s,
        "retry_timeout": settings.retry_timeout_s,
        "maximum_lag_on_failover": 1_048_576,
        "primary_start_timeout": 0,
        "primary_stop_timeout": 5,
        # A leader whose store is gone leads on as long as it reaches every other member: none of them can have been promoted.
        "failsafe_mode": True,
        "synchronous_mode": len(peers()) > 1,
        # Slots of subscribers are made and dropped by their subscriptions; Patroni would remove what it did not make.
        "ignore_slots": [{"type": "logical", "plugin": "pgoutput"}],
        **_permanent_slots(),
        "postgresql": {
            "use_pg_rewind": True,
            "use_slots": True,
            "parameters": {key: value for key, value in parameters().items() if key in SHARED},
        },
    }


def _permanent_slots() -> dict[str, Any]:
    versions = [of(member, PostgresqlSettings).version for member in [host, *copies()]]
    names = [region2.NAME] * bool(copies()) + [outbox.SLOT] * bool(connectors())
    slots = region2.permanent_slots(min(versions), "phoenix", names)
    return {"slots": slots} if slots else {}


@operation()
def shared_configuration() -> Commands:
    """Patroni's store holds `dynamic_configuration`; keys that Phoenix does not set stay as they are."""
    url = f"{_url(hosts.settings(PostgresqlSettings))}/config"
    present = host.get_fact(facts.Json, script=f"{tls.CURL} --max-time 5 {url}")
    wanted = dynamic_configuration()
    if present is None or not _contains(present, wanted):
        differing = _differences(present or {}, wanted)
        findings.report(f"Patroni's shared configuration differs: {', '.join(differing)}")
        yield f"{_curl()} -X PATCH {url} --data-binary {shlex.quote(json.dumps(wanted))}"


@operation()
def restart_when_pending() -> Commands:
    """PostgreSQL is restarted, here and now, when parameters wait for it, and only then."""
    settings = hosts.settings(PostgresqlSettings)
    waiting = host.get_fact(facts.Output, script=_pending(seconds=30 if context.state.is_executing else 0)).strip()
    if waiting == UNREAD:
        yield refusal(f"Patroni on {host.name} does not take over its configuration: look at 'phoenix logs patroni'.")
    elif waiting:
        findings.report(f"PostgreSQL waits for a restart to take over {waiting}")
        yield f"{_curl()} -X POST {_url(settings)}/restart --data-binary '{{}}' --max-time 120"


def _pending(*, seconds: int) -> str:
    """Shell that prints the parameters that wait for a restart.

    Patroni hands a new configuration on to PostgreSQL in one of its next loops only. Until then, for up to `seconds`, nothing would seem
    to wait; after that `UNREAD` is printed. A standby takes a lower shared value only after it has replayed the leader's: of those only
    the leader is asked.
    """
    shared = ", ".join(f"('{name}', '{value}')" for name, value in parameters().items() if name in SHARED)
    query = (
        f"SELECT CASE WHEN pg_conf_load_time() < to_timestamp(${{t:-0}}) OR EXISTS (SELECT FROM (VALUES {shared}) w (name, value) "
        f"WHERE (name = 'wal_level' OR NOT pg_is_in_recovery()) "
        f"AND NOT EXISTS (SELECT FROM pg_file_settings f WHERE f.name = w.name AND f.setting = w.value)) THEN '{UNREAD}' "
        "ELSE (SELECT string_agg(name, ', ') FROM pg_settings WHERE pending_restart) END"
    )
    return (
        f"t=$(LC_ALL=C stat -c %.Y {facts.reload_stamp('patroni.service')} 2>/dev/null); "
        f'end=$(($(date +%s) + {seconds})); while w=$({PSQL} -Atqc "{query}" 2>/dev/null); test "$w" = {UNREAD}; do '
        'test $(date +%s) -lt $end || break; sleep 0.5; done; echo "$w"'
    )


def _contains(present: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(present, dict) and all(key in present and _contains(present[key], value) for key, value in wanted.items())
    return bool(present == wanted)


def _differences(present: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    return [key for key, value in wanted.items() if not _contains(present.get(key), value)]


def _url(settings: PostgresqlSettings) -> str:
    return f"https://{hosts.settings(HostSettings).address}:{settings.patroni_port}"


def _curl() -> str:
    return f"{tls.CURL} -o /dev/null --max-time 30 -H 'Content-Type: application/json'"


def _values(settings: PostgresqlSettings) -> dict[str, Any]:
    own = hosts.settings(HostSettings)
    etcd_port = hosts.settings(EtcdSettings).client_port if "etcd" in host.groups else 2379
    return {
        "cfg": settings,
        "name": str(host.name),
        "address": own.address,
        "data": data_directory(settings),
        "networks": own.service_networks,
        "etcd": [f"{hosts.address(member)}:{etcd_port}" for member in hosts.members("etcd")],
        "tls": tls,
        "subscribers": [hosts.address(copy) for copy in copies()],
        "connectors": [hosts.address(one) for one in connectors()],
        "role_changed": ROLE_CHANGED,
        "members": [hosts.address(member) for member in peers()],
        "probe": PROBE,
        "gateways": [hosts.address(gateway) for gateway in hosts.members("gateway")],
        "dynamic": dynamic_configuration,
        "local": lambda: {key: value for key, value in parameters().items() if key not in SHARED},
        "initdb": INITDB,
        "archive": archive if archive.archives() else None,
        "replicator_password": hosts.secret("postgresql/replicator"),
        "rewind_password": hosts.secret("postgresql/rewind"),
    }
