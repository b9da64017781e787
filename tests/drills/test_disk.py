"""The leader's disk is full: another member leads, nothing is lost, and with some space the old one is back without a restore."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest

from ops.ledger import Ledger
from tests.drills import archive, disk
from tests.drills.cluster import Cluster, Ways
from tests.drills.faults import switch_over
from tests.drills.machines import DrillError, wait_until
from tests.drills.rehearsal import STEADY, present, table

pytestmark = pytest.mark.long

OUTAGE_S = 30


def test_a_full_disk_of_the_leader_loses_nothing_and_needs_no_restore(cluster: Cluster, ways: Ways, tmp_path: Path) -> None:
    (victim,) = cluster.standbys(cluster.leader())
    with disk.small_disk(cluster, victim, spare_mb=64):
        switch_over(cluster, cluster.leader())
        cluster.wait_whole()
        assert cluster.leader() == victim
        born = victim.run(f"stat -c %i {cluster.data}/PG_VERSION")
        with table(cluster) as name:
            with Ledger(ways.direct(), tmp_path / "ledger.jsonl", table=name) as writer:
                assert writer.wait(STEADY)
                began = time.monotonic()
                disk.fill(cluster, victim)
                # It goes on as long as there are old WAL files to use again, and ends in the middle of a statement.
                files = int(victim.run(f"ls {cluster.data}/pg_wal | wc -l"))
                with suppress(DrillError):
                    for _ in range(files + 10):
                        archive.switch(cluster, victim)
                (other,) = cluster.standbys(victim)
                wait_until(lambda: cluster.leads(other), seconds=60, what=f"{other.name} leads instead of the member with the full disk")
                assert writer.wait(STEADY), "writes go on"
                disk.free(cluster, victim)
                cluster.wait_whole(240)
                assert writer.wait(STEADY)
            gap = writer.gap(since=began).seconds
            print(f"longest pause of writes {gap:.2f} s")
            assert gap <= OUTAGE_S
            assert writer.judge(present(cluster, name)).lost == ()
        assert victim.run(f"stat -c %i {cluster.data}/PG_VERSION") == born, "its own data directory, not a new copy"
