"""Heartbeats and consciousness on their way from Kafka to PostgreSQL."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from confluent_kafka import Message

from tests.envelopes import envelope, heartbeat
from tests.exporter.cluster import Cluster
from tests.stream.kit import DEAD, Broker, Worker
from tests.waiting import wait_until

TOPICS = ("agent.heartbeat", "consciousness.update")
Witness = psycopg.Connection[tuple[object, ...]]


def row(witness: Witness, sql: str, *values: object) -> tuple[object, ...]:
    found = witness.execute(sql.encode(), values or None).fetchone()
    assert found
    return found


def settled(broker: Broker, worker: Worker, seconds: float = 30) -> None:
    wait_until(lambda: broker.lag(worker.group, TOPICS) == 0, seconds, f"everything is committed\n{worker.said()}")


def figures(at: datetime, team: str | None, value: float, **more: object) -> tuple[str, str, bytes]:
    data = {"time": at.isoformat(), "team": team, "global_consciousness": value, "global_trust": 0.5, **more}
    return "consciousness.update", team or "federation", envelope("consciousness.update", data)


def letters(broker: Broker, worker: Worker) -> list[tuple[Message, dict[str, str]]]:
    """What this worker set aside, with its headers."""
    found = [(m, {key: value.decode() for key, value in m.headers() or []}) for m in broker.read(DEAD)]
    return [(message, headers) for message, headers in found if headers["consumer"] == worker.group]


def reasons(broker: Broker, worker: Worker) -> list[str]:
    return sorted(headers["reason"] for _, headers in letters(broker, worker))


def test_newest_heartbeat_of_each_agent_is_stored_with_its_task(
    postgres: Worker, broker: Broker, agents: Callable[[int], list[str]], witness: Witness
) -> None:
    one, other = agents(2)
    task = str(row(witness, "INSERT INTO phoenix.tasks (title, description, category) VALUES ('t', 'd', 'c') RETURNING id::text")[0])
    now = datetime.now(UTC)
    broker.send(
        [
            heartbeat(one, at=now - timedelta(seconds=20), idle=now.isoformat()),
            heartbeat(one, at=now, task=task),
            heartbeat(one, at=now - timedelta(seconds=10), idle=now.isoformat()),  # came late
            heartbeat(other, at=now, task=str(uuid.uuid4())),  # its task is gone
        ]
    )
    settled(broker, postgres)
    query = "SELECT last_heartbeat, current_task::text, idle_since FROM phoenix.agents WHERE id = %s"
    assert row(witness, query, one) == (now, task, None)
    assert row(witness, query, other) == (now, None, None)
    assert reasons(broker, postgres) == []


def test_heartbeat_emits_no_event(postgres: Worker, broker: Broker, agents: Callable[[int], list[str]], witness: Witness) -> None:
    one, *_ = agents(3)
    if row(witness, "SELECT to_regclass('phoenix.outbox')")[0] is None:
        pytest.skip("there is no outbox in this schema")
    before = row(witness, "SELECT coalesce(max(seq), 0) FROM phoenix.outbox")
    broker.send([heartbeat(one) for _ in range(50)])
    settled(broker, postgres)
    assert row(witness, "SELECT coalesce(max(seq), 0) FROM phoenix.outbox") == before


def test_last_word_about_a_moment_and_a_team_counts(
    postgres: Worker, broker: Broker, agents: Callable[[int], list[str]], witness: Witness
) -> None:
    agents(0)
    at = datetime.now(UTC) - timedelta(minutes=5)
    broker.send([figures(at, None, 101.0), figures(at, "iota", 102.0, team_coherence=0.7, coherence_average="PT0.25S", new_figure=1)])
    broker.send([figures(at, None, 103.0, active_agents=7)])
    settled(broker, postgres)
    query = (
        "SELECT team::text, global_consciousness, active_agents, team_coherence, extract(epoch FROM coherence_average)::float8 "
        "FROM phoenix.consciousness_timeline ORDER BY team NULLS FIRST"
    )
    assert witness.execute(query.encode()).fetchall() == [(None, 103.0, 7, None, None), ("iota", 102.0, None, 0.7, 0.25)]
    assert reasons(broker, postgres) == []


def test_poison_is_set_aside_with_its_reason_and_the_rest_goes_on(
    postgres: Worker, broker: Broker, agents: Callable[[int], list[str]], witness: Witness
) -> None:
    good, gone = agents(2)
    witness.execute("UPDATE phoenix.agents SET decommissioned_at = now() WHERE id = %s", [gone])
    now = datetime.now(UTC)
    beat = {"agent_id": good, "current_task": None, "idle_since": None}
    topic = "agent.heartbeat"
    stranger = str(uuid.uuid4())
    poison: dict[str, tuple[bytes | None, bytes | None]] = {
        "is not JSON": (b"k", b"{half"),
        "is not UTF-8": (b"k", b'{"event": "\xff\xfe"}'),
        "Expected `object`, got `int`": (b"k", b"5"),
        "Invalid UUID": (b"k", envelope(topic, beat, id="x")),
        "at `$.seq`": (b"k", envelope(topic, beat, seq=2**63)),
        "Expected `datetime` with a timezone component": (b"k", envelope(topic, beat, occurred_at="2026-11-25T04:00:00")),
        "no value": (b"k", None),
        "no key": (None, envelope(topic, beat)),
        "missing required field `occurred_at`": (b"k", envelope(topic, beat, occurred_at=...)),
        "Expected `object`, got `array` - at `$.data`": (b"k", envelope(topic, [1])),
        "Expected `int`, got `str` - at `$.version`": (b"k", envelope(topic, beat, version="1")),
        "version 2 of agent.heartbeat is not known": (b"k", envelope(topic, beat, version=2)),
        "event 'task.created' is not known": (b"k", envelope("task.created", beat)),
        "agent_id is no UUID": (b"k", envelope(topic, beat | {"agent_id": "x"})),
        "occurred_at is in the future": (b"k", envelope(topic, beat, at=now + timedelta(hours=1))),
        f"agent {stranger} is not known": (b"k", envelope(topic, beat | {"agent_id": stranger})),
        f"agent {gone} is decommissioned": (b"k", envelope(topic, beat | {"agent_id": gone})),
    }
    broker.send([(topic, key, value) for key, value in poison.values()])
    broker.send([figures(now, "omega", 1.0), figures(now, None, -1.0), figures(now - timedelta(days=30), None, 1.0)])
    broker.send([figures(now, "iota", 1.0, coherence_average="never")])  # only PostgreSQL can tell
    broker.send([heartbeat(good, at=now), figures(now, None, 105.0)])
    settled(broker, postgres)
    found = reasons(broker, postgres)
    assert len(found) == len(poison) + 4
    rows = ("there is no team", "global_consciousness has to be", "time is not within", "invalid input syntax for type interval")
    for reason in (*poison, *rows):
        assert sum(reason in one for one in found) == 1, (reason, found)
    for message, headers in letters(broker, postgres):
        assert headers["topic"] in TOPICS
        assert headers["partition"].isdecimal() and headers["offset"].isdecimal()
        if "is not JSON" in headers["reason"]:
            assert message.value() == b"{half"
    assert row(witness, "SELECT last_heartbeat FROM phoenix.agents WHERE id = %s", good) == (now,)
    assert row(witness, "SELECT count(*), max(global_consciousness) FROM phoenix.consciousness_timeline") == (1, 105.0)
    wait_until(lambda: postgres.total("phoenix_stream_events_total", 'outcome="rejected"') == len(found), 10, "rejections are counted")


def test_nothing_is_lost_while_the_database_is_away(
    postgres: Worker, broker: Broker, cluster: Cluster, agents: Callable[[int], list[str]], witness: Witness
) -> None:
    ids = agents(50)
    broker.send([heartbeat(one) for one in ids])
    settled(broker, postgres)
    with cluster.frozen():  # connections stay open, nobody answers
        broker.send([heartbeat(random.choice(ids)) for _ in range(5000)])
        last = datetime.now(UTC)
        broker.send([heartbeat(one, at=last) for one in ids])
        wait_until(lambda: postgres.metrics().get('phoenix_stream_store_up{sink="postgres"}') == 0, 20, "the worker says so")
        wait_until(lambda: postgres.total("phoenix_stream_held_events") > 0, 20, "the worker keeps what it has")
        assert postgres.total("phoenix_stream_held_events") <= 600
        time.sleep(8)  # longer than the session timeout: it must still be a member of its group
        assert postgres.total("phoenix_stream_partitions") == 36
    settled(broker, postgres)
    assert row(witness, "SELECT count(*), min(last_heartbeat) FROM phoenix.agents") == (50, last)
    assert postgres.metrics()['phoenix_stream_store_up{sink="postgres"}'] == 1
    assert "revoked" not in postgres.said()
    assert reasons(broker, postgres) == []


def test_kill_after_kill_nothing_is_lost(postgres: Worker, broker: Broker, agents: Callable[[int], list[str]], witness: Witness) -> None:
    ids = agents(200)
    start = datetime.now(UTC) - timedelta(minutes=30)
    moments: list[datetime] = []
    done = threading.Event()

    def load() -> None:
        number = 0
        while not done.is_set():
            number += 1
            at = start + timedelta(milliseconds=number)
            broker.send([heartbeat(one, at=at) for one in ids] + [figures(at, None, 100.0 + number)])
            moments.append(at)
            time.sleep(0.02)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for _ in range(5):
            time.sleep(random.uniform(0.3, 1.2))
            postgres.kill()
            postgres.start()
            wait_until(lambda: postgres.total("phoenix_stream_events_total", 'outcome="applied"') > 0, 20, postgres.said())
    finally:
        done.set()
        thread.join()
    settled(broker, postgres)
    assert row(witness, "SELECT count(*), min(last_heartbeat), max(last_heartbeat) FROM phoenix.agents") == (200, moments[-1], moments[-1])
    stored = {r[0] for r in witness.execute('SELECT "time" FROM phoenix.consciousness_timeline')}
    assert stored == set(moments)
    assert reasons(broker, postgres) == []


def test_stop_finishes_the_batch_and_the_next_start_repeats_nothing(
    postgres: Worker, broker: Broker, agents: Callable[[int], list[str]]
) -> None:
    ids = agents(20)
    broker.send([heartbeat(random.choice(ids)) for _ in range(20_000)])
    wait_until(lambda: postgres.total("phoenix_stream_events_total", 'outcome="applied"') > 500, 20, "it works")
    started = time.monotonic()
    assert postgres.stop(within_s=5) == 0
    assert time.monotonic() - started < 5
    left = broker.lag(postgres.group, TOPICS)
    postgres.start()
    settled(broker, postgres)
    wait_until(lambda: postgres.total("phoenix_stream_events_total", 'outcome="applied"') == left, 10, "what was left was applied once")


def test_stop_while_the_database_is_away_is_quick_and_loses_nothing(
    postgres: Worker, broker: Broker, cluster: Cluster, agents: Callable[[int], list[str]], witness: Witness
) -> None:
    (one,) = agents(1)
    broker.send([heartbeat(one)])
    settled(broker, postgres)
    last = datetime.now(UTC)
    cluster.stop()
    try:
        broker.send([heartbeat(one, at=last)])
        wait_until(lambda: postgres.metrics().get('phoenix_stream_store_up{sink="postgres"}') == 0, 20, "the worker says so")
        assert postgres.stop(within_s=5) == 0
    finally:
        cluster.start()
    postgres.start()
    settled(broker, postgres)
    with cluster.admin() as connection:
        assert row(connection, "SELECT last_heartbeat FROM phoenix.agents") == (last,)
