"""What the triggers really write, held to the schemas; and that a copy in a second region writes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from tests.event_schemas import faults
from tests.sql.server import Server

FIGURES = '{"O": 0.5, "C": 0.5, "E": 0.5, "A": 0.5, "N": 0.5}'


def written(admin: psycopg.Connection, after: int) -> list[dict[str, Any]]:
    """Envelopes written after a seq, as Kafka gets them: through text."""
    rows = admin.execute("SELECT payload::text, type, aggregateid FROM phoenix.outbox WHERE seq > %s ORDER BY seq", [after]).fetchall()
    envelopes = [json.loads(payload) for payload, _, _ in rows]
    for envelope, (_, topic, key) in zip(envelopes, rows, strict=True):
        assert envelope["event"] == topic
        assert key in (envelope["data"].get("id"), envelope["data"].get("agent_id"))
    return envelopes


def newest(admin: psycopg.Connection) -> int:
    row = admin.execute("SELECT coalesce(max(seq), 0) FROM phoenix.outbox").fetchone()
    assert row
    return int(row[0])


def test_everything_that_the_triggers_write_is_by_its_schema(
    server: Server, admin: psycopg.Connection, agents: Callable[..., SimpleNamespace]
) -> None:
    before = newest(admin)
    ann = agents("ann")
    admin.execute('UPDATE phoenix.agents SET hormone_levels = \'{"dopamine": 1e300, "cortisol": "high"}\' WHERE id = %s', [ann.id])
    admin.execute("SELECT phoenix.cascade_hormone('cortisol', -0.1), phoenix.cascade_hormone('oxytocin', 0.123456789, 'iota')")
    admin.execute("SET TIME ZONE 'Asia/Kolkata'")
    admin.execute(
        "INSERT INTO phoenix.tasks (title, category, created_by, team_assignment, deadline, dopamine_reward, status) VALUES "
        "('plain', NULL, NULL, NULL, NULL, 1, 'open'), ('full', 'lead_gen', %s, 'iota', '2027-01-01', 'Infinity', 'complete'),"
        "(repeat('ü', 3000), repeat('c', 3000), NULL, NULL, 'infinity', 'NaN', 'open')",
        [ann.id],
    )
    admin.execute(
        "UPDATE phoenix.tasks SET status = 'complete', quality_score = 1, value_delivered = 1234567890123456.78, assigned_to = %s "
        "WHERE title = 'plain'",
        [ann.id],
    )
    admin.execute(
        "INSERT INTO phoenix.personas (name, company_revenue, employee_count, technologies_used, big_five) "
        "VALUES ('a', 1e15, 7, ARRAY['SAP', NULL], %s)",
        [FIGURES],
    )
    admin.execute("UPDATE phoenix.personas SET pain_points = ARRAY['costs'] WHERE name = 'a'")
    envelopes = written(admin, before)
    kinds = [envelope["event"] for envelope in envelopes]
    assert {kind: kinds.count(kind) for kind in sorted(set(kinds))} == {
        "graph.changed": 6, "hormone.cascade": 4, "persona.enriched": 2, "task.completed": 2, "task.created": 3,
    }  # fmt: skip
    assert {envelope["id"]: wrong for envelope in envelopes if (wrong := faults(envelope))} == {}
    assert all(envelope["occurred_at"].endswith("Z") for envelope in envelopes)


@pytest.mark.requires("vector")
def test_an_embedding_enriches(server: Server, admin: psycopg.Connection) -> None:
    persona = server.ask("INSERT INTO phoenix.personas (name) VALUES ('embedded') RETURNING id")
    before = newest(admin)
    ones = "[" + ",".join(["1"] * 768) + "]"
    for value in (ones, ones, None):  # the second is no change
        admin.execute("UPDATE phoenix.personas SET behavioral_embedding = %s::public.vector WHERE id = %s", [value, persona])
    envelopes = written(admin, before)
    assert [(e["data"]["changed"], e["data"]["behavioral_embedding"]) for e in envelopes] == [
        (["behavioral_embedding"], True),
        (["behavioral_embedding"], False),
    ]
    assert [wrong for envelope in envelopes for wrong in faults(envelope)] == []


def test_an_event_is_there_when_its_transaction_is_and_not_otherwise(server: Server, admin: psycopg.Connection) -> None:
    before = newest(admin)
    with pytest.raises(ZeroDivisionError), server.connect(autocommit=False) as conn:
        conn.execute("INSERT INTO phoenix.tasks (title) VALUES ('rolled back')")
        raise ZeroDivisionError
    assert written(admin, before) == []


def test_rows_that_arrive_by_replication_write_no_event(server: Server, admin: psycopg.Connection) -> None:
    """A subscription's worker applies rows as a replica; ordinary triggers sleep there."""
    before = newest(admin)
    with server.connect() as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute("INSERT INTO phoenix.agents (codename, team, role, consciousness_vector) VALUES ('copied', 'iota', 'x', '{}')")
        conn.execute("INSERT INTO phoenix.tasks (title) VALUES ('copied')")
    assert written(admin, before) == []
    admin.execute("DELETE FROM phoenix.tasks WHERE title = 'copied'")
    admin.execute("DELETE FROM phoenix.agents WHERE codename = 'copied'")


def test_seq_follows_the_order_of_the_changes_of_one_agent(
    server: Server, admin: psycopg.Connection, agents: Callable[..., SimpleNamespace]
) -> None:
    """Two sessions change one agent by turns: the later change has the greater seq, though the other session took its numbers first."""
    ann = agents("ann")
    with server.connect(autocommit=False) as first, server.connect(autocommit=False) as second:
        first.execute("INSERT INTO phoenix.tasks (title) VALUES ('takes a number')")
        second.execute("UPDATE phoenix.agents SET hormone_levels = '{\"dopamine\": 1.1}' WHERE id = %s", [ann.id])
        second.commit()
        first.execute("UPDATE phoenix.agents SET hormone_levels = '{\"dopamine\": 1.9}' WHERE id = %s", [ann.id])
        first.commit()
    levels = admin.execute(
        "SELECT (payload -> 'data' -> 'levels' ->> 'dopamine')::float FROM phoenix.outbox WHERE aggregateid = %s ORDER BY seq DESC LIMIT 2",
        [str(ann.id)],
    ).fetchall()
    assert levels == [(1.9,), (1.1,)]


def test_the_purge_keeps_what_the_setting_of_the_database_says(server: Server, admin: psycopg.Connection) -> None:
    add = (
        "INSERT INTO phoenix.outbox (id, aggregatetype, aggregateid, type, payload, created_at) "
        "SELECT gen_random_uuid(), 't', 'old', 'graph.changed', '{}', now() - make_interval(days => d) FROM unnest(ARRAY[1, 4, 8]) d"
    )
    left = "SELECT count(*) FROM phoenix.outbox WHERE aggregateid = 'old'"
    admin.execute(add)
    admin.execute("SELECT phoenix.purge_outbox()")
    assert server.ask(left) == 2, "seven days without a setting"
    admin.execute("SET phoenix.outbox_keep = '3 days'")
    admin.execute("SELECT phoenix.purge_outbox()")
    assert server.ask(left) == 1
    admin.execute("DELETE FROM phoenix.outbox WHERE aggregateid = 'old'")


def test_metrics_answer_without_a_slot(server: Server) -> None:
    with server.connect("monitor") as conn:
        row = conn.execute(
            "SELECT slot_present, slot_active, undelivered, oldest_undelivered_seconds FROM phoenix.metrics_outbox"
        ).fetchone()
    assert row == (False, False, None, None)
