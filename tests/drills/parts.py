"""The parts of the platform beside the database, each killed while events are under way: how long until a new one is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deploys.connect import worker
from deploys.kafka import broker
from deploys.lib.settings import HostSettings, N8nSettings, Platform
from deploys.n8n.n8n import workflows
from deploys.neo4j import server
from tests.drills.cluster import TLS, Cluster
from tests.drills.events import Traffic
from tests.drills.machines import Machine, wait_until

PROMISED_S = 10.0
"""From the kill of a part until an event is seen that is newer than the kill: docs/drills.md says where it is missed, and why."""
PATIENCE_S = 240.0

Number = Callable[[Traffic], int]


@dataclass(frozen=True)
class Part:
    """Something that can be killed, the newest number that was acknowledged, and the newest that has come through."""

    name: str
    group: str
    """Of the inventory: it is on the first of these hosts."""
    unit: str
    acknowledged: Number
    through: Number


def _changes(traffic: Traffic) -> int:
    return traffic.number


def _figures(traffic: Traffic) -> int:
    return max(traffic.figures.values(), default=0)


def _levels(traffic: Traffic) -> int:
    return max(traffic.stores.levels(traffic.agents).values(), default=0)


def _roles(traffic: Traffic) -> int:
    return max(traffic.stores.roles(traffic.agents).values(), default=0)


PARTS = {
    part.name: part
    for part in (
        Part("kafka", "kafka", "phoenix-kafka", _changes, _levels),
        Part("connect", "connect", "phoenix-connect", _changes, _levels),
        Part("stream-redis", "stream", "phoenix-stream@redis", _changes, _levels),
        Part("stream-neo4j", "stream", "phoenix-stream@neo4j", _changes, _roles),
        Part("stream-postgres", "stream", "phoenix-stream@postgres", _figures, Traffic.newest_figure),
        Part("redis", "redis", "redis-server", _changes, _levels),
        Part("neo4j", "neo4j", "neo4j", _changes, _roles),
    )
}
"""Every part that carries events, by name."""


def kill(machine: Machine, unit: str) -> None:
    """All processes of a unit end at once, as by the kernel's out-of-memory killer."""
    machine.run(f"systemctl kill -s KILL {unit}.service")


def strike(cluster: Cluster, part: Part, traffic: Traffic) -> float:
    """Kill `part`. Seconds until an event is through that is newer than that. Raises DrillError."""
    machine = cluster.machine(cluster.platform.group(part.group)[0].name)
    kill(machine, part.unit)
    mark = part.acknowledged(traffic)
    return wait_until(
        lambda: part.through(traffic) > mark, seconds=PATIENCE_S, what=f"{part.name} killed: a newer event comes through", every_s=0.2
    )


JVMS = {"kafka": broker.JVM, "connect": worker.JVM, "neo4j": server.JVM}
"""The parts that start from an archive of classes."""


def finds_classes(cluster: Cluster, part: Part) -> bool:
    """Whether the JVM that runs now has mapped the archive of its classes: not one that was started before there was one."""
    machine = cluster.machine(cluster.platform.group(part.group)[0].name)
    return JVMS[part.name].archive in machine.run(f"cat /proc/$(systemctl show -P MainPID {part.unit})/maps")


def n8n_ready(platform: Platform, machine: Machine) -> bool:
    """Whether n8n says that it is ready and has all workflows active."""
    host = platform.group("n8n")[0]
    url = f"https://{host[HostSettings].address}:{host[N8nSettings].port}"
    said = machine.run(f"curl -s --max-time 5 {TLS} {url}/healthz/readiness {url}/metrics", check=False)
    active = f"n8n_active_workflow_count {len(workflows(host[N8nSettings]))}"
    return '"ok"' in said and active in said.splitlines()
