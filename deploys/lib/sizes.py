"""What each service of a platform host takes of its memory, by the sizing rules: whether all of them fit, before anybody finds out.

A service takes what its rule gives it (heap, buffers, data) and what its program needs beside that. The second is measured
(docs/sizes.md, bench/memory.py) and rounded up. Ceilings of units (MemoryMax) are higher: they end what has gone wrong, and not all
services go wrong at once.
"""

from __future__ import annotations

from collections.abc import Mapping

BESIDE_MB: Mapping[str, int] = {
    "system": 250,  # systemd, journald, sshd, the kernel's own
    "etcd": 150,
    "patroni": 120,  # with the watcher
    "haproxy": 60,
    "pgbouncer": 40,
    "tailscale": 80,
    "exporters": 220,  # node, postgres, phoenix, pgbouncer, redis, kafka
    "redis": 64,
    "kafka": 200,
    "connect": 190,  # with its watcher
    "neo4j": 300,
    "n8n": 260,
    "stream": 100,  # each worker
}
"""MB of each service beside what its rule gives it."""

RESERVE = 0.05
"""Share of the RAM that is promised to nobody: the page cache of everything that is no database, and what was forgotten."""


def plan(
    *,
    memory_mb: int,
    postgresql_share: float,
    redis_mb: int,
    kafka_heap_mb: int,
    connect_heap_mb: int,
    neo4j_mb: int,
    n8n_mb: int,
    workers: int,
) -> dict[str, int]:
    """MB that each service of a host that runs all of them takes, by its name; `reserve` among them.

    `redis_mb` is maxmemory, `neo4j_mb` heap and page cache together, `n8n_mb` both heaps, `workers` how many stream workers there are.
    """
    given = {
        "postgresql": int(memory_mb * postgresql_share),
        "redis": redis_mb,
        "kafka": kafka_heap_mb,
        "connect": connect_heap_mb,
        "neo4j": neo4j_mb,
        "n8n": n8n_mb,
        "stream": (workers - 1) * BESIDE_MB["stream"],
    }
    names = [*given, *(name for name in BESIDE_MB if name not in given)]
    return {name: given.get(name, 0) + BESIDE_MB.get(name, 0) for name in names} | {"reserve": int(memory_mb * RESERVE)}
