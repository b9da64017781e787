"""The standby fails, and is made anew under load: writes go on, and the cluster is redundant again by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.ledger import Ledger
from tests.drills import archive
from tests.drills.cluster import Cluster, Ways
from tests.drills.faults import boot, freeze_postgresql, power_off, thaw_postgresql
from tests.drills.machines import Machine
from tests.drills.rehearsal import STEADY, present, table

pytestmark = pytest.mark.long

OUTAGE_S = 25
"""Commits wait for a standby until it counts as lost."""


def _wipe(cluster: Cluster, standby: Machine) -> None:
    """Its data are gone."""
    standby.run(f"systemctl stop patroni.service; rm -rf {cluster.data}; systemctl start patroni.service", timeout_s=120)


def _nothing(cluster: Cluster, standby: Machine) -> None:
    return


@pytest.mark.parametrize(
    ("strike", "mend"),
    [
        pytest.param(power_off, boot, id="power-off"),
        pytest.param(freeze_postgresql, thaw_postgresql, id="frozen"),
        pytest.param(_wipe, _nothing, id="data-gone"),
    ],
)
def test_writes_go_on_and_the_standby_comes_back_under_load(
    cluster: Cluster,
    ways: Ways,
    tmp_path: Path,
    strike: Callable[[Cluster, Machine], None],
    mend: Callable[[Cluster, Machine], None],
) -> None:
    leader = cluster.leader()
    (standby,) = cluster.standbys(leader)
    with table(cluster) as name:
        with Ledger(ways.direct(), tmp_path / "ledger.jsonl", table=name) as writer:
            assert writer.wait(STEADY)
            began = time.monotonic()
            strike(cluster, standby)
            assert writer.wait(STEADY, timeout_s=90), "writes go on without a standby"
            mend(cluster, standby)
            cluster.wait_whole(240)
            assert writer.wait(STEADY)
            assert cluster.leader() == leader
        gap = writer.gap(since=began).seconds
        print(f"longest pause of writes {gap:.2f} s")
        assert gap <= OUTAGE_S
        assert writer.judge(present(cluster, name)).lost == ()


def test_a_dead_slot_cannot_fill_the_disk(cluster: Cluster) -> None:
    """A logical slot that nobody reads holds WAL back up to a bound and is given up then; the server works on."""
    leader = cluster.leader()
    keep_mb, segment_mb = 64, 16
    status = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'drill_dead'"
    # The bound is gigabytes: lowered, so that the drill need not write as much. wal_keep_size holds for slots as well.
    cluster.psql(leader, f"ALTER SYSTEM SET max_slot_wal_keep_size = '{keep_mb}MB';\nSELECT pg_reload_conf();")
    try:
        held_mb = keep_mb + int(cluster.psql(leader, "SELECT setting FROM pg_settings WHERE name = 'wal_keep_size'"))
        cluster.psql(leader, "SELECT pg_create_logical_replication_slot('drill_dead', 'pgoutput')")
        for _ in range(held_mb // segment_mb + 2):
            archive.switch(cluster, leader)
        cluster.psql(leader, "CHECKPOINT")
        assert cluster.psql(leader, status) == "lost"
        assert cluster.leads(leader)
    finally:
        cluster.psql(leader, "ALTER SYSTEM RESET max_slot_wal_keep_size;\nSELECT pg_reload_conf();")
        cluster.psql(leader, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'drill_dead'")
