"""The files themselves: repeatables may be applied at any time, put back what was changed by hand, and change nothing otherwise."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from tests.sql.server import SQL, Server

PHASES = {1, 2, 3, 5, 8, 13}

# Definitions and rights of everything in the schema, as one text.
CATALOGUE = """
    WITH ours AS (SELECT * FROM pg_class WHERE relnamespace = 'phoenix'::regnamespace)
    SELECT jsonb_agg(o ORDER BY o)::text FROM (
        SELECT format('%s %s %s %s', oid::regclass, relkind, ARRAY(SELECT a::text FROM unnest(relacl) a ORDER BY 1), relowner::regrole) AS o
        FROM ours
        UNION ALL
        SELECT format('%s %s', pg_get_functiondef(oid), ARRAY(SELECT a::text FROM unnest(proacl) a ORDER BY 1))
        FROM pg_proc WHERE pronamespace = 'phoenix'::regnamespace
        UNION ALL
        SELECT format('%s %s', viewname, definition) FROM pg_views WHERE schemaname = 'phoenix'
        UNION ALL
        SELECT to_jsonb(p)::text FROM pg_policies p WHERE schemaname = 'phoenix'
        UNION ALL
        SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN ours ON ours.oid = t.tgrelid WHERE NOT tgisinternal
        UNION ALL
        SELECT format('%s %s %s', relname, indexrelid::regclass, indisvalid) FROM pg_index JOIN ours ON ours.oid = indrelid
        UNION ALL
        SELECT format('%s %s %s', relname, attname, attacl) FROM pg_attribute JOIN ours ON ours.oid = attrelid WHERE attacl IS NOT NULL
        UNION ALL
        SELECT format('%s %s', defaclobjtype, defaclacl) FROM pg_default_acl
    ) c
