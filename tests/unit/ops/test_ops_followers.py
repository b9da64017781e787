"""What is brought back after what was lost, in which order, and what is said when a part of it fails."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from deploys.lib.settings import HostSettings, KafkaSettings
from ops import followers, remote
from ops.errors import Failed
from ops.steps import Steps
from ops.terminal import Terminal

ALL = {"kafka", "connect", "stream", "redis", "neo4j"}
SEND, WAIT, REDIS, GRAPH = (way.by_hand for way in followers.WAYS)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ways that were gone, each by its command; none of them does anything."""
    gone: list[str] = []

    def noting(way: followers.Way) -> followers.Way:
        return replace(way, do=lambda platform, steps: gone.append(way.by_hand))

    monkeypatch.setattr(followers, "WAYS", tuple(map(noting, followers.WAYS)))
    return gone


def platform(groups: set[str]) -> Any:
    return SimpleNamespace(group=lambda name: [name] if name in groups else [])


@pytest.mark.parametrize(
    ("there", "lost", "expected"),
    [
        pytest.param(ALL, followers.EVERYTHING, [SEND, WAIT, REDIS, GRAPH], id="everything"),
        pytest.param(ALL, {"postgresql", "redis"}, [WAIT, REDIS], id="redis"),
        pytest.param(ALL, {"kafka"}, [SEND, WAIT], id="kafka: what it told is in the stores already"),
        pytest.param(ALL, {"postgresql", "gateway"}, [], id="a host of the database alone"),
        pytest.param({"postgresql"}, followers.EVERYTHING, [], id="a platform without followers"),
        pytest.param({"redis"}, followers.EVERYTHING, [REDIS], id="a store without events"),
    ],
)
def test_what_was_lost_says_what_is_done(done: list[str], there: set[str], lost: set[str], expected: list[str]) -> None:
    assert followers.bring_back(platform(there), lost, Steps(Terminal(as_json=True))) == []
    assert done == expected


def test_a_part_that_fails_is_named_with_its_command_and_the_others_are_done(done: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def away(platform: Any, steps: Steps) -> None:
        raise Failed("Redis is away: see its log.")

    ways = tuple(replace(way, do=away) if way.by_hand == REDIS else way for way in followers.WAYS)
    monkeypatch.setattr(followers, "WAYS", ways)
    left = followers.bring_back(platform(ALL), followers.EVERYTHING, Steps(Terminal(as_json=True)))
    assert left == ["Redis is away: see its log. What is left to do: './phoenix hormones rebuild'."]
    assert done == [SEND, WAIT, GRAPH]


METRICS = """\
# TYPE phoenix_kafka_consumer_lag gauge
phoenix_kafka_consumer_lag{group="stream-redis",topic="hormone.cascade"} 3
phoenix_kafka_consumer_lag{group="stream-neo4j",topic="graph.changed"} 0
phoenix_kafka_consumer_lag{group="agent-7",topic="task.created"} 9
phoenix_kafka_consumer_lag{group="stream-old",topic="hormone.cascade"} 9
# TYPE phoenix_kafka_consumer_committed gauge
phoenix_kafka_consumer_committed{group="stream-redis",topic="hormone.cascade"} 40
phoenix_kafka_consumer_committed{group="agent-7",topic="task.created"} 1
"""


def test_workers_have_caught_up_once_they_are_where_the_end_was_whatever_comes_after(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([METRICS, METRICS.replace("} 40", "} 42"), METRICS.replace("} 40", "} 43")])
    monkeypatch.setattr(remote, "run", lambda *arguments, **options: next(looks))
    monkeypatch.setattr(followers, "LOOKS_APART_S", 0)
    host = {HostSettings: SimpleNamespace(address="10.1.1.1"), KafkaSettings: SimpleNamespace(metrics_port=9404)}
    followers._caught_up(SimpleNamespace(group=lambda name: [host]), Steps(Terminal(as_json=True)))  # type: ignore[arg-type]
    assert next(looks, None) is None
