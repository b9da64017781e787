"""The database `phoenix`: exists, belongs to nobody's login, has its extensions at their packaged versions."""

from __future__ import annotations

from typing import Any

from pyinfra.api import StringCommand, deploy, operation

from deploys.lib import findings, hosts
from deploys.lib.operations import Commands
from deploys.lib.settings import ROOT, PostgresqlSettings
from deploys.postgresql.psql import execute, execute_outside_transaction, identifier, literal, of_leader

NAME = "phoenix"
BOOTSTRAP = ROOT / "sql" / "bootstrap.sql"
LOGIN_FUNCTION = BOOTSTRAP.read_text(encoding="utf-8").split("$login$")[1]
"""Body of the function by which a gateway looks up a login."""

# Nobody may enter the cluster's other databases but who works there: PUBLIC may, as PostgreSQL makes them. The replicator enters as the
# worker that carries logical slots over to a standby: that one asks for a database, and Patroni gives it this one.
OTHERS = {"postgres": {"monitor", "replicator", "rewind"}, "template1": set()}

DATABASES = """
SELECT json_object_agg(d.datname, (
    SELECT coalesce(json_agg(DISTINCT CASE a.grantee WHEN 0 THEN 'public' ELSE a.grantee::regrole::text END), '[]')
    FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
    WHERE a.privilege_type IN ('CONNECT', 'TEMPORARY') AND a.grantee <> d.datdba))
FROM pg_database d WHERE d.datname IN ('phoenix', 'postgres', 'template1')
"""

EXTENSIONS = """
SELECT coalesce(json_object_agg(a.name, json_build_object('installed', a.installed_version, 'packaged', a.default_version)), '{}')
FROM pg_available_extensions a
"""


@deploy("Database")
def database() -> None:
    """The database with its extensions is ready for the schema."""
    exists(name="Database phoenix, closed to the public")
    extensions(name="Extensions")
    bootstrap(name="What the schema's owner may do")


@operation()
def exists() -> Commands:
    """The database exists, and PUBLIC may not enter the cluster's other ones."""
    leads, found = of_leader(DATABASES)
    if not leads:
        return
    present: dict[str, list[str]] = found or {}
    commands: list[StringCommand] = []  # all before the first is run: a dry run looks no further than that one
    if NAME not in present:
        findings.report(f"database {NAME} is missing")
        commands.append(execute_outside_transaction(f"CREATE DATABASE {NAME} ENCODING 'UTF8' TEMPLATE template0;"))
    for database_name, wanted in OTHERS.items():
        allowed = set(present.get(database_name, ["public"]))
        statements = [
            f"REVOKE ALL ON DATABASE {database_name} FROM {role if role == 'public' else identifier(role)};"
            for role in sorted(allowed - wanted)
        ]
        statements += [f"GRANT CONNECT ON DATABASE {database_name} TO {identifier(role)};" for role in sorted(wanted - allowed)]
        if statements:
            findings.report(f"database {database_name} may be entered by {', '.join(sorted(allowed)) or 'nobody'}")
            commands.append(execute("\n".join(statements)))
    yield from commands


@operation()
def extensions() -> Commands:
    """Each extension of the settings is installed, at the version that its package brings."""
    leads, found = of_leader(EXTENSIONS, database=NAME)
    if not leads:
        return
    available: dict[str, Any] = found or {}
    statements, updates = [], []
    for name in hosts.settings(PostgresqlSettings).extensions:
        state = available.get(name, {"installed": None, "packaged": None})
        if state["installed"] is None:
            findings.report(f"extension {name} is missing")
            # Not into the first schema of the database's search path, which is the platform's own.
            statements.append(f"SET LOCAL search_path = public; CREATE EXTENSION {identifier(name)};")
        elif state["installed"] != state["packaged"]:
            findings.report(f"extension {name} is at {state['installed']}, its package at {state['packaged']}")
            # In a session of its own and as its first command: a BEGIN before it would load the old TimescaleDB, which refuses then.
            updates.append(f"ALTER EXTENSION {identifier(name)} UPDATE;")
    for statement in updates:
        yield execute_outside_transaction(statement, database=NAME)
    for statement in statements:
        yield execute(statement, database=NAME)


