"""What a planned failover waits for, and what it refuses at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deploys.lib.settings import ROOT, Platform, load
from ops import cluster, failover
from ops.cluster import Cluster, Member, View
from ops.failover import Check, Plan, prepare

LEADER = Member("vps1", "leader", "running", 1, None)
BEHIND, THERE = (Member("vps2", "sync_standby", "streaming", 1, lag) for lag in (13_001_912, 0))
ASYNCHRONOUS = Member("vps2", "replica", "streaming", 1, 13_001_912)


@pytest.fixture
def platform() -> Platform:
    return load(Path(ROOT / "inventory" / "lab.py"))


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses are noted and not made."""
    made: list[float] = []
    monkeypatch.setattr("ops.failover.time.sleep", made.append)
    return made


@pytest.fixture
def prepared(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plan]:
    """`prepared(BEHIND, THERE, wait_s=60)`: the plan where the standby looks like one after the other; slots are ready."""

    def plan(*standbys: Member, wait_s: float) -> Plan:
        looks = iter(standbys)
        monkeypatch.setattr(Cluster, "view", lambda _: View((LEADER, next(looks)), paused=False))
        monkeypatch.setattr(failover, "_slots", lambda *_: Check("slots follow", True, ""))
        return prepare(platform, cluster.of(platform), None, wait_s=wait_s)

    return plan


def test_a_standby_that_only_has_to_catch_up_is_waited_for(prepared: Callable[..., Plan], pauses: list[float]) -> None:
    plan = prepared(BEHIND, BEHIND, THERE, wait_s=60)
    assert not plan.problems
    assert plan.target == "vps2"
    assert len(pauses) == 2


def test_what_waiting_does_not_mend_is_said_at_once(prepared: Callable[..., Plan], pauses: list[float]) -> None:
    plan = prepared(ASYNCHRONOUS, THERE, wait_s=60)
    assert [check.name for check in plan.problems] == ["standby is synchronous", "standby is not behind"]
    assert not pauses


def test_a_plan_shows_things_as_they_are(prepared: Callable[..., Plan], pauses: list[float]) -> None:
    plan = prepared(BEHIND, THERE, wait_s=0)
    assert [check.detail for check in plan.problems] == ["13001912 bytes to receive"]
    assert not pauses
