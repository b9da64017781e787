"""The worker's side of Kafka: how it is reached, where dead letters go, and how far behind the worker is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from phoenix_exporter import journal

from phoenix_stream.config import Kafka
from phoenix_stream.metrics import Metrics
from phoenix_stream.sink import Credential, Unavailable

# What the brokers take of one message, and what is kept free for the headers of a dead letter.
LARGEST_BYTES = 1_048_576
HEADERS_BYTES = 4096
DELIVERY_S = 10.0
LAG_EVERY_S = 5.0
SAME_LINE_EVERY_S = 30.0


def connection(kafka: Kafka, credential: Credential) -> dict[str, Any]:
    """Settings of every client. Raises OSError when the password cannot be read."""
    settings: dict[str, Any] = {
        "bootstrap.servers": ",".join(kafka.bootstrap),
        "client.id": f"phoenix-stream-{kafka.instance}",
        "socket.keepalive.enable": True,
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 2000,
        "allow.auto.create.topics": False,
        "logger": _logger(),
    }
    if kafka.user is not None:
        settings |= {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": kafka.user,
            "sasl.password": credential(kafka.password),
            "ssl.ca.location": str(kafka.ca),
            "ssl.endpoint.identification.algorithm": "https",
        }
    return settings


def consumer(kafka: Kafka, credential: Credential, group: str) -> Consumer:
    """A consumer that commits what it is told to and nothing else, and whose partitions outlast a restart."""
    return Consumer(
        connection(kafka, credential)
        | {
            "group.id": group,
            "group.instance.id": f"{group}-{kafka.instance}",
            "session.timeout.ms": kafka.session_timeout_ms,
            "heartbeat.interval.ms": max(100, kafka.session_timeout_ms // 4),
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # A group that has never committed begins with the oldest event there is: at least once from the first day on.
            "auto.offset.reset": "earliest",
            "fetch.error.backoff.ms": 100,
            # What is read ahead and not yet given out is bounded, whatever the backlog.
            "queued.min.messages": 5000,
            "queued.max.messages.kbytes": 16_384,
            "partition.assignment.strategy": "range",
        }
    )


class DeadLetters:
    """Sets messages aside, as they are, with the reason and where they were read."""

    def __init__(self, kafka: Kafka, credential: Credential, group: str) -> None:
        self._topic, self._group = kafka.dead_letters, group
        self._producer = Producer(
            connection(kafka, credential)
            | {
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.max.bytes": LARGEST_BYTES,
                "message.timeout.ms": int(DELIVERY_S * 1000),
            }
        )

    def send(self, letters: Iterable[tuple[Message, str]]) -> None:
        """Return once the brokers have all of them for good. Raises Unavailable when they have not: then give all of them again."""
        failures: list[str] = []
        waiting = 0

        def delivered(error: KafkaError | None, message: Message) -> None:
            nonlocal waiting
            waiting -= 1
            if error is not None:
                failures.append(error.str())

        for message, reason in letters:
            value, headers = message.value(), self._headers(message, reason)
            size = len(value or b"") + len(message.key() or b"")
            if size > LARGEST_BYTES - HEADERS_BYTES:
                headers.append(("truncated", str(size).encode()))
                value = (value or b"")[: LARGEST_BYTES - 2 * HEADERS_BYTES - min(len(message.key() or b""), HEADERS_BYTES)]
            key = message.key()
            while True:
                try:
                    self._producer.produce(
                        self._topic, value=value, key=key[:HEADERS_BYTES] if key else key, headers=headers, on_delivery=delivered
                    )
                    waiting += 1
                    break
                except BufferError:
                    self._producer.poll(0.1)
                except KafkaException as error:
                    raise Unavailable(f"topic {self._topic}: {error}") from error
        until = time.monotonic() + DELIVERY_S + 1
        while waiting and time.monotonic() < until:
            self._producer.poll(0.1)
        if failures or waiting:
            raise Unavailable(f"topic {self._topic}: {failures[0] if failures else 'no answer'}")

    def _headers(self, message: Message, reason: str) -> list[tuple[str, bytes]]:
        return [
            ("reason", reason.encode()[:1000]),
            ("topic", str(message.topic()).encode()),
            ("partition", str(message.partition()).encode()),
            ("offset", str(message.offset()).encode()),
            ("consumer", self._group.encode()),
        ]


class Lag(threading.Thread):
    """Asks the brokers every few seconds how far each partition goes; says how much of it is not applied yet."""

    def __init__(
        self, sink: str, settings: Mapping[str, Any], applied: Callable[[], Mapping[tuple[str, int], int]], metrics: Metrics
    ) -> None:
        """`applied` gives the next offset of each partition that the worker has."""
        super().__init__(daemon=True, name="lag")
        self._sink, self._settings, self._applied, self._metrics = sink, dict(settings), applied, metrics
        self._known: set[tuple[str, int]] = set()
        self.ended = threading.Event()

    def run(self) -> None:
        admin = AdminClient(self._settings)
        while not self.ended.wait(LAG_EVERY_S):
            admin.poll(0)
            try:
                ends = self._ends(admin, list(self._applied()))
            except KafkaException as error:
                self._metrics.kafka_up.set(0)
                said.throttled("brokers do not answer", reason=error)
                admin = AdminClient(self._settings)  # one that knew a broker before it was killed is refused for ever: its epoch is old
                continue
            self._metrics.kafka_up.set(1)
            self._tell(ends)

    def _ends(self, admin: AdminClient, partitions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], tuple[int, int]]:
        """First offset and end of each partition."""
        if not partitions:
            admin.list_topics(timeout=LAG_EVERY_S)  # nothing to ask for, but somebody wants to know whether they answer
            return {}
        asked = [
            admin.list_offsets({TopicPartition(*one): spec for one in partitions}, request_timeout=LAG_EVERY_S)
            for spec in (OffsetSpec.earliest(), OffsetSpec.latest())
        ]
        first, end = ({(p.topic, p.partition): f.result(2 * LAG_EVERY_S).offset for p, f in answers.items()} for answers in asked)
        return {one: (first[one], end[one]) for one in partitions}

    def _tell(self, ends: Mapping[tuple[str, int], tuple[int, int]]) -> None:
        applied = self._applied()
        for one in self._known - set(applied):
            self._metrics.lag.remove(self._sink, one[0], str(one[1]))
        self._known = set(applied) & set(ends)
        for one in self._known:
            first, end = ends[one]
            # Never applied anything: everything that is there. What retention has removed can no longer be applied.
            position = max(applied[one], first)
            self._metrics.lag.labels(self._sink, one[0], str(one[1])).set(max(0, end - position))


class _Said:
    """Says the same thing once, and again only after a while: a broker that is away would fill the journal."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}

    def throttled(self, event: str, *, level: str = "warning", **values: object) -> None:
        now = time.monotonic()
        if now - self._at.get(event, -SAME_LINE_EVERY_S) >= SAME_LINE_EVERY_S:
            self._at[event] = now
            journal.write(event, level=level, **values)


said = _Said()


class _Journal(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else "warning" if record.levelno >= logging.WARNING else "info"
        said.throttled(f"kafka {record.getMessage().split(':', 1)[0]}", level=level, message=record.getMessage())


def _logger() -> logging.Logger:
    logger = logging.getLogger("phoenix_stream.kafka")
    if not logger.handlers:
        logger.addHandler(_Journal())
        logger.propagate = False
    return logger
