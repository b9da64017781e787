"""What a collector is: one statement, how long its answer stays good, where it is asked, and the table of its metrics."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from phoenix_exporter.metric import Kind


class Role(StrEnum):
    """What the server that is asked is to the platform. It changes with a failover, without a restart of the exporter."""

    LEADER = "leader"
    """Takes the platform's writes."""
    STANDBY = "standby"
    """Follows a leader and may become one: all that the leader says, said again, would be told and added up twice."""
    COPY = "copy"
    """Leads a cluster of its own, which holds a copy of some of the platform's tables (the setting `copy`)."""


EVERY_ROLE = frozenset(Role)


@dataclass(frozen=True)
class Collector:
    """One topic. `ttl_s`: seconds for which an answer is served again without asking (0: asked at every scrape).

    `roles`: which servers are asked. What is the platform's is said once, by its leader: the default.
    """

    name: str
    sql: str
    metrics: tuple[Kind, ...]
    ttl_s: float = 0.0
    roles: frozenset[Role] = frozenset({Role.LEADER})