"""
JOBS = "SELECT jsonb_agg(to_jsonb(j) ORDER BY jobid)::text FROM cron.job j"


def mend(server: Server, user: str) -> None:
    for path in server.files("R__"):
        server.apply(path, user)


def catalogue(server: Server) -> str:
    return str(server.ask(CATALOGUE)) + (str(server.ask(JOBS)) if "pg_cron" in server.extensions else "")


@pytest.mark.parametrize("user", ["architect", "postgres"])
def test_applying_the_repeatables_again_changes_nothing(server: Server, user: str) -> None:
    before = catalogue(server)
    mend(server, user)
    assert catalogue(server) == before


def test_what_was_changed_by_hand_is_put_back(server: Server, admin: psycopg.Connection) -> None:
    before = catalogue(server)
    for change in (
        "CREATE POLICY open_door ON phoenix.tasks USING (true)",
        "DROP POLICY agent_task_insert ON phoenix.tasks",
        "ALTER TABLE phoenix.task_votes NO FORCE ROW LEVEL SECURITY",
        "GRANT DELETE ON phoenix.tasks TO samurai_agent",
        "GRANT SELECT (email_encrypted) ON phoenix.personas TO samurai_agent",
        "GRANT SELECT ON phoenix.personas TO public_api",
        "REVOKE SELECT ON phoenix.opportunities FROM monitor",
        "GRANT EXECUTE ON FUNCTION phoenix.issue_agent_token(uuid, interval) TO PUBLIC",
        "CREATE OR REPLACE FUNCTION phoenix.current_agent_id() RETURNS uuid LANGUAGE sql STABLE AS 'SELECT gen_random_uuid()'",
        "DROP TRIGGER count_insert ON phoenix.task_votes",
        "DROP VIEW phoenix.public_pipeline",
        "DROP MATERIALIZED VIEW phoenix.federation_dashboard CASCADE",
    ):
        admin.execute(change.encode())
    assert catalogue(server) != before
    mend(server, "postgres")
    # Row security flags are not in the rights: ask for them, too.
    assert server.ask("SELECT relforcerowsecurity FROM pg_class WHERE oid = 'phoenix.task_votes'::regclass") is True
    assert catalogue(server) == before


@pytest.mark.requires("pg_cron")
def test_a_job_that_is_not_declared_is_removed_and_a_changed_one_put_back(server: Server) -> None:
    with server.connect("architect") as conn:
        conn.execute("SELECT cron.schedule('stray', '0 0 * * *', 'SELECT 1'), cron.schedule('fold-task-ledger', '0 0 1 1 *', 'SELECT 2')")
    mend(server, "architect")
    assert server.ask("SELECT count(*) FROM cron.job WHERE jobname = 'stray'") == 0
    assert (
        server.ask("SELECT schedule || command FROM cron.job WHERE jobname = 'fold-task-ledger'")
        == "* * * * *SELECT phoenix.fold_task_ledger()"
    )


def test_bootstrap_may_be_repeated(server: Server, admin: psycopg.Connection) -> None:
    before = catalogue(server)
    admin.execute((SQL / "bootstrap.sql").read_bytes())
    assert catalogue(server) == before


@pytest.mark.parametrize("path", sorted(SQL.glob("*__*.sql")), ids=lambda path: path.stem)
def test_a_migration_is_named_and_written_by_the_rules(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    versioned = re.fullmatch(r"V(\d+)\.\d+__[a-z_]+\.sql", path.name)
    assert versioned or re.fullmatch(r"R__\d\d_[a-z_]+\.sql", path.name)
    assert not versioned or int(versioned[1]) in PHASES, "the first number is a Fibonacci phase"
    assert not re.search(r"^\s*(BEGIN;|COMMIT;|\\)", text, re.MULTILINE), "Flyway brings the transaction; no psql commands"
    assert "${" not in text, "no placeholders"
    assert text.startswith("--"), "the first line says what the file is about"


def test_every_phase_has_its_place() -> None:
    assert {int(path.name[1:].split(".")[0]) for path in SQL.glob("V*__*.sql")} == PHASES


def test_schema_version_reads_flyways_history(server: Server, admin: psycopg.Connection) -> None:
    assert admin.execute("SELECT * FROM phoenix.schema_version").fetchall() == [], "without a history it is empty, and no error"
    with admin.transaction(force_rollback=True):
        # The table as Flyway makes it.
        admin.execute("""
            CREATE TABLE phoenix.flyway_schema_history (
                installed_rank integer PRIMARY KEY, version varchar(50), description varchar(200) NOT NULL, type varchar(20) NOT NULL,
                script varchar(1000) NOT NULL, checksum integer, installed_by varchar(100) NOT NULL,
                installed_on timestamp NOT NULL DEFAULT now(), execution_time integer NOT NULL, success boolean NOT NULL);
            INSERT INTO phoenix.flyway_schema_history VALUES
                (1, '1.1', 'personas', 'SQL', 'V1.1__personas.sql', 1, 'architect', '2025-11-23 12:00', 5, true),
                (2, '13.1', 'federation scale', 'SQL', 'V13.1__federation_scale.sql', 1, 'architect', '2025-11-23 12:01', 5, true),
                (3, NULL, '10 integrity', 'SQL', 'R__10_integrity.sql', 1, 'architect', '2025-11-23 12:02', 5, true),
                (4, '13.2', 'failed', 'SQL', 'V13.2__failed.sql', 1, 'architect', '2025-11-23 12:03', 5, false);
            ALTER TABLE phoenix.flyway_schema_history OWNER TO phoenix_owner
        """)
        admin.execute("SET LOCAL TIME ZONE 'Asia/Tokyo'")
        rows = admin.execute("SELECT version, description, fibonacci_phase, applied_at FROM phoenix.schema_version").fetchall()
    noon = datetime(2025, 11, 23, 12, tzinfo=UTC)
    assert rows == [("1.1", "personas", 1, noon), ("13.1", "federation scale", 13, noon + timedelta(minutes=1))]
