"""Who may do what in Kafka: the table from which the access rules are derived. What is not here is denied.

`admin` and `broker` are super users: the deploy manages the content by the first, brokers reach each other by the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SUPER_USERS = ("admin", "broker")

Resource = Literal["topic", "group", "transactional_id", "broker"]
CLUSTER = "kafka-cluster"


@dataclass(frozen=True, order=True)
class Rule:
    """One access rule: `user` may do `operation` to resources of this kind, of this name, or (`prefixed`) whose names begin with it."""

    user: str
    resource: Resource
    name: str
    prefixed: bool
    operation: str


@dataclass(frozen=True)
class User:
    """A user by its work. Names that end in `*` are prefixes; `*` alone is every resource."""

    name: str
    writes: tuple[str, ...] = ()
    """Topics."""
    reads: tuple[str, ...] = ()
    """Topics."""
    groups: tuple[str, ...] = ()
    """Consumer groups that it may be in."""
    owns: tuple[str, ...] = ()
    """Topics that it makes, writes, reads and configures."""
    transactions: tuple[str, ...] = ()
    """Transactional ids."""
    watches: bool = False
    """Sees everything that is not content: topics, groups, their offsets, the cluster."""


EVENTS = ("agent.heartbeat", "task.*", "persona.*", "consciousness.update", "hormone.*", "graph.changed")
DEAD_LETTER = "dead-letter"

USERS = (
    User(
        "connect",
        writes=("task.*", "persona.*", "hormone.*", "graph.changed", DEAD_LETTER),
        groups=("connect-*",),
        # Its offsets, configurations and states, and the connector's heartbeat (topic.heartbeat.prefix=connect-heartbeat).
        owns=("connect-*",),
        transactions=("connect-*",),
    ),
    # Reads dead letters as well, to replay them.
    User("worker", writes=(DEAD_LETTER,), reads=(*EVENTS, DEAD_LETTER), groups=("stream-*",)),
    User(
        "agent",
        writes=("agent.heartbeat", "consciousness.update"),
        reads=("task.created", "task.completed", "hormone.cascade"),
        groups=("agent-*",),
    ),
    User("monitor", watches=True),
)


def rules(users: tuple[User, ...] = USERS) -> list[Rule]:
    """The access rules of `users`, sorted."""
    return sorted({rule for user in users for rule in _of(user)})


def _of(user: User) -> list[Rule]:
    found: list[Rule] = []

    def allow(resource: Resource, pattern: str, *operations: str) -> None:
        prefixed = pattern.endswith("*") and pattern != "*"
        found.extend(Rule(user.name, resource, pattern.rstrip("*") if prefixed else pattern, prefixed, one) for one in operations)

    for topic in user.writes:
        allow("topic", topic, "WRITE", "DESCRIBE")
    for topic in user.reads:
        allow("topic", topic, "READ", "DESCRIBE")
    for group in user.groups:
        allow("group", group, "READ", "DESCRIBE")
    for topic in user.owns:
        allow("topic", topic, "CREATE", "WRITE", "READ", "DESCRIBE", "DESCRIBE_CONFIGS", "ALTER_CONFIGS")
    for transaction in user.transactions:
        allow("transactional_id", transaction, "WRITE", "DESCRIBE")
    if user.watches:
        allow("topic", "*", "DESCRIBE", "DESCRIBE_CONFIGS")
        allow("group", "*", "DESCRIBE")
        allow("broker", CLUSTER, "DESCRIBE", "DESCRIBE_CONFIGS")
    return found
