"""The archive as the leader and the repository see it."""

from __future__ import annotations

import json
from typing import Any

from tests.drills.cluster import Cluster
from tests.drills.machines import Machine, wait_until


def switch(cluster: Cluster, leader: Machine) -> str:
    """End the present WAL segment. Gives its name."""
    # A switch at the beginning of a segment does nothing: a record makes sure that there is something to end.
    sql = "SELECT pg_walfile_name(pg_logical_emit_message(false, 'drill', 'x')); SELECT 1 FROM pg_switch_wal();"
    return cluster.psql(leader, sql).splitlines()[0]


def reached(cluster: Cluster, machine: Machine, segment: str) -> bool:
    """Whether the repository, asked from `machine`, has the archive up to `segment`."""
    return any(part["max"] and part["max"] >= segment for part in info(cluster, machine)["archive"])


def wait_for(cluster: Cluster, machine: Machine, segment: str, seconds: float = 90) -> float:
    """Seconds until the repository has `segment`. Raises DrillError."""
    return wait_until(lambda: reached(cluster, machine, segment), seconds=seconds, what=f"{segment} is in the repository", every_s=1)


def info(cluster: Cluster, machine: Machine) -> dict[str, Any]:
    """What the repository holds of the cluster, by `pgbackrest info`."""
    stanza = cluster.postgresql.cluster_name
    said = machine.run(f"cd / && runuser -u postgres -- pgbackrest --stanza={stanza} --output=json info", timeout_s=60)
    return dict(json.loads(said)[0])


def backups(cluster: Cluster, machine: Machine) -> list[str]:
    """The labels of the sound backups there are, oldest first."""
    return [one["label"] for one in info(cluster, machine)["backup"] if not one["error"]]
