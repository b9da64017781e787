"""The archive: what it alone gives back when all members are lost, and what happens while it cannot be reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.ledger import Ledger
from tests.drills import archive, network
from tests.drills.cluster import Cluster, Ways
from tests.drills.machines import Machine, wait_until
from tests.drills.rehearsal import STEADY, present, table
from tests.drills.scratch import Scratch

pytestmark = pytest.mark.long

RPO_S = 60
WRITES_S = 100
"""Longer than two archive time-outs, so that what is lost is what the archive lacks at any moment, and not all there was."""
OUT_OF_REACH_S = 45


@pytest.fixture
def world(cluster: Cluster) -> Machine:
    return cluster.machine(cluster.platform.group("world")[0].name)


def test_all_members_lost_costs_less_than_a_minute_of_rows(cluster: Cluster, ways: Ways, tmp_path: Path) -> None:
    """Leader and standby lose their power at once; what the offsite archive has is compared with every acknowledged row."""
    scratch = Scratch(cluster, cluster.machine(cluster.platform.group("backup")[-1].name))
    with table(cluster) as name:
        with Ledger(ways.direct(), tmp_path / "ledger.jsonl", table=name, interval_s=0.1) as writer:
            assert writer.wait(STEADY)
            assert not writer.wait(10**9, timeout_s=WRITES_S), "it writes until its time is over"
            for member in cluster.members:
                member.power_off()
        try:
            scratch.restore("default")
            verdict = writer.judge(scratch.rows(name))
        finally:
            scratch.remove()
        print(f"lost {len(verdict.lost)} of {verdict.acknowledged} rows, {verdict.lost_seconds:.1f} s of writing")
        assert verdict.unknown == ()
        assert verdict.lost_seconds <= RPO_S
        # What is lost is the end and nothing in between.
        assert list(verdict.lost) == sorted(row.id for row in writer.acknowledged)[len(writer.acknowledged) - len(verdict.lost) :]
        for member in cluster.members:
            member.boot()
        cluster.wait_whole(180)
        assert writer.judge(present(cluster, name)).lost == (), "the members themselves have lost nothing"


def test_writes_go_on_without_the_repository_and_the_archive_catches_up(
    cluster: Cluster, ways: Ways, tmp_path: Path, world: Machine
) -> None:
    leader = cluster.leader()
    with table(cluster) as name:
        with Ledger(ways.direct(), tmp_path / "ledger.jsonl", table=name) as writer:
            assert writer.wait(STEADY)
            network.cut(world, cluster.members)
            failures = "SELECT failed_count FROM pg_stat_archiver"
            before = int(cluster.psql(leader, failures))
            segments = [archive.switch(cluster, leader) for _ in range(3)]
            writer.wait(10**9, timeout_s=OUT_OF_REACH_S)
            seen = "the server notices that archiving fails"
            wait_until(lambda: int(cluster.psql(leader, failures)) > before, seconds=120, what=seen)
            assert _waiting(cluster, leader) >= len(segments), "the metric of segments that wait has moved"
            network.mend()
            archive.wait_for(cluster, leader, segments[-1], seconds=180)
            wait_until(lambda: _waiting(cluster, leader) == 0, seconds=120, what="no segment waits any more")
        assert writer.gap().seconds < 5, "writes went on"
        assert writer.judge(present(cluster, name)).lost == ()


def _waiting(cluster: Cluster, leader: Machine) -> int:
    return int(cluster.psql(leader, r"SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name ~ '\.ready$'"))
