"""Levels in Redis, written and compared: each promise of services/phoenix_stream/hormones.py, asked with HGETALL and SQL."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from phoenix_stream import hormones

AT = datetime(2026, 11, 25, 4, 0, 0, 123456, UTC)
REST = {"dopamine": 1.0, "oxytocin": 1.0, "adrenaline": 1.0, "cortisol": 0.3}
ONE = "11111111-1111-4111-8111-111111111111"

Database = psycopg.Connection[Any]


def agents(database: Database, number: int) -> list[str]:
    rows = database.execute(
        "INSERT INTO phoenix.agents (codename, team, role, consciousness_vector) "
        "SELECT gen_random_uuid()::text, 'iota', 'scout', '{}' FROM generate_series(1, %s) RETURNING id::text",
        [number],
    )
    return [str(row[0]) for row in rows]


def levels(client: Any, agent: str) -> dict[str, float]:
    held = client.hgetall(f"hormone:{{{agent}}}")
    return {name: float(held[name]) for name in REST} if held else {}


def found(client: Any, database: Database, **more: Any) -> list[tuple[str, str]]:
    return [(one.kind, one.agent) for one in hormones.check(client, database, settle_s=0, **more).differences]


def test_the_layout_is_as_documented(client: Any) -> None:
    assert hormones.write(client, [hormones.change(ONE, 7, {**REST, "dopamine": 1}, AT)]) == 1
    assert client.keys() == ["hormone:{11111111-1111-4111-8111-111111111111}"]
    assert client.hgetall(client.keys()[0]) == {
        "dopamine": "1.0",
        "oxytocin": "1.0",
        "adrenaline": "1.0",
        "cortisol": "0.3",
        "seq": "7",
        "updated_at": "2026-11-25T04:00:00.123456Z",
    }
    assert client.ttl(client.keys()[0]) == -1, "no time to live"


def test_an_event_that_comes_late_or_twice_changes_nothing(client: Any) -> None:
    new, old = hormones.change(ONE, 12, {**REST, "dopamine": 2.0}, AT), hormones.change(ONE, 9, REST, AT)
    assert hormones.write(client, [new]) == 1
    assert hormones.write(client, [old, new, old]) == 0
    assert levels(client, ONE)["dopamine"] == 2.0
    # As numbers, not as texts.
    assert hormones.write(client, [hormones.change(ONE, 100, REST, AT)]) == 1


def test_of_one_batch_the_newest_wins(client: Any) -> None:
    changes = [hormones.change(ONE, seq, {**REST, "cortisol": seq / 10}, AT) for seq in (1, 3, 2)]
    assert hormones.write(client, changes) == 2
    assert levels(client, ONE)["cortisol"] == 0.3


def test_numbers_survive_as_they_are(client: Any) -> None:
    odd = {"dopamine": 0.1 + 0.2, "oxytocin": -1e-7, "adrenaline": 999999.999999, "cortisol": 0}
    hormones.write(client, [hormones.change(ONE, 2**52, odd, AT)])
    assert levels(client, ONE) == odd
    assert client.hget(client.keys()[0], "seq") == str(2**52)


@pytest.mark.parametrize(
    "broken", [{}, {"dopamine": 1}, {**REST, "cortisol": "0.3"}, {**REST, "cortisol": True}, {**REST, "cortisol": float("nan")}]
)
def test_levels_that_are_not_four_numbers_are_refused(broken: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="four numbers"):
        hormones.change(ONE, 1, broken, AT)


def test_an_agent_that_is_no_uuid_is_refused() -> None:
    with pytest.raises(ValueError):
        hormones.change("x} y", 1, REST, AT)


def test_what_a_stranger_left_at_a_key_does_not_stop_the_stream(client: Any) -> None:
    client.set(f"hormone:{{{ONE}}}", "text")
    assert hormones.write(client, [hormones.change(ONE, 1, REST, AT)]) == 1
    assert levels(client, ONE) == REST


def test_a_rebuild_brings_everything_and_a_second_one_writes_nothing(client: Any, database: Database) -> None:
    made = agents(database, 1234)
    first = hormones.rebuild(client, database)
    assert (first.agents, first.written, first.same, first.newer, first.retired) == (1234, 1234, 0, 0, 0)
    assert found(client, database) == []
    seqs = dict(database.execute("SELECT aggregateid, seq FROM phoenix.outbox WHERE type = 'hormone.cascade'").fetchall())
    assert {agent: int(client.hget(hormones.key(agent), "seq")) for agent in made} == seqs
    second = hormones.rebuild(client, database)
    assert (second.written, second.same) == (0, 1234)


def test_a_check_names_what_differs(client: Any, database: Database) -> None:
    right, wrong, lost, gone, ahead = agents(database, 5)
    hormones.rebuild(client, database)
    client.hset(hormones.key(wrong), "cortisol", "0.4")
    client.delete(hormones.key(lost))
    client.hset(hormones.key(ahead), "seq", 10**9)
    database.execute("UPDATE phoenix.agents SET decommissioned_at = now() WHERE id = %s", [gone])
    assert set(found(client, database)) == {("differs", wrong), ("missing", lost), ("gone", gone), ("future", ahead)}
    assert right not in {agent for _, agent in found(client, database)}


def test_a_rebuild_mends_each_of_them_and_removes_who_is_gone(client: Any, database: Database) -> None:
    _, wrong, lost, gone, ahead, half, text = agents(database, 7)
    hormones.rebuild(client, database)
    client.hset(hormones.key(wrong), "cortisol", "0.4")
    client.delete(hormones.key(lost))
    client.hset(hormones.key(ahead), mapping={"seq": 10**9})
    client.hdel(hormones.key(half), "seq", "dopamine")
    client.delete(hormones.key(text))
    client.rpush(hormones.key(text), "a list")
    client.set("hormone:unlike any other", "x")
    client.set("another key", "x")
    database.execute("UPDATE phoenix.agents SET decommissioned_at = now() WHERE id = %s", [gone])
    done = hormones.rebuild(client, database)
    assert (done.agents, done.written, done.same, done.retired) == (6, 5, 1, 2)
    assert found(client, database) == []
    assert client.exists(hormones.key(gone)) == 0
    assert client.get("another key") == "x", "what is not ours stays"


def test_events_are_heard_again_after_a_seq_of_another_future(client: Any, database: Database) -> None:
    """PostgreSQL was restored to an earlier moment: what Redis has seen since never happened."""
    (agent,) = agents(database, 1)
    hormones.rebuild(client, database)
    client.hset(hormones.key(agent), "seq", 10**9)
    hormones.rebuild(client, database)
    assert hormones.write(client, [hormones.change(agent, 10**6, {**REST, "dopamine": 0.5}, AT)]) == 1


def test_levels_without_an_event_are_rebuilt_and_the_next_event_wins(client: Any, database: Database) -> None:
    """The outbox keeps events for some days only."""
    (agent,) = agents(database, 1)
    database.execute("TRUNCATE phoenix.outbox")
    hormones.rebuild(client, database)
    assert levels(client, agent) == REST
    database.execute("SELECT phoenix.cascade_hormone('cortisol', 0.2)")
    ((seq, payload),) = database.execute(
        "SELECT seq, payload -> 'data' -> 'levels' FROM phoenix.outbox WHERE type = 'hormone.cascade'"
    ).fetchall()
    assert hormones.write(client, [hormones.change(agent, seq, payload, AT)]) == 1
    assert found(client, database) == []


def test_odd_levels_are_compared_as_events_tell_them(client: Any, database: Database) -> None:
    made = agents(database, 6)
    for agent, odd in zip(
        made, ({}, {"dopamine": [1]}, {**REST, "cortisol": "x"}, {**REST, "x": 1}, {"cortisol": 1e300}, REST), strict=True
    ):
        database.execute("UPDATE phoenix.agents SET hormone_levels = %s WHERE id = %s", [json.dumps(odd), agent])
    told = database.execute(
        "SELECT DISTINCT ON (aggregateid) aggregateid, seq, payload -> 'data' -> 'levels' FROM phoenix.outbox "
        "WHERE type = 'hormone.cascade' ORDER BY 1, 2 DESC"
    )
    hormones.write(client, [hormones.change(agent, seq, data, AT) for agent, seq, data in told])
    assert found(client, database) == []


def test_an_agent_that_returns_to_service_is_told_again(client: Any, database: Database) -> None:
    (agent,) = agents(database, 1)
    hormones.rebuild(client, database)
    database.execute("UPDATE phoenix.agents SET decommissioned_at = now() WHERE id = %s", [agent])
    assert found(client, database, remove_gone=True) == []
    assert client.keys() == []
    before = database.execute("SELECT max(seq) FROM phoenix.outbox").fetchone()
    database.execute("UPDATE phoenix.agents SET decommissioned_at = NULL WHERE id = %s", [agent])
    ((seq, payload),) = database.execute(
        "SELECT seq, payload -> 'data' -> 'levels' FROM phoenix.outbox WHERE type = 'hormone.cascade' AND seq > %s", before
    ).fetchall()
    hormones.write(client, [hormones.change(agent, seq, payload, AT)])
    assert found(client, database) == []


def test_a_key_that_an_event_wrote_meanwhile_is_not_removed(client: Any) -> None:
    hormones.write(client, [hormones.change(ONE, 1, REST, AT)])
    seen = {hormones.key(ONE): hormones.Held(None, "1")}
    hormones.write(client, [hormones.change(ONE, 2, REST, AT)])
    assert hormones.retire(client, seen) == 0
    assert client.exists(hormones.key(ONE)) == 1


def cascade(client: Any, database: Database) -> None:
    """A change that reaches Redis at once."""
    before = database.execute("SELECT coalesce(max(seq), 0) FROM phoenix.outbox").fetchone()
    database.execute("SELECT phoenix.cascade_hormone('cortisol', 0.2)")
    told = database.execute(
        "SELECT aggregateid, seq, payload -> 'data' -> 'levels' FROM phoenix.outbox WHERE type = 'hormone.cascade' AND seq > %s", before
    )
    hormones.write(client, [hormones.change(agent, seq, data, AT) for agent, seq, data in told])


@pytest.mark.parametrize("moment", ["Redis holds", "PostgreSQL has"])
def test_an_event_that_arrives_while_a_rebuild_works_is_not_undone(cluster: Any, client: Any, database: Database, moment: str) -> None:
    """Between reading Redis and the snapshot, and between the snapshot and writing."""
    agents(database, 3)
    hormones.rebuild(client, database)
    client.hset(hormones.key(agents(database, 1)[0]), "cortisol", "9")
    client.hset(sorted(client.keys())[0], "cortisol", "9")
    with cluster.admin() as other:
        hormones.rebuild(client, database, said=lambda text: cascade(client, other) if text.startswith(moment) else None)
    assert found(client, database) == []


def test_redis_is_read_before_the_snapshot_is_taken(cluster: Any, client: Any, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a level that an event brought after the snapshot would look like one of another future, and be undone."""
    agents(database, 3)
    hormones.rebuild(client, database)
    read = hormones._held
    with cluster.admin() as other:

        def later(*arguments: Any) -> Any:
            cascade(client, other)
            return read(*arguments)

        monkeypatch.setattr(hormones, "_held", later)
        hormones.rebuild(client, database)
        monkeypatch.setattr(hormones, "_held", read)
    assert found(client, database) == []


