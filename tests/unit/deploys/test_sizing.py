"""Sizes of PostgreSQL over a table of machines: what must hold on each, and from each to the next larger one."""

from __future__ import annotations

from itertools import pairwise, product

import pytest

from deploys.lib import sizing

GB = 1024
MACHINES = [(1, 1), (2, 1), (2, 2), (4, 2), (8, 4), (16, 4), (16, 8), (32, 16), (64, 32)]
MEMORY, CORES = sorted({gb for gb, _ in MACHINES}), sorted({cores for _, cores in MACHINES})
CONNECTIONS = [20, 200, 1000]


def size(memory_gb: float, cores: int, *, share: float = 0.4, connections: int = 200, wal_gb: float = 4) -> sizing.PostgresqlSize:
    return sizing.postgresql(
        memory_mb=int(memory_gb * GB), cores=cores, memory_share=share, max_connections=connections, wal_keep_gb=wal_gb
    )


def used_mb(found: sizing.PostgresqlSize, connections: int) -> int:
    """What a busy server takes: one connection in ten sorts with two nodes, one maintenance command, all autovacuum workers."""
    sorting = 2 * max(1, connections // 10) * found.work_mem_mb
    vacuum = found.autovacuum_max_workers * found.autovacuum_work_mem_mb
    return found.shared_buffers_mb + sorting + found.maintenance_work_mem_mb + vacuum + found.wal_buffers_mb


@pytest.mark.parametrize(
    ("memory_gb", "cores", "share"),
    # Below 800 MB PostgreSQL's own floors count: see the next test.
    [(gb, cores, share) for (gb, cores), share in product(MACHINES, [0.25, 0.4, 0.8]) if gb * GB * share >= 800],
)
def test_a_busy_server_stays_within_its_share(memory_gb: int, cores: int, share: float) -> None:
    assert used_mb(size(memory_gb, cores, share=share), 200) <= memory_gb * GB * share


def test_the_smallest_host_survives_the_floors() -> None:
    assert used_mb(size(1, 1), 200) <= 0.5 * GB


@pytest.mark.parametrize(("cores", "connections"), list(product(CORES, CONNECTIONS)))
def test_more_memory_never_gives_less(cores: int, connections: int) -> None:
    for small, large in pairwise(size(gb, cores, connections=connections) for gb in MEMORY):
        assert all(vars(large)[name] >= value for name, value in vars(small).items())


@pytest.mark.parametrize("memory_gb", MEMORY)
def test_more_cores_never_give_fewer_workers(memory_gb: int) -> None:
    for small, large in pairwise(size(memory_gb, cores) for cores in CORES):
        assert all(vars(large)[name] >= value for name, value in vars(small).items() if not name.endswith("_mb"))


@pytest.mark.parametrize(("memory_gb", "cores"), MACHINES)
def test_workers_fit_into_each_other(memory_gb: int, cores: int) -> None:
    found = size(memory_gb, cores)
    assert found.max_parallel_workers_per_gather <= found.max_parallel_workers < found.max_worker_processes
    assert found.max_parallel_maintenance_workers <= found.max_parallel_workers
    assert found.max_worker_processes - found.max_parallel_workers >= 16  # TimescaleDB, pg_cron, logical replication
    assert found.shared_buffers_mb < found.effective_cache_size_mb
    assert found.min_wal_size_mb <= found.max_wal_size_mb


@pytest.mark.parametrize("wal_gb", [0.5, 4, 100])
def test_wal_of_two_checkpoints_fits_into_its_disk(wal_gb: float) -> None:
    assert size(8, 4, wal_gb=wal_gb).max_wal_size_mb <= wal_gb * GB / 2


def test_parameters_are_in_postgresqls_names_and_units() -> None:
    parameters = size(8, 4).parameters()
    assert parameters["shared_buffers"] == "819MB"
    assert parameters["max_parallel_workers"] == 4
    assert not [name for name in parameters if name.endswith("_mb")]


@pytest.mark.parametrize(("limit", "share", "gateways"), list(product([1, 3, 10, 50, 116, 1000], [0.4, 0.5, 0.9, 1.0], [1, 2, 3, 5])))
def test_all_gateways_together_stay_below_a_logins_limit(limit: int, share: float, gateways: int) -> None:
    if limit * share < gateways:
        with pytest.raises(ValueError, match="less than one for each"):
            sizing.pool(limit=limit, share=share, gateways=gateways)
        return
    found = sizing.pool(limit=limit, share=share, gateways=gateways)
    assert found.total >= 1 and found.total * gateways <= limit * share
    assert 1 <= found.each <= found.total
    assert found.each < found.total or found.total <= 2, "neither writer nor readers may take all of it"


def test_the_tailnet_never_takes_more_than_a_quarter_of_a_large_host() -> None:
    threads = [sizing.tailnet_threads(cores) for cores in CORES]
    assert threads == sorted(threads)
    assert threads[0] == 1
    assert all(few <= max(1, cores / 4) for few, cores in zip(threads, CORES, strict=True))
