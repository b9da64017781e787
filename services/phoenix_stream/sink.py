"""What a sink is: the one interface between the runner, which knows Kafka, and a store, which knows nothing of it.

A sink gets batches of events and makes them visible in its store. The runner takes care of everything else: reading, decoding,
retrying, dead letters, commits, lag, metrics, stopping.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

BATCH = 500
"""Events of one batch, at most."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event, decoded and checked: the envelope of docs/stream.md, and where it was read."""

    topic: str
    partition: int
    offset: int
    key: str
    event: str
    """Name of the event, "agent.heartbeat"; on most topics the topic's own name."""
    version: int
    seq: int | None
    """Grows with every change of one aggregate; None where the producer counts nothing (agents)."""
    occurred_at: datetime
    """With time zone."""
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rejected:
    """An event that this store can never take, and why, in one line. It goes to the dead-letter topic, and the stream goes on."""

    event: Event
    reason: str


class Unavailable(Exception):
    """The store cannot be reached or cannot work now. The runner keeps the batch, pauses, and tries again, for as long as it takes."""


class Sink(Protocol):
    """Makes events visible in one store.

    Idempotent: after a crash the same events come again, also in batches cut differently. Events of one key come in order of their
    offsets; of different topics in no order, so what several topics write is guarded by `seq`.
    """

    name: str
    """Name of the unit's instance and of the consumer group, "stream-<name>"."""
    topics: tuple[str, ...]
    versions: Mapping[str, int]
    """Events this sink understands, with the newest version of each: {"agent.heartbeat": 1}. Others are dead letters."""

    def apply(self, events: Sequence[Event]) -> Sequence[Rejected]:
        """Apply 1 to BATCH events, all of them or none, and return once the store has them for good.

        Returns those that the store can never take; the others are applied. Raises Unavailable when the store is away: nothing is
        lost, the same events come again. Any other exception is a fault of the sink: the batch is then given one event at a time,
        and an event that alone still fails becomes a dead letter.
        """

    def ping(self) -> None:
        """Ask the store for a sign of life; called when there is nothing to apply. Raises Unavailable."""

    def close(self) -> None:
        """Let go of the store; called once, at the end."""


Credential = Callable[[str], str]
"""Gives the password of a name, read anew each time. Raises OSError."""

Factory = Callable[[Mapping[str, Any], Credential], Sink]
"""Each module of phoenix_stream.sinks has `open_sink(settings, credential)` of this type: `settings` is the section `store` of the worker's
configuration file, `credential` reads one of the unit's credentials. It does not connect: that is the first apply()'s, or ping()'s.
Raises ValueError naming the setting that cannot be used."""