def test_what_becomes_equal_in_time_is_no_difference(client: Any, database: Database) -> None:
    (agent,) = agents(database, 1)
    started = time.monotonic()
    original = hormones.time.sleep

    def event_arrives(pause: float) -> None:
        hormones.rebuild(client, database)
        original(pause)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hormones.time, "sleep", event_arrives)
        assert hormones.check(client, database, settle_s=5, pause_s=0.01).differences == []
    assert time.monotonic() - started < 4
    client.delete(hormones.key(agent))
    assert [one.kind for one in hormones.check(client, database, settle_s=0.2, pause_s=0.05).differences] == ["missing"]


def test_a_hundred_thousand_agents_take_seconds(client: Any, database: Database) -> None:
    agents(database, 100_000)
    done = hormones.rebuild(client, database)
    assert done.written == 100_000
    again = hormones.check(client, database, settle_s=0)
    assert again.differences == [] and again.keys == 100_000
    used = client.info("memory")["used_memory"] / 100_000
    print(f"rebuilt in {done.seconds:.1f} s, checked in {again.seconds:.1f} s, {used:.0f} bytes for each agent")
    assert done.seconds < 60, "on a quiet machine it is three"


def test_the_monitor_may_compare(cluster: Any, client: Any, database: Database) -> None:
    agents(database, 3)
    database.execute("UPDATE phoenix.agents SET hormone_levels = '{}'")
    hormones.rebuild(client, database)
    login = {"host": "127.0.0.1", "port": cluster.port, "user": "monitor", "password": cluster.password, "dbname": "phoenix"}
    with psycopg.connect(**login, autocommit=True) as monitor:
        assert hormones.check(client, monitor, settle_s=0).differences == []
