"""A real Redis and a real PostgreSQL with the schema, both thrown away afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from tests.exporter.cluster import Cluster, free_port, running_cluster, wait_until


def redis_program() -> tuple[str, str]:
    """redis-server and its LD_LIBRARY_PATH: this computer's, or Debian's packages, unpacked into the cache and not installed."""
    if found := shutil.which("redis-server"):
        return found, ""
    unpacked = Path(os.environ.get("PHOENIX_CACHE", "/var/cache/phoenix")) / "redis-tools"
    if not unpacked.exists():
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        script = (
            "apt-get -q update >/dev/null; needed=$(apt-cache depends redis-tools | sed -n 's/^ *Depends: \\([a-z0-9.+-]*\\)$/\\1/p' "
            "| grep -vx libc6); apt-get -q download redis-tools $needed >/dev/null && for deb in *.deb; do dpkg -x $deb .; done"
        )
        with tempfile.TemporaryDirectory(dir=unpacked.parent) as work:
            done = subprocess.run(["sh", "-ec", script], cwd=work, capture_output=True, text=True, timeout=300, check=False)
            assert done.returncode == 0, f"Redis is neither here nor to be had from Debian: {done.stderr}"
            shutil.copytree(work, unpacked, symlinks=True)
    libraries = sorted({str(path.parent) for path in unpacked.rglob("*.so*")})
    return str(unpacked / "usr/bin/redis-check-rdb"), ":".join(libraries)


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
    program, libraries = redis_program()
    port = free_port()
    # The name decides what the program is.
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path_factory.mktemp("redis"))]
    env = {**os.environ, "LD_LIBRARY_PATH": libraries}
    with subprocess.Popen(command, executable=program, env=env, stdout=subprocess.DEVNULL) as process:
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
