"""Each part beside the database is killed while events are under way: new ones come through again, and nothing acknowledged is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from deploys.lib.settings import ROOT, Platform
from tests.drills.cluster import Cluster, Ways
from tests.drills.events import Stores, Traffic, settled
from tests.drills.machines import wait_until
from tests.drills.parts import JVMS, PARTS, finds_classes, kill, n8n_ready, strike


@pytest.fixture(scope="module")
def stores(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    if not all(map(platform.group, {part.group for part in PARTS.values()})):
        pytest.skip("this inventory has no change events")
    made = Stores(platform, tmp_path_factory.mktemp("stores"))
    yield made
    made.close()


def test_nothing_is_lost_whatever_is_killed(cluster: Cluster, ways: Ways, stores: Stores) -> None:
    with Traffic(ways.through(), stores) as traffic:
        wait_until(lambda: PARTS["stream-redis"].through(traffic) > 0, seconds=60, what="events come through")
        for part in PARTS.values():
            took = strike(cluster, part, traffic)
            print(f"{part.name} killed: a new event after {took:.1f} s")
            if part.name in JVMS:
                assert finds_classes(cluster, part)
        traffic.rest()
        took = settled(traffic)
        print(f"{traffic.number} changes, {len(traffic.figures)} figures; all of them where they belong {took:.1f} s later")
        # Keys of agents that are gone stay until the next comparison, which may not have found Redis: it is made now.
        cluster.machine(cluster.platform.group("redis")[0].name).run("systemctl start phoenix-hormones.service")
        for what in ("hormones", "graph"):
            check = [sys.executable, "-m", "ops", "-i", str(cluster.platform.inventory), "--json", what, "check"]
            done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
            assert json.loads(done.stdout)["differences"] == 0, done.stdout


def test_n8n_is_back_with_its_workflows(cluster: Cluster, platform: Platform) -> None:
    if not platform.group("n8n"):
        pytest.skip("this inventory has no n8n")
    machine = cluster.machine(platform.group("n8n")[0].name)
    assert n8n_ready(platform, machine)
    kill(machine, "phoenix-n8n")
    assert not n8n_ready(platform, machine)
    took = wait_until(lambda: n8n_ready(platform, machine), seconds=120, what="n8n is ready with all workflows", every_s=0.5)
    print(f"n8n killed: ready after {took:.1f} s")


def test_what_is_missing_is_named(cluster: Cluster, ways: Ways, stores: Stores) -> None:
    """The drill can fail: a change of which no event tells, because no trigger saw it, is in neither store."""
    with Traffic(ways.through(), stores) as traffic:
        wait_until(lambda: traffic.number > len(traffic.agents), seconds=60, what="every agent has changed")
        traffic.rest()
        settled(traffic)
        agent = traffic.agents[0]
        cluster.psql(
            cluster.leader(),
            "SET session_replication_role = replica; UPDATE phoenix.agents SET role = 'drill 900000', "
            f"hormone_levels = jsonb_set(hormone_levels, '{{dopamine}}', '0.9') WHERE id = '{agent}'",
        )
        assert [line.partition(" at ")[0] for line in traffic.missing()] == [f"Redis: {agent}", f"Neo4j: {agent}"]
