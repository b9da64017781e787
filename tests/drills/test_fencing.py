"""Of two members that cannot see each other at most one takes writes, at any moment, as clients of both see it."""

from __future__ import annotations

import time
from pathlib import Path

from ops.ledger import Ledger
from tests.drills import network
from tests.drills.cluster import Cluster, Ways
from tests.drills.machines import wait_until
from tests.drills.rehearsal import STEADY, present, table


def test_an_isolated_leader_takes_no_write_after_its_ttl(cluster: Cluster, ways: Ways, tmp_path: Path) -> None:
    """The leader loses all other machines and keeps its clients: the worst case, in which only it can stop itself."""
    old = cluster.leader()
    (new,) = cluster.standbys(old)
    ttl_s = cluster.postgresql.failover_ttl_s
    with table(cluster) as old_table, table(cluster) as new_table:
        with (
            Ledger([ways.to(old)], tmp_path / "old.jsonl", table=old_table) as on_old,
            Ledger([ways.to(new)], tmp_path / "new.jsonl", table=new_table) as on_new,
        ):
            assert on_old.wait(STEADY)
            began = time.monotonic()
            network.cut(old, cluster.others(old))
            wait_until(lambda: cluster.leads(new), seconds=ttl_s + 20, what=f"{new.name} leads")
            assert on_new.wait(STEADY, timeout_s=20)
            wait_until(lambda: time.monotonic() > began + ttl_s + 5, seconds=60, what="the leader's time is up")
            assert not cluster.leads(old), "by its own account the isolated member still takes writes"
            assert on_new.wait(STEADY), "while the other one works"
            network.mend()
            cluster.wait_whole()
        old_rows, new_rows = on_old.acknowledged, on_new.acknowledged
        assert new_rows[0].clock > began
        # While the cut lasted. Afterwards the old one may have become the leader again, in order.
        late = [row for row in old_rows if began + ttl_s < row.clock]
        both = [row for row in old_rows if row.clock >= new_rows[0].clock]
        assert late == [], "acknowledged by the isolated leader after its TTL"
        assert both == [], "acknowledged by the old leader after the new one had begun"
        assert on_old.judge(present(cluster, old_table)).lost == ()
        assert on_new.judge(present(cluster, new_table)).lost == ()
