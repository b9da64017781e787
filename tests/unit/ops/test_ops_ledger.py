"""The ledger against a real PostgreSQL that is crashed, frozen and robbed of rows: it says exactly what became of each row."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ops import ledger
from ops.ledger import Ledger
from ops.wire import Lost, Wire
from tests.exporter.cluster import Cluster, black_hole, free_port, running_cluster

TABLE = "drill.ledger_test"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        with cluster.admin() as connection:
            # fsync is off in the throwaway cluster, and a crash of the server alone loses nothing by that.
            connection.execute(f"ALTER ROLE architect PASSWORD '{cluster.password}'".encode())
        yield cluster


@pytest.fixture
def table(cluster: Cluster) -> Iterator[str]:
    with cluster.admin() as connection:
        connection.execute(ledger.create_sql(TABLE, "architect").encode())
    yield TABLE
    with cluster.admin() as connection:
        connection.execute(ledger.drop_sql(TABLE).encode())


def conninfo(cluster: Cluster, port: int | None = None) -> str:
    return f"host=localhost hostaddr=127.0.0.1 port={port or cluster.port} dbname=phoenix user=architect password={cluster.password}"


def present(cluster: Cluster, table: str = TABLE) -> list[int]:
    with cluster.admin() as connection:
        return [int(str(row[0])) for row in connection.execute(f"SELECT id FROM {table} ORDER BY id".encode())]


def test_rows_are_on_disk_and_in_the_table(cluster: Cluster, table: str, tmp_path: Path) -> None:
    with Ledger([conninfo(cluster)], tmp_path / "ledger", table=table, interval_s=0.01) as writer:
        assert writer.wait(50)
    verdict = writer.judge(present(cluster))
    assert verdict.lost == verdict.unconfirmed == verdict.unknown == ()
    written = [json.loads(line)["id"] for line in (tmp_path / "ledger").read_text().splitlines()]
    assert sorted(written) == present(cluster)
    assert verdict.acknowledged == len(written) >= 50
    assert writer.gap().seconds < 1


def test_lost_rows_are_named_one_by_one(cluster: Cluster, table: str, tmp_path: Path) -> None:
    with Ledger([conninfo(cluster)], tmp_path / "ledger", table=table, interval_s=0.01) as writer:
        assert writer.wait(30)
    with cluster.admin() as connection:
        connection.execute(f"DELETE FROM {table} WHERE id IN (5, 9)".encode())
        connection.execute(f"INSERT INTO {table} VALUES (1000000)".encode())
    verdict = writer.judge(present(cluster))
    assert verdict.lost == (5, 9)
    assert verdict.lost_seconds > 0
    assert verdict.unknown == (1000000,)


def test_a_crash_is_a_gap_and_loses_nothing(cluster: Cluster, table: str, tmp_path: Path) -> None:
    with Ledger([conninfo(cluster)], tmp_path / "ledger", table=table, interval_s=0.01) as writer:
        assert writer.wait(20)
        began = time.monotonic()
        cluster.stop("immediate")
        time.sleep(0.5)
        cluster.start()
        assert writer.wait(20)
        ended = time.monotonic()
    gap = writer.gap(since=began)
    assert 0.5 <= gap.seconds <= ended - began
    assert gap.after is not None
    assert gap.after.id > gap.before.id
    assert writer.judge(present(cluster)).lost == ()
    assert writer.trouble


def test_a_frozen_server_is_not_waited_for(cluster: Cluster, table: str, tmp_path: Path) -> None:
    with Ledger([conninfo(cluster)], tmp_path / "ledger", table=table, interval_s=0.01, timeout_s=0.3) as writer:
        assert writer.wait(20)
        with cluster.frozen():
            time.sleep(1.0)
            assert writer.gap().after is None, "the gap is seen while it lasts"
            began = time.monotonic()
            writer.stop()
            assert time.monotonic() - began < 1.0
    there = present(cluster)  # once: it may be committed after the thaw as late as between two looks
    verdict = writer.judge(there)
    assert verdict.lost == ()
    # What was sent before the server froze is committed when it thaws, and nobody was told.
    assert set(there) - {row.id for row in writer.acknowledged} == set(verdict.unconfirmed)


def test_another_way_in_is_taken(cluster: Cluster, table: str, tmp_path: Path) -> None:
    with black_hole() as silent:
        ways = [conninfo(cluster, silent), conninfo(cluster, free_port()), conninfo(cluster)]
        with Ledger(ways, tmp_path / "ledger", table=table, interval_s=0.01, timeout_s=0.3) as writer:
            assert writer.wait(10, timeout_s=10)
    assert {row.via for row in writer.acknowledged} == {2}


def test_nothing_is_left_of_its_table(cluster: Cluster) -> None:
    table = ledger.table_name(datetime.now(UTC))
    with cluster.admin() as connection:
        connection.execute(ledger.create_sql(table, "architect").encode())
        for _ in range(2):
            connection.execute(ledger.drop_sql(table).encode())
        assert connection.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'drill'").fetchone() == (0,)


def test_only_tables_of_its_own_schema_are_written(tmp_path: Path) -> None:
    for table in ("phoenix.tasks", "drill.x; DROP TABLE phoenix.tasks", "ledger"):
        with pytest.raises(ValueError, match=r"drill\.NAME"):
            Ledger(["host=localhost"], tmp_path / "ledger", table=table)


def test_an_error_of_the_server_is_told(cluster: Cluster) -> None:
    with Wire(conninfo(cluster), timeout_s=5) as wire:
        assert wire.value("SELECT 1", timeout_s=5) == "1"
        assert wire.value("SELECT NULL", timeout_s=5) is None
        with pytest.raises(Lost, match="division by zero"):
            wire.value("SELECT 1/0", timeout_s=5)
    with pytest.raises(Lost, match="no password"):
        Wire(conninfo(cluster).rpartition(" ")[0], timeout_s=5)
