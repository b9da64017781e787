"""What the drills rest on and needs no machine: distributions, the list of faults, and writers that log in for every row."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops import ledger
from ops.ledger import Ledger
from tests.drills.faults import FAULTS
from tests.drills.rehearsal import Spread
from tests.exporter.cluster import Cluster, running_cluster


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([4.0], (4, 4, 4, 4)),
        ([3.0, 1.0], (1, 2, 3, 3)),
        # Nearest rank: of twenty runs the 95th percentile is the last but one, and the highest is told apart.
        ([float(number) for number in range(1, 21)], (1, 10.5, 19, 20)),
    ],
)
def test_spread(values: list[float], expected: tuple[float, ...]) -> None:
    spread = Spread.of(values)
    assert (spread.low, spread.median, spread.p95, spread.high) == expected


def test_a_fault_that_moves_the_lead_does_not_wait_and_one_that_does_not_lasts() -> None:
    for fault in FAULTS.values():
        assert fault.moves == (fault.lasts_s == 0), fault.name
        assert fault.median_s is None or fault.median_s < fault.limit_s


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        with cluster.admin() as connection:
            connection.execute(f"ALTER ROLE architect PASSWORD '{cluster.password}'".encode())
            connection.execute(ledger.create_sql("drill.ledger_sessions", "architect").encode())
        yield cluster


@pytest.mark.parametrize(("rows_per_session", "goes_on"), [(None, True), (1, False)])
def test_only_writers_that_log_in_anew_find_out_a_frozen_postmaster(
    cluster: Cluster, tmp_path: Path, rows_per_session: int | None, goes_on: bool
) -> None:
    way = f"host=localhost hostaddr=127.0.0.1 port={cluster.port} dbname=phoenix user=architect password={cluster.password}"
    with cluster.admin() as connection:
        connection.execute(b"TRUNCATE drill.ledger_sessions")
    with Ledger([way], tmp_path / "ledger", table="drill.ledger_sessions", rows_per_session=rows_per_session) as writer:
        assert writer.wait(10)
        postmaster = cluster.processes()[0]
        os.kill(postmaster, signal.SIGSTOP)
        try:
            writer.wait(2, timeout_s=1)  # what was under way
            assert writer.wait(10, timeout_s=2) == goes_on
        finally:
            os.kill(postmaster, signal.SIGCONT)
        assert writer.wait(10)
