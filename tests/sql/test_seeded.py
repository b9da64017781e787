"""Seeded data: all tables filled, consistent, and the same for the same seed."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest

from ops.seed import DATA_TABLES, SeedRefused, seed
from tests.sql.server import Server

pytestmark = pytest.mark.requires("vector", "timescaledb")
UNTIL = datetime(2026, 11, 20, 12, tzinfo=UTC)
# Filled by use, not by seeding; the hours are a continuous aggregate's where the licence allows it.
NOT_SEEDED = {"agent_credentials", "consciousness_hourly_store"}
# What the database itself stamps with the moment of writing.
CLOCKED = "- '{timestamp,since,current_task_since,updated_at,created_at}'::text[]"


def load(server: Server, *, random_seed: int = 1, replace: bool = True, personas: int = 700) -> dict[str, int | float]:
    with server.connect("architect", autocommit=False) as conn:
        return seed(
            conn, personas=personas, agents=40, tasks=500, random_seed=random_seed, replace=replace, progress=lambda line: None, until=UNTIL
        )


def digests(admin: psycopg.Connection) -> dict[str, str]:
    """A digest of every table's rows, without what the clock decides."""
    found = {}
    for table in DATA_TABLES:
        query = f"SELECT md5(string_agg(r::text, '' ORDER BY r::text)) FROM (SELECT to_jsonb(t) {CLOCKED} AS r FROM phoenix.{table} t) rows"
        row = admin.execute(query.encode())
        found[table] = (row.fetchone() or ("",))[0]
    return found


def test_every_table_is_filled_and_counted(server: Server, admin: psycopg.Connection) -> None:
    loaded = load(server)
    for table in set(DATA_TABLES) - NOT_SEEDED:
        count = admin.execute(f"SELECT count(*) FROM phoenix.{table}".encode()).fetchone()
        assert count
        assert count[0] > 0, table
        assert count[0] == loaded.get(table, count[0]), table
    assert (loaded["personas"], loaded["agents"], loaded["tasks"]) == (700, 40, 500)


def test_the_same_seed_gives_the_same_rows_and_another_other_ones(server: Server, admin: psycopg.Connection) -> None:
    load(server)
    first = digests(admin)
    load(server)
    assert digests(admin) == first
    load(server, random_seed=2)
    assert digests(admin)["personas"] != first["personas"]


def test_existing_data_is_refused_and_left_alone(server: Server, admin: psycopg.Connection) -> None:
    load(server)
    before = digests(admin)
    with pytest.raises(SeedRefused, match="already holds rows: give --replace"):
        load(server, replace=False, random_seed=3)
    assert digests(admin) == before


def test_counted_figures_agree_with_what_was_loaded(server: Server, admin: psycopg.Connection) -> None:
    load(server)
    asked = {
        "votes": "SELECT count(*) FROM phoenix.tasks t WHERE upvotes - downvotes <> "
        "(SELECT coalesce(sum(vote), 0) FROM phoenix.task_votes WHERE task_id = t.id)",
        "completed": "SELECT count(*) FROM phoenix.agents a WHERE tasks_completed <> "
        "(SELECT count(*) FROM phoenix.tasks WHERE assigned_to = a.id AND status = 'complete')",
        "states": "SELECT count(*) FROM phoenix.tasks WHERE (status = 'open') <> (assigned_to IS NULL)",
        "future": "SELECT count(*) FROM phoenix.tasks "
        "WHERE greatest(created_at, claimed_at, started_at, completed_at) > '2026-11-20 12:00+00'",
        "stray": "SELECT count(*) FROM phoenix.personas_default",
        "current": "SELECT count(*) FROM phoenix.agents a WHERE current_task IS NOT NULL AND NOT EXISTS "
        "(SELECT FROM phoenix.tasks t WHERE t.id = a.current_task AND t.assigned_to = a.id)",
    }
    assert {name: server.ask(question) for name, question in asked.items()} == dict.fromkeys(asked, 0)
    assert server.ask("SELECT sum(tasks) FROM phoenix.metrics_task_status") == 500
    assert server.ask("SELECT pipeline_value FROM phoenix.federation_dashboard") == server.ask(
        "SELECT sum(weighted_value) FROM phoenix.opportunities WHERE stage <> 'closed_lost'"
    )


def test_vector_indexes_are_as_the_migrations_made_them(server: Server, admin: psycopg.Connection) -> None:
    definitions = (
        "SELECT string_agg(replace(pg_get_indexdef(indexrelid), 'ON ONLY', 'ON'), chr(10) ORDER BY 1) FROM pg_index "
        "JOIN pg_class i ON i.oid = indexrelid WHERE indrelid = 'phoenix.personas'::regclass AND indisvalid"
    )
    before = server.ask(definitions)
    load(server, personas=1200)
    assert server.ask(definitions) == before
    assert "hnsw" in before


def test_a_failure_leaves_what_was_there(server: Server, admin: psycopg.Connection) -> None:
    load(server)
    before = digests(admin)

    def fail_at_tasks(line: str) -> None:
        if line.startswith("tasks:"):
            raise KeyboardInterrupt

    with server.connect("architect", autocommit=False) as conn, pytest.raises(KeyboardInterrupt):
        seed(conn, personas=600, agents=10, tasks=100, random_seed=5, replace=True, progress=fail_at_tasks, until=UNTIL)
    assert digests(admin) == before
