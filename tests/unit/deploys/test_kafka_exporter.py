"""What Kafka's exporter says: lag, drift, and nothing old while the cluster is away."""

from __future__ import annotations

import pytest
from kafka_exporter import Seen, Watch, drift, lag, metrics, shown, topic_line

DECLARED = {"t": {"partitions": 2, "copies": 1, "retention_ms": 3_600_000}}


def seen(**more: object) -> Seen:
    values: dict[str, object] = {
        "brokers": 1,
        "partitions": {"t": 2},
        "copies": {"t": 1},
        "retention_ms": {"t": 3_600_000},
        "begins": {("t", 0): 10, ("t", 1): 0},
        "ends": {("t", 0): 100, ("t", 1): 50},
        "committed": {},
    }
    return Seen(**(values | more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("offsets", "behind"),
    [
        ({("t", 0): 100, ("t", 1): 50}, 0),
        ({("t", 0): 90, ("t", 1): 45}, 15),
        ({("t", 0): 90}, 60),  # of the other partition it has read nothing
        ({("t", 0): 2, ("t", 1): 50}, 90),  # what was deleted meanwhile cannot be read any more
        ({("t", 0): 120, ("t", 1): 50}, 0),  # the end was asked a moment before
    ],
)
def test_lag_is_what_was_not_committed(offsets: dict[tuple[str, int], int], behind: int) -> None:
    assert lag(seen(committed={"g": offsets})) == {("g", "t"): behind}


def test_a_group_that_committed_nothing_has_no_lag() -> None:
    assert lag(seen(committed={"g": {}})) == {}


def test_figures_are_in_prometheus_format() -> None:
    text = metrics(seen(committed={'a"b': {("t", 0): 90, ("t", 1): 45}}), DECLARED)
    assert "phoenix_kafka_up 1\n" in text
    assert 'phoenix_kafka_consumer_lag{group="a\\"b",topic="t"} 15\n' in text
    assert 'phoenix_kafka_consumer_committed{group="a\\"b",topic="t"} 135\n' in text
    assert 'phoenix_kafka_topic_end_offset{topic="t"} 150\n' in text
    assert 'phoenix_kafka_topic_drift{topic="t"} 0\n' in text


def test_without_a_cluster_there_are_no_figures_but_that() -> None:
    samples = [line for line in metrics(None, DECLARED).splitlines() if not line.startswith("#")]
    assert samples == ["phoenix_kafka_up 0"]
    assert topic_line("t", DECLARED["t"], None) == (503, "Kafka does not answer\n")


def test_figures_grow_old() -> None:
    watch = Watch({}, "")
    watch._seen = seen()
    assert watch.seen is not None
    watch._seen = seen(at=0.0)
    assert watch.seen is None


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({}, ""),
        ({"partitions": {}}, "is missing"),
        ({"partitions": {"t": 3}}, "has 3 partitions, not 2"),
        ({"copies": {"t": 2}}, "has 2 copies, not 1"),
        ({"retention_ms": {"t": 60_000}}, "keeps events for 60 s, not 1 h"),
    ],
)
def test_drift_is_said_in_words(more: dict[str, object], fault: str) -> None:
    assert drift("t", DECLARED["t"], seen(**more)) == fault
    status, line = topic_line("t", DECLARED["t"], seen(**more))
    assert (status, line) == ((409, f"{fault}\n") if fault else (200, "2 partitions, kept 1 h\n"))


@pytest.mark.parametrize(("ms", "text"), [(86_400_000, "1 d"), (129_600_000, "36 h"), (90_000, "90 s"), (1500, "1500 ms"), (0, "0 ms")])
def test_times_are_for_people(ms: int, text: str) -> None:
    assert shown(ms) == text
