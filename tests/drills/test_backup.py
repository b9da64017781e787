"""Backups and restores that are disturbed: each fails cleanly or succeeds, and the next one works."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deploys.lib.settings import ROOT
from ops.ledger import Ledger
from tests.drills import archive
from tests.drills.cluster import Cluster, Ways
from tests.drills.faults import kill_postmaster, switch_over
from tests.drills.machines import Machine, wait_until
from tests.drills.rehearsal import STEADY, present, table
from tests.drills.scratch import Scratch

pytestmark = pytest.mark.long

PROGRAM = "/usr/local/lib/phoenix/backup.py"


def _begin(member: Machine) -> tuple[threading.Thread, list[str]]:
    """A full backup from `member`, under way. The list gets what it prints, and its exit code in the last line."""
    said: list[str] = []
    command = f"{PROGRAM} full --here; echo $?"
    thread = threading.Thread(target=lambda: said.append(member.run(command, timeout_s=600, check=False)), daemon=True)
    thread.start()
    busy = "pgrep -f 'pgbackrest.* backup' >/dev/null && echo busy"
    wait_until(lambda: member.run(busy, check=False) == "busy", seconds=60, what=f"{member.name} takes a backup", every_s=0.1)
    return thread, said


@pytest.mark.parametrize("fault", [switch_over, kill_postmaster], ids=["switchover", "kill"])
def test_a_promotion_during_a_backup_costs_no_row_and_at_most_that_backup(
    cluster: Cluster, ways: Ways, tmp_path: Path, fault: object
) -> None:
    leader = cluster.leader()
    (standby,) = cluster.standbys(leader)
    before = archive.backups(cluster, standby)
    with table(cluster) as name:
        with Ledger(ways.direct(), tmp_path / "ledger.jsonl", table=name) as writer:
            assert writer.wait(STEADY)
            thread, said = _begin(standby)
            assert callable(fault)
            fault(cluster, leader)
            thread.join(timeout=600)
            assert not thread.is_alive(), "the backup ends"
            cluster.wait_whole(180)
            assert writer.wait(STEADY)
        assert writer.judge(present(cluster, name)).lost == ()
    failed = not said[0].endswith("\n0")
    after = archive.backups(cluster, standby)
    assert after[: len(before)] == before, "no backup that was there is gone"
    assert len(after) == len(before) + (0 if failed else 1), "what failed does not count as a backup"
    standby.run(f"{PROGRAM} full --here", timeout_s=900)
    assert len(archive.backups(cluster, standby)) == len(after) + 1, "the next backup works"


def test_a_restore_that_is_killed_is_repeated_and_has_every_row(cluster: Cluster, ways: Ways, tmp_path: Path) -> None:
    leader = cluster.leader()
    scratch = Scratch(cluster, cluster.machine(cluster.platform.group("backup")[-1].name))
    with table(cluster) as name:
        with Ledger(ways.direct(), tmp_path / "ledger.jsonl", table=name) as writer:
            assert writer.wait(STEADY)
        archive.wait_for(cluster, leader, archive.switch(cluster, leader))
        try:
            scratch.remove()
            interrupted = [scratch.begin_restore(seconds) for seconds in (0.7, 1.5)]
            assert any(interrupted), "it was still at work when it was killed"
            scratch.restore("default")
            assert writer.judge(scratch.rows(name)).lost == ()
        finally:
            scratch.remove()


def test_the_verb_restores_in_place_after_it_was_killed(cluster: Cluster, ways: Ways, tmp_path: Path) -> None:
    """`phoenix restore --latest`, killed while it works and run again: the cluster is whole, with every row the archive had."""
    leader = cluster.leader()
    command = [sys.executable, "-m", "ops", "-i", str(cluster.platform.inventory), "restore", "--latest", "--yes"]
    with table(cluster) as name:
        with Ledger(ways.direct(), tmp_path / "ledger.jsonl", table=name) as writer:
            assert writer.wait(STEADY)
        archive.wait_for(cluster, leader, archive.switch(cluster, leader))
        with pytest.raises(subprocess.TimeoutExpired):
            subprocess.run(command, cwd=ROOT, capture_output=True, timeout=15, check=False)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=580, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        cluster.wait_whole(180)
        assert writer.judge(present(cluster, name)).lost == ()
