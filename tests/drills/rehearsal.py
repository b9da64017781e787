"""One rehearsal of a fault: writers outside, the fault, the outage as they see it, the mending, and the exact rows that were lost."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ops import ledger
from ops.ledger import Ledger, Verdict
from tests.drills.cluster import WRITER, Cluster
from tests.drills.faults import Fault
from tests.drills.machines import DrillError, Machine, wait_until

# Acknowledged rows after which writing counts as steady.
STEADY = 20


@dataclass(frozen=True)
class Outcome:
    """What a rehearsal found. Times are seconds."""

    fault: str
    leader: str
    """Who led when the fault struck."""
    successor: str
    """Who led once writes worked again."""
    outage_s: float
    """The longest time without an acknowledged write, from the fault until the cluster was whole again."""
    whole_s: float
    """From the mending until the cluster was whole again: one leader, the standby synchronous."""
    verdict: Verdict
    """The rows; `lost` must be empty."""
    trouble: tuple[str, ...]
    """What clients were told meanwhile."""


@contextmanager
def table(cluster: Cluster) -> Iterator[str]:
    """A table for a ledger, on the leader; gone afterwards. It stays, as evidence, when the `with` ends in an error."""
    name = ledger.table_name(datetime.now(UTC))
    cluster.psql(cluster.leader(), ledger.create_sql(name, WRITER))
    yield name
    cluster.psql(cluster.leader(), ledger.drop_sql(name))


def rehearse(cluster: Cluster, fault: Fault, ways: Sequence[str], directory: Path) -> Outcome:
    """Let `fault` befall the leader under load and mend it. The ledger's file is kept in `directory`.

    Raises DrillError when the cluster is not whole before, does not do what the fault says it must, or is not whole afterwards.
    """
    cluster.wait_whole()
    victim = cluster.leader()
    with table(cluster) as name:
        session = 1 if fault.newcomers else None
        with Ledger(ways, directory / f"{name}.jsonl", table=name, rows_per_session=session) as writer:
            if not writer.wait(STEADY):
                raise DrillError(f"no write gets in before the fault: {'; '.join(writer.trouble[-3:])}")
            began = time.monotonic()
            try:
                fault.inject(cluster, victim)
                successor = _aftermath(cluster, fault, victim, writer, began)
            finally:
                fault.mend(cluster, victim)
            whole_s = cluster.wait_whole()
            if not writer.wait(STEADY):
                raise DrillError(f"no write gets in after the fault: {'; '.join(writer.trouble[-3:])}")
        verdict = writer.judge(present(cluster, name))
    gap = writer.gap(since=began)
    return Outcome(fault.name, victim.name, successor.name, gap.seconds, whole_s, verdict, tuple(writer.trouble))


def present(cluster: Cluster, name: str) -> list[int]:
    """The ids in a ledger's table, by the leader's account. Raises DrillError when a standby, caught up, has others."""
    query = f"SELECT id FROM {name} ORDER BY id"
    leader = cluster.leader()
    ids = cluster.psql(leader, query)
    lsn = cluster.psql(leader, "SELECT pg_current_wal_lsn()")
    for standby in cluster.standbys(leader):
        _catch_up(cluster, standby, lsn)
        if cluster.psql(standby, query) != ids:
            raise DrillError(f"{standby.name} has other rows in {name} than {leader.name}")
    return [int(line) for line in ids.split()]


def _catch_up(cluster: Cluster, standby: Machine, lsn: str) -> None:
    replayed = f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'"
    wait_until(lambda: cluster.psql(standby, replayed) == "t", seconds=20, what=f"{standby.name} has replayed {lsn}")


def _aftermath(cluster: Cluster, fault: Fault, victim: Machine, writer: Ledger, began: float) -> Machine:
    """Wait until the outage is over, or has shown not to come. Gives who leads then."""
    patience_s = fault.limit_s + 60
    if not fault.moves:
        time.sleep(fault.lasts_s)
        if not writer.wait(STEADY, timeout_s=patience_s):
            raise DrillError(f"{fault.what}: writes stopped and did not come back in {fault.lasts_s + patience_s:.0f} s")
        if not cluster.leads(victim):
            raise DrillError(f"{fault.what}: {victim.name} leads no more, and nothing of it was lost")
        return victim
    # The others only: a victim that is frozen answers nothing, one that is off cannot.
    heirs = cluster.standbys(victim)
    wait_until(lambda: any(cluster.leads(heir) for heir in heirs), seconds=patience_s, what=f"{fault.what}: another member leads")
    if not writer.wait(STEADY, timeout_s=patience_s):
        raise DrillError(f"{fault.what}: another member leads, and no write gets in: {'; '.join(writer.trouble[-3:])}")
    return next(heir for heir in heirs if cluster.leads(heir))


@dataclass(frozen=True)
class Spread:
    """A distribution of seconds: lowest, median, 95th percentile (nearest rank), highest."""

    low: float
    median: float
    p95: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        ordered = sorted(values)
        rank = math.ceil(0.95 * len(ordered)) - 1
        return cls(ordered[0], statistics.median(ordered), ordered[rank], ordered[-1])
