"""Stream workers: from Kafka into PostgreSQL, Redis and Neo4j, one process for each store."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy

from deploys import tls
from deploys.lib import hosts, programs, streams, verify, wheels
from deploys.lib.operations import Directory, File, files, service, template
from deploys.lib.settings import (
    HostSettings,
    KafkaSettings,
    Neo4jSettings,
    PostgresqlSettings,
    RedisSettings,
    SettingsError,
    StreamSettings,
    of,
)

PACKAGES = programs.PACKAGES
HOME = "/opt/phoenix/stream"
CONFIGURATION = "/etc/phoenix-stream"
UNIT = "/etc/systemd/system/phoenix-stream@.service"
KAFKA_PASSWORD = f"{CONFIGURATION}/kafka.password"
SECRETS = {"postgres": "postgresql/stream", "redis": "redis/worker", "neo4j": "neo4j/neo4j"}
"""The password with which each sink comes to its store."""


def preflight() -> None:
    """Raise SettingsError when a worker would have nothing to read from or nothing to write to."""
    if not hosts.members("kafka"):
        raise SettingsError(f"host {host.name}: is in group stream, and group kafka has no hosts: add one.")
    for sink in hosts.settings(StreamSettings).sinks:
        if not hosts.members(streams.STORES[sink]):
            raise SettingsError(f"host {host.name}: stream_sinks has {sink}, and group {streams.STORES[sink]} has no hosts: leave it out.")
    if not _members():
        wanted = hosts.settings(StreamSettings).cluster_name
        raise SettingsError(
            f"host {host.name}: stream_cluster_name is {wanted}, and no host of group postgresql is in a cluster of that name: name theirs."
        )


@deploy("Stream workers")
def stream() -> None:
    """Every store has its worker: it has its partitions, and its store takes what it brings."""
    settings, own = hosts.settings(StreamSettings), hosts.settings(HostSettings).address
    ports = streams.ports(settings)
    program = programs.installed(wheels.STREAM, HOME)
    files(
        name="Configuration",
        entries=[
            Directory(CONFIGURATION),
            File(KAFKA_PASSWORD, hosts.secret("kafka/worker"), mode="600"),
            File(UNIT, template("stream/phoenix-stream@.service.j2", home=HOME, configuration=CONFIGURATION)),
            *[
                entry
                for sink, port in ports.items()
                for entry in (
                    File(f"{CONFIGURATION}/{sink}.password", hosts.secret(SECRETS[sink]), mode="600"),
                    File(
                        f"{CONFIGURATION}/{sink}.yml",
                        template(
                            "stream/sink.yml.j2",
                            sink=sink,
                            cfg=settings,
                            addresses=[own, "127.0.0.1"],
                            port=port,
                            instance=str(host.name),
                            brokers=[
                                f"{of(one, HostSettings).address}:{of(one, KafkaSettings).client_port}" for one in hosts.members("kafka")
                            ],
                            store=_store(sink),
                            tls=tls,
                        ),
                    ),
                )
            ],
        ],
    )
    for sink, port in ports.items():
        service(
            name=f"Worker for {sink} runs with this configuration",
            unit=streams.unit(sink),
            restart_on=[UNIT, f"{CONFIGURATION}/{sink}.yml", f"{CONFIGURATION}/{sink}.password", KAFKA_PASSWORD, tls.CA, program],
        )
        verify.answers(
            name=f"Worker for {sink} has its partitions and its store",
            script=f"{tls.CURL} --max-time 10 https://{own}:{port}/health/ready",
            seconds=60,
            problem=f"the worker for {sink} on {host.name} is not ready (https://{own}:{port}/health/ready): look at "
            f"'phoenix logs stream-{sink}'; docs/stream.md says what it waits for.",
        )


def _members() -> list[str]:
    """The cluster's members as host:port; the workers find whoever takes writes."""
    wanted = hosts.settings(StreamSettings).cluster_name
    found = [of(one, PostgresqlSettings) for one in hosts.members("postgresql")]
    return [
        f"{of(one, HostSettings).address}:{database.port}"
        for one, database in zip(hosts.members("postgresql"), found, strict=True)
        if database.cluster_name == wanted
    ]


def _store(sink: str) -> dict[str, object]:
    """The sink's own settings: where its store is, and as whom it comes."""
    password = {"password": f"{sink}.password"}
    if sink == "postgres":
        return {"members": _members(), "user": "stream", "sslrootcert": tls.CA, **password}
    if sink == "redis":
        first = hosts.members("redis")[0]
        return {"host": of(first, HostSettings).address, "port": of(first, RedisSettings).port, "user": "worker", "ca": tls.CA, **password}
    graph = hosts.members("neo4j")[0]
    return {"uri": f"bolt://{of(graph, HostSettings).address}:{of(graph, Neo4jSettings).port}", "user": "neo4j", "ca": tls.CA, **password}
