"""Kafka on one side, a sink on the other: reads, decodes, applies, sets aside, commits; keeps order, loses nothing.

The order of things is the promise. A batch is applied; then its dead letters are with the brokers for good; then its offsets are committed,
a few times a second, because each commit costs the brokers as much as a batch. Killed at any moment, the worker reads again what was not
committed, and sinks are idempotent. One thread does it all, so that events of one partition are applied in their order.

While the store is away the batch is kept, all partitions are paused (nothing more is fetched) and the consumer is polled on, so that it
stays in its group.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from phoenix_exporter import journal

from phoenix_stream.config import Batches
from phoenix_stream.envelope import Malformed, decode
from phoenix_stream.kafka import said
from phoenix_stream.metrics import Metrics
from phoenix_stream.sink import Event, Rejected, Sink, Unavailable

POLL_S = 0.25
PING_EVERY_S = 5.0
COMMIT_EVERY_S = 0.25


class Letters(Protocol):
    """Where dead letters go."""

    def send(self, letters: Sequence[tuple[Message, str]]) -> None:
        """Return once they are kept for good. Raises Unavailable."""


class Stopped(Exception):
    """The worker was asked to stop while it waited for the store."""


@dataclass(frozen=True, slots=True)
class _Item:
    message: Message
    event: Event | None
    reason: str = ""
    """Why it is no event."""


class BackOff:
    """Pauses between tries: doubled each time up to `most_s`, less a random part of up to a half: workers do not come all at once."""

    def __init__(self, first_s: float, most_s: float) -> None:
        self._first, self._most = first_s, most_s
        self._tries = 0

    def next_s(self) -> float:
        """The next pause, in seconds."""
        pause = min(self._most, self._first * 2.0 ** min(self._tries, 20))
        self._tries += 1
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


class Runner:
    """Runs one sink until it is stopped."""

    def __init__(
        self,
        sink: Sink,
        consumer: Consumer,
        letters: Letters,
        metrics: Metrics,
        batches: Batches,
        *,
        turned: Callable[[], None] = lambda: None,
    ) -> None:
        """`turned` is called at least every few seconds while all is well: the watchdog's sign of life."""
        self._sink, self._consumer, self._letters, self._metrics, self._batches = sink, consumer, letters, metrics, batches
        self._turned = turned
        self._stopping = False
        self._paused = False
        self._held: list[_Item] = []
        self._next: dict[tuple[str, int], int] = {}
        """The offset after the last one applied, of each partition that is ours."""
        self._committed: dict[tuple[str, int], int] = {}
        """What of it the brokers were told."""
        self._committed_at = 0.0
        self._store_asked_at = 0.0
        self._store_up = False
        for topic in sink.topics:
            metrics.topic(topic)

    # ---------------------------------------------------------------------------------------------------------------- from outside
    def stop(self) -> None:
        """Finish the batch at hand, commit, and return from run(). May be called by a signal handler."""
        self._stopping = True

    def applied(self) -> dict[tuple[str, int], int]:
        """For each partition that is ours the offset after the last one applied; for other threads, so a copy."""
        return dict(self._next)

    def ready(self) -> bool:
        """Whether partitions are ours and the store works."""
        return bool(self._next) and self._store_up

    def run(self) -> None:
        """Work until stop(). Raises KafkaException when the consumer cannot go on; nothing is lost by starting anew."""
        self._consumer.subscribe(list(self._sink.topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
        try:
            while not self._stopping:
                self._turned()
                self._held += self._read()
                if self._held:
                    self._deliver()
                    continue
                self._commit()
                if time.monotonic() - self._store_asked_at >= PING_EVERY_S:
                    self._ping()
        except Stopped:
            journal.write("stopped while the store was away", held=len(self._held))
        finally:
            self._leave()

    # ---------------------------------------------------------------------------------------------------------------- reading
    def _read(self) -> list[_Item]:
        """The next events: what is there at once when much is there, else what comes within the linger of the first."""
        first = self._consumer.poll(POLL_S)
        if first is None:
            return []
        more = self._consumer.consume(self._batches.events - 1, self._batches.linger_ms / 1000) if self._batches.events > 1 else []
        return list(self._items([first, *more]))

    def _items(self, messages: Sequence[Message]) -> Iterator[_Item]:
        for message in messages:
            if (error := message.error()) is not None:
                self._complain(error)
                continue
            topic, partition, offset = str(message.topic()), int(message.partition() or 0), int(message.offset() or 0)
            try:
                event = decode((topic, partition, offset), message.key(), message.value(), self._sink.versions)
                yield _Item(message, event)
            except Malformed as reason:
                yield _Item(message, None, str(reason))

    def _complain(self, error: KafkaError) -> None:
        # Shut out: another has our name, or the brokers think so after a restart. The consumer says it once, and reads nothing any more.
        if error.fatal() or error.code() == KafkaError._FATAL:
            raise KafkaException(error)
        said.throttled(f"kafka {error.name()}", reason=error.str())

    # ---------------------------------------------------------------------------------------------------------------- applying
    def _deliver(self) -> None:
        """Apply what is held, however long it takes. Raises Stopped."""
        back_off = BackOff(self._batches.first_s, self._batches.most_s)
        while self._held:
            try:
                self._once(self._held[: self._batches.events])
                back_off = BackOff(self._batches.first_s, self._batches.most_s)
            except Unavailable as reason:
                self._metrics.retries.inc()
                self._away(str(reason))
                if self._stopping:
                    raise Stopped from None
                self._pause()
                self._wait(back_off.next_s())
        self._resume()

    def _once(self, batch: Sequence[_Item]) -> None:
        """Apply one batch, set its dead letters aside, commit. Raises Unavailable; then everything may be done again."""
        events = [item.event for item in batch if item.event is not None]
        rejected: dict[tuple[str, int, int], str] = {}
        if events:
            started = time.monotonic()
            rejected = {(one.event.topic, one.event.partition, one.event.offset): one.reason for one in self._apply(events)}
            self._metrics.batch_seconds.observe(time.monotonic() - started)
            self._metrics.batch_events.observe(len(events))
            self._back()
        applied_at = datetime.now(UTC)
        letters = []
        for item in batch:
            reason = item.reason if item.event is None else rejected.get((item.event.topic, item.event.partition, item.event.offset))
            if reason is not None:
                letters.append((item.message, reason))
        if letters:
            self._letters.send(letters)
            first, reason = letters[0]
            said.throttled(
                "set aside", topic=first.topic(), partition=first.partition(), offset=first.offset(), reason=reason, together=len(letters)
            )
        for item in batch:
            self._next[str(item.message.topic()), int(item.message.partition() or 0)] = int(item.message.offset() or 0) + 1
        self._commit()
        self._count(batch, rejected, applied_at)
        del self._held[: len(batch)]
        self._metrics.held.set(len(self._held) if self._paused else 0)
        self._turned()

    def _apply(self, events: Sequence[Event]) -> list[Rejected]:
        """Give the sink the events. What makes it fail, without saying that its store is away, is found by halving."""
        try:
            return list(self._sink.apply(events))
        except Unavailable:
            raise
        except Exception as fault:  # whatever a sink's fault is, no partition may stand still for it
            if len(events) == 1:
                return [Rejected(events[0], f"{type(fault).__name__}: {' '.join(str(fault).split())[:500]}")]
            middle = len(events) // 2
            return self._apply(events[:middle]) + self._apply(events[middle:])

    def _commit(self, *, now: bool = False) -> None:
        """Commit what was applied since the last time, when it is time to. With `now` everything, and the brokers' word is waited for."""
        if not now and time.monotonic() - self._committed_at < COMMIT_EVERY_S:
            return
        known = {} if now else self._committed
        offsets = [TopicPartition(*one, offset) for one, offset in self._next.items() if offset > known.get(one, 0)]
        if not offsets:
            return
        self._committed_at = time.monotonic()
        self._committed = dict(self._next)
        try:
            self._consumer.commit(offsets=offsets, asynchronous=not now)
        except KafkaException as error:  # they come again, which is all there is to it
            self._metrics.commit_failures.inc()
            said.throttled("commit failed", reason=error)

    def _count(self, batch: Sequence[_Item], rejected: dict[tuple[str, int, int], str], applied_at: datetime) -> None:
        name, counts = self._sink.name, dict[tuple[str, str], int]()
        delays = {topic: self._metrics.end_to_end.labels(name, topic) for topic in {str(item.message.topic()) for item in batch}}
        for item in batch:
            topic = str(item.message.topic())
            good = item.event is not None and (topic, item.event.partition, item.event.offset) not in rejected
            counts[topic, "applied" if good else "rejected"] = counts.get((topic, "applied" if good else "rejected"), 0) + 1
            if good and item.event is not None:
                took = (applied_at - item.event.occurred_at).total_seconds()
                delays[topic].observe(max(0.0, took))
        for (topic, outcome), number in counts.items():
            self._metrics.events.labels(name, topic, outcome).inc(number)

    # ---------------------------------------------------------------------------------------------------------------- a store that is away
    def _ping(self) -> None:
        try:
            self._sink.ping()
            self._back()
        except Unavailable as reason:
            self._away(str(reason))

    def _away(self, reason: str) -> None:
        self._store_asked_at = time.monotonic()
        self._store_up = False
        self._metrics.store_up.set(0)
        self._metrics.held.set(len(self._held))
        said.throttled("store is away", sink=self._sink.name, held=len(self._held), reason=reason)

    def _back(self) -> None:
        self._store_asked_at = time.monotonic()
        self._store_up = True
        self._metrics.store_up.set(1)

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._consumer.pause(self._consumer.assignment())

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._consumer.resume(self._consumer.assignment())
            journal.write("store is back", sink=self._sink.name)
        self._metrics.held.set(0)

    def _wait(self, pause_s: float) -> None:
        """Let time go by, as a member of the group. Raises Stopped."""
        until = time.monotonic() + pause_s
        while (left := until - time.monotonic()) > 0:
            if self._stopping:
                raise Stopped
            self._turned()
            message = self._consumer.poll(min(left, POLL_S))
            if message is not None:  # fetched before its partition was paused
                self._held += self._items([message])

    # ---------------------------------------------------------------------------------------------------------------- partitions
    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.assign(partitions)
        if self._paused:
            consumer.pause(partitions)
        positions = {(p.topic, p.partition): 0 for p in partitions}
        try:
            positions |= {(p.topic, p.partition): max(0, p.offset) for p in consumer.committed(partitions, timeout=5)}
        except KafkaException as error:  # only the lag is told wrongly, until the first batch
            said.throttled("committed offsets unknown", reason=error)
        self._next, self._committed = positions, dict(positions)
        self._tell_partitions()
        journal.write("partitions assigned", partitions=len(partitions))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """They will be another's, who begins with what we have committed."""
        if not self._stopping:
            self._commit(now=True)
        self._on_lost(consumer, partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """They are another's now; what is held of them must not be applied after that."""
        gone = {(p.topic, p.partition) for p in partitions}
        self._held = [item for item in self._held if (item.message.topic(), item.message.partition()) not in gone]
        self._next = {one: offset for one, offset in self._next.items() if one not in gone}
        self._tell_partitions()
        if partitions and not self._stopping:
            journal.write("partitions revoked", partitions=len(partitions))

    def _tell_partitions(self) -> None:
        for topic in self._sink.topics:
            self._metrics.partitions.labels(self._sink.name, topic).set(sum(1 for one in self._next if one[0] == topic))

    def _leave(self) -> None:
        """Commit for good what was applied, and close."""
        self._commit(now=True)
        self._consumer.close()
        self._sink.close()
