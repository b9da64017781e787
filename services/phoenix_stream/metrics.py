"""What a worker counts: phoenix_stream_*, each with the label `sink`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_EVENTS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


class Metrics:
    """The metrics of one worker, in a registry of their own."""

    def __init__(self, sink: str) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._sink = sink
        one, topic = ["sink"], ["sink", "topic"]
        self.events = Counter(
            "phoenix_stream_events", "Events read, by what became of them: applied or rejected.", [*topic, "outcome"], registry=registry
        )
        self.end_to_end = Histogram(
            "phoenix_stream_end_to_end_seconds",
            "From the moment an event tells (occurred_at) until its store had it.",
            topic,
            buckets=_SECONDS,
            registry=registry,
        )
        self.lag = Gauge(
            "phoenix_stream_lag_events", "Events of the partition that are not applied yet.", [*topic, "partition"], registry=registry
        )
        self.partitions = Gauge("phoenix_stream_partitions", "Partitions this worker has of the topic.", topic, registry=registry)
        self.batch_events = Histogram(
            "phoenix_stream_batch_events", "Events applied at once.", one, buckets=_EVENTS, registry=registry
        ).labels(sink)
        self.batch_seconds = Histogram(
            "phoenix_stream_batch_seconds", "Time the store took for a batch.", one, buckets=_SECONDS, registry=registry
        ).labels(sink)
        self.store_up = Gauge("phoenix_stream_store_up", "Whether the store worked when last asked.", one, registry=registry).labels(sink)
        self.kafka_up = Gauge("phoenix_stream_kafka_up", "Whether the brokers answered when asked.", one, registry=registry).labels(sink)
        self.held = Gauge("phoenix_stream_held_events", "Events kept while the store is away.", one, registry=registry).labels(sink)
        self.retries = Counter("phoenix_stream_retries", "Batches tried again because the store was away.", one, registry=registry).labels(
            sink
        )
        self.commit_failures = Counter(
            "phoenix_stream_commit_failures", "Commits that the brokers refused; what they told is applied again.", one, registry=registry
        ).labels(sink)

    def topic(self, topic: str) -> None:
        """Make the topic's series, so that a first event is an increase."""
        for outcome in ("applied", "rejected"):
            self.events.labels(self._sink, topic, outcome)
        self.end_to_end.labels(self._sink, topic)
        self.partitions.labels(self._sink, topic).set(0)
