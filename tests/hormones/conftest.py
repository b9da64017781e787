"""A real Redis and a real PostgreSQL with the schema, both thrown away afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import redis

from tests import redis_server
from tests.exporter.cluster import Cluster, free_port, running_cluster
from tests.waiting import wait_until


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """PostgreSQL with the schema and logical decoding."""
    with running_cluster("16") as made:
        with made.admin() as admin:
            admin.execute("ALTER SYSTEM SET wal_level = logical")
        made.stop()
        made.start()
        yield made


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Redis on the loopback, without any of the deploy's settings."""
    port, directory = free_port(), tmp_path_factory.mktemp("redis")
    with redis_server.start("--port", str(port), "--bind", "127.0.0.1", "--save", "", cwd=directory) as process:
        client = redis.Redis(port=port)

        def answers() -> bool:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

        wait_until(answers, 10, "Redis answers")
        yield port
        process.terminate()


@pytest.fixture
def client(redis_port: int) -> Iterator[Any]:
    """An empty Redis."""
    with redis.Redis(port=redis_port, decode_responses=True) as made:
        made.flushall()
        yield made


@pytest.fixture
def database(cluster: Cluster) -> Iterator[psycopg.Connection[Any]]:
    """The superuser, in a database without agents and events."""
    with cluster.admin() as made:
        made.execute("TRUNCATE phoenix.agents, phoenix.tasks, phoenix.outbox CASCADE")
        yield made
