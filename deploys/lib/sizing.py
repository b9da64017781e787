"""Sizes of PostgreSQL from a host's RAM and cores, and of the pools in front of it; applied by the deploys, tested with tables of machines.

Sources: PostgreSQL documentation, chapters 19.4 (resources), 19.5 (WAL) and 24.1 (vacuum); timescaledb-tune for worker counts.
"""

from __future__ import annotations

from dataclasses import dataclass

GB_MB = 1024

# Slots for parallel workers and, beside them, TimescaleDB (launcher, scheduler, jobs), pg_cron (launcher, jobs) and logical replication.
# The same on every machine: a standby refuses a primary that has more, and a slot costs a kilobyte.
WORKER_SLOTS = 64


@dataclass(frozen=True)
class PostgresqlSize:
    """Parameters that follow from the machine. Memory in MB."""

    shared_buffers_mb: int
    effective_cache_size_mb: int
    work_mem_mb: int
    maintenance_work_mem_mb: int
    autovacuum_work_mem_mb: int
    wal_buffers_mb: int
    min_wal_size_mb: int
    max_wal_size_mb: int
    max_worker_processes: int
    max_parallel_workers: int
    max_parallel_workers_per_gather: int
    max_parallel_maintenance_workers: int
    autovacuum_max_workers: int

    def parameters(self) -> dict[str, str | int]:
        """As postgresql.conf names and units."""
        return {key.removesuffix("_mb"): f"{value}MB" if key.endswith("_mb") else value for key, value in vars(self).items()}


def postgresql(*, memory_mb: int, cores: int, memory_share: float, max_connections: int, wal_keep_gb: float) -> PostgresqlSize:
    """Sizes for a server that may use `memory_share` of `memory_mb`.

    A quarter of the budget is shared buffers, three quarters are what the planner may expect to find cached. Of what is left after the
    buffers, half is for sorts: an active query uses about two nodes of work_mem, and one connection in ten is active at a time. An
    eighth is for one maintenance command, a thirty-second for each autovacuum worker.
    """
    budget = int(memory_mb * memory_share)
    shared_buffers = max(128, budget // 4)
    sorting = (budget - shared_buffers) // 2
    parallel = min(max(2, cores), WORKER_SLOTS - 16)
    max_wal = int(wal_keep_gb * GB_MB / 2)
    return PostgresqlSize(
        shared_buffers_mb=shared_buffers,
        effective_cache_size_mb=max(256, budget * 3 // 4),
        work_mem_mb=min(256, max(4, sorting // (2 * max(1, max_connections // 10)))),
        maintenance_work_mem_mb=min(2 * GB_MB, max(64, budget // 8)),
        autovacuum_work_mem_mb=min(512, max(32, budget // 32)),
        wal_buffers_mb=16,
        min_wal_size_mb=max(80, max_wal // 4),
        max_wal_size_mb=max(160, max_wal),
        max_worker_processes=WORKER_SLOTS,
        max_parallel_workers=parallel,
        max_parallel_workers_per_gather=min(4, max(1, cores // 2)),
        max_parallel_maintenance_workers=min(4, max(1, cores // 2)),
        autovacuum_max_workers=min(6, max(3, cores // 2)),
    )


def connect_heap_mb(memory_mb: int) -> int:
    """Heap of Kafka Connect: a thirty-second of the RAM, 256 MB to 1 GB. 256 MB carry 20,000 events/s; the process takes 150 MB more."""
    return min(1024, max(256, memory_mb // 32))


def backup_processes(cores: int) -> int:
    """How many processes compress and send a backup or WAL: half of the cores, so that the database keeps the others, and at most eight."""
    return max(1, min(8, cores // 2))


def tailnet_threads(cores: int) -> int:
    """Threads of tailscaled that run at once: a quarter of the cores, at least one.

    Every packet goes through several of its goroutines, and waking a thread for each costs more than it carries
    (docs/decisions/0663-one-thread-of-tailscaled.md).
    """
    return max(1, cores // 4)


@dataclass(frozen=True)
class RedisSize:
    """Memory of Redis, in MB."""

    maxmemory_mb: int
    """What the data may take; beyond that Redis refuses writes."""
    ceiling_mb: int
    """What the whole unit may take before the kernel ends it."""


def redis(*, memory_mb: int, memory_share: float) -> RedisSize:
    """Sizes for a Redis whose data may take `memory_share` of `memory_mb`, at least 64 MB.

    The ceiling leaves room for what is not data: a forked child that writes the file anew while pages of all data change (as much again,
    at worst), buffers of clients, and the program (Redis documentation, administration: memory during a rewrite).
    """
    maxmemory = max(64, int(memory_mb * memory_share))
    return RedisSize(maxmemory_mb=maxmemory, ceiling_mb=2 * maxmemory + 128)


@dataclass(frozen=True)
class Neo4jSize:
    """Memory of Neo4j, in MB."""

    heap_mb: int
    page_cache_mb: int
    ceiling_mb: int
    """What the whole unit may take before the kernel ends it."""


def neo4j(*, memory_mb: int, memory_share: float) -> Neo4jSize:
    """Sizes for a Neo4j whose heap and page cache may take `memory_share` of `memory_mb`, at least 512 and 128 MB.

    A fifth is the page cache: a node takes 15 bytes in the store, an edge 34, a property 41. A JVM takes about 300 MB beside its heap
    (classes, compiled code, network buffers; 730 MB in all were measured at 512 and 128), and half as much again is room.
    """
    budget = int(memory_mb * memory_share)
    page_cache = max(128, budget // 5)
    heap = max(512, budget - page_cache)
    return Neo4jSize(heap_mb=heap, page_cache_mb=page_cache, ceiling_mb=heap + page_cache + 448)


@dataclass(frozen=True)
class Pool:
    """Connections to the database that one login may have through one gateway."""

    total: int
    """To the writer and the readers together: without a standby both are the same server."""
    each: int
    """To either of the two, so that neither takes all of `total`."""


def pool(*, limit: int, share: float, gateways: int) -> Pool:
    """A login's pool on each of `gateways`, which together take no more than `share` of its connection `limit`.

    Raises ValueError when not one connection is left for a gateway: PgBouncer reads 0 as "without limit".
    """
    total = int(limit * share) // gateways
    if total < 1:
        raise ValueError(f"{share:g} of {limit} connections is less than one for each of {gateways} gateways")
    return Pool(total=total, each=total - total // 3)


@dataclass(frozen=True)
class N8nSize:
    """Memory of n8n in MB."""

    heap_mb: int
    """Of the server's JavaScript."""
    runner_heap_mb: int
    """Of the process that runs people's code."""
    memory_max_mb: int
    """What the whole unit may take before the kernel ends it: both heaps, and what Node.js holds beside them."""


def n8n(*, memory_mb: int) -> N8nSize:
    """A sixteenth of the host's RAM for the heap, at least 384 MB (measured: 310 MB in use while 10,000 contacts are synchronised)."""
    heap = min(2 * GB_MB, max(384, memory_mb // 16))
    return N8nSize(heap_mb=heap, runner_heap_mb=128, memory_max_mb=heap + 128 + 512)


def kafka_heap_mb(memory_mb: int) -> int:
    """Heap of a Kafka broker: a sixteenth of the host's RAM, 384 MB to 4 GB.

    Its data is in the page cache; the heap holds requests in flight and the state of partitions and groups. The process takes about
    200 MB beside its heap.
    """
    return min(4 * GB_MB, max(384, memory_mb // 16))
