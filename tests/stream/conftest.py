"""A real broker, a real PostgreSQL, a real Redis and a real Neo4j for the tests in this directory, and worker processes between them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.exporter.cluster import Cluster, running_cluster
from tests.stream.kit import Broker, Neo4jServer, RedisServer, Worker, configure, running_broker, running_neo4j, running_redis
from tests.waiting import wait_until


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    with running_broker() as made:
        yield made


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as made:
        with made.admin() as connection:
            connection.execute(psycopg.sql.SQL("ALTER ROLE stream PASSWORD {}").format(made.password))
        yield made


@pytest.fixture(scope="session")
def store() -> Iterator[RedisServer]:
    with running_redis() as made:
        yield made


@pytest.fixture(scope="session")
def neo4j() -> Iterator[Neo4jServer]:
    if shutil.which("java") is None:
        pytest.skip("there is no Java here: apt-get install --no-install-recommends openjdk-21-jre-headless")
    with running_neo4j() as made:
        yield made


@pytest.fixture
def witness(cluster: Cluster) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with cluster.admin() as connection:
        yield connection


@pytest.fixture
def agents(cluster: Cluster) -> Callable[[int], list[str]]:
    """Makes so many agents, whose heartbeats are an hour old; those of before are gone."""

    def make(number: int) -> list[str]:
        with cluster.admin() as connection:
            connection.execute("TRUNCATE phoenix.agents, phoenix.tasks, phoenix.consciousness_timeline CASCADE")
            rows = connection.execute(
                "INSERT INTO phoenix.agents (codename, team, role, consciousness_vector, last_heartbeat) "
                "SELECT 'agent-' || n, 'iota', 'scout', '{}', now() - interval '1 hour' FROM generate_series(1, %s) n RETURNING id::text",
                [number],
            )
            return [str(row[0]) for row in rows]

    return make


@pytest.fixture
def postgres(broker: Broker, cluster: Cluster, tmp_path: Path) -> Iterator[Worker]:
    """A worker for PostgreSQL, running."""
    worker = configure("postgres", tmp_path, broker, {"members": [f"127.0.0.1:{cluster.port}"], "sslmode": "disable"}, cluster.password)
    yield from _running(worker)


@pytest.fixture
def hormones(broker: Broker, store: RedisServer, tmp_path: Path) -> Iterator[Worker]:
    """A worker for Redis, running."""
    store.client().flushall()
    worker = configure("redis", tmp_path, broker, {"host": "127.0.0.1", "port": store.port, "user": "default"}, store.password)
    yield from _running(worker)


@pytest.fixture
def graph(broker: Broker, neo4j: Neo4jServer, tmp_path: Path) -> Iterator[Worker]:
    """A worker for Neo4j, whose graph is empty, running."""
    with neo4j.client() as driver:
        driver.execute_query("MATCH (n) DETACH DELETE n")
    worker = configure(
        "neo4j", tmp_path, broker, {"uri": neo4j.uri, "user": "neo4j", "ca": neo4j.ca}, neo4j.password, linger_ms=5, most_s=2
    )
    yield from _running(worker)


def _running(worker: Worker) -> Iterator[Worker]:
    worker.start()
    try:
        wait_until(lambda: worker.total("phoenix_stream_partitions") > 0, 60, f"the worker has partitions\n{worker.said()}")
        yield worker
    finally:
        if worker.process and worker.process.poll() is None:
            worker.kill()