@operation()
def bootstrap() -> Commands:
    """The database is as `sql/bootstrap.sql` makes it: what only a superuser can grant."""
    leads, lacking = of_leader(BOOTSTRAP_CHECK, database=NAME)
    if leads and lacking != []:
        findings.report(f"database {NAME}: " + ", ".join(lacking or ["not prepared for the schema"]))
        yield execute(BOOTSTRAP.read_text(encoding="utf-8"), database=NAME)


# What bootstrap.sql brings about, asked of the catalogue: what is not so.
BOOTSTRAP_CHECK = f"""
SELECT coalesce(json_agg(what), '[]') FROM (VALUES
    ('schema phoenix does not belong to phoenix_owner',
        (SELECT count(*) = 1 FROM pg_namespace WHERE nspname = 'phoenix' AND nspowner = 'phoenix_owner'::regrole)),
    ('PUBLIC may use the database or a schema of it',
        NOT EXISTS (SELECT FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) a
                    WHERE datname = 'phoenix' AND a.grantee = 0)
        AND NOT EXISTS (SELECT FROM pg_namespace, aclexplode(nspacl) a WHERE nspname = 'phoenix' AND a.grantee = 0)
        AND NOT has_schema_privilege('public_api', 'public', 'CREATE')),
    ('everybody may write large objects, lock migrations out or end the sessions of others',
        NOT EXISTS (SELECT FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) a
                    WHERE pronamespace = 'pg_catalog'::regnamespace AND a.grantee = 0
                    AND (proname ~ '^pg_(try_)?advisory_(xact_)?lock(_shared)?$' OR proname IN ('lo_creat', 'lo_create', 'lo_from_bytea',
                         'pg_logical_emit_message', 'pg_cancel_backend', 'pg_terminate_backend')))
        AND has_function_privilege('phoenix_owner', 'pg_advisory_xact_lock(bigint)', 'EXECUTE')),
    ('a role lacks the right to connect',
        (SELECT bool_and(has_database_privilege(role, 'phoenix', 'CONNECT') AND has_schema_privilege(role, 'phoenix', 'USAGE'))
         FROM unnest(ARRAY['architect', 'samurai_agent', 'monitor', 'public_api', 'stream', 'drill', 'graph']) role)),
    ('drill may not leave its mark in the WAL',
        (SELECT bool_and(has_function_privilege('drill', oid, 'EXECUTE')) FROM pg_proc
         WHERE proname = 'pg_logical_emit_message' AND pronamespace = 'pg_catalog'::regnamespace)),
    ('phoenix_board may not work in schema phoenix', has_schema_privilege('phoenix_board', 'phoenix', 'CREATE')),
    ('architect may not use pg_cron', has_schema_privilege('architect', 'cron', 'USAGE')),
    ('the search path is not set',
        EXISTS (SELECT FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
                WHERE d.datname = 'phoenix' AND s.setrole = 0 AND 'search_path=phoenix, public' = ANY (s.setconfig))),
    ('gateways cannot look up logins, or others can',
        has_database_privilege('pgbouncer', 'phoenix', 'CONNECT')
        AND (SELECT nspowner = 'phoenix_gatekeeper'::regrole AND nspacl::text[] @> ARRAY['pgbouncer=U/phoenix_gatekeeper']
                    AND cardinality(nspacl) = 2 FROM pg_namespace WHERE nspname = 'gateway')
        AND (SELECT count(*) = 1 AND bool_and(p.proname = 'login' AND p.prosecdef AND p.proowner = 'phoenix_gatekeeper'::regrole
                    AND p.prosrc = {literal(LOGIN_FUNCTION)} AND p.proconfig = ARRAY['search_path=pg_catalog, pg_temp']
                    AND p.proacl::text[] @> ARRAY['pgbouncer=X/phoenix_gatekeeper'] AND cardinality(p.proacl) = 2)
             FROM pg_proc p WHERE p.pronamespace = to_regnamespace('gateway'))
        AND has_column_privilege('phoenix_gatekeeper', 'pg_authid', 'rolpassword', 'SELECT')
        AND NOT has_table_privilege('phoenix_gatekeeper', 'pg_authid', 'UPDATE'))
) AS checks (what, good) WHERE good IS NOT TRUE
"""
