"""The outbox's side of PostgreSQL: its publication, what Kafka Connect's login may do, and how long rows are kept.

Changed by hand, it is named and put back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyinfra.api import deploy, operation

from deploys.lib import findings
from deploys.lib.operations import Commands, refusal
from deploys.lib.outbox import LOGIN, PUBLICATION, TABLE
from deploys.lib.settings import ConnectSettings, of
from deploys.postgresql import patroni
from deploys.postgresql.database import NAME as DATABASE
from deploys.postgresql.psql import execute, identifier, literal, of_leader

KEEP = "phoenix.outbox_keep"
"""Setting of the database that phoenix.purge_outbox() reads."""
MESSAGE = "pg_catalog.pg_logical_emit_message"

STATE = f"""
SELECT json_build_object(
    'table', to_regclass('{TABLE}') IS NOT NULL,
    'publication', (SELECT json_build_object(
        'insert', pubinsert, 'others', pubupdate OR pubdelete OR pubtruncate OR puballtables
                  OR EXISTS (SELECT FROM pg_publication_namespace n WHERE n.pnpubid = p.oid),
        'tables', (SELECT coalesce(json_agg(prrelid::regclass::text), '[]') FROM pg_publication_rel WHERE prpubid = p.oid
                   AND prattrs IS NULL AND prqual IS NULL))
        FROM pg_publication p WHERE pubname = '{PUBLICATION}'),
    'enters', has_database_privilege('{LOGIN}', '{DATABASE}', 'CONNECT') AND has_schema_privilege('{LOGIN}', 'phoenix', 'USAGE'),
    'emits', (SELECT bool_and(has_function_privilege('{LOGIN}', oid, 'EXECUTE')) FROM pg_proc
              WHERE proname = 'pg_logical_emit_message' AND pronamespace = 'pg_catalog'::regnamespace),
    'granted', (SELECT coalesce(json_agg(c.oid::regclass || ' ' || a.privilege_type), '[]')
                FROM pg_class c, aclexplode(c.relacl) a
                WHERE c.relnamespace = 'phoenix'::regnamespace AND a.grantee = to_regrole('{LOGIN}')),
    'keep', (SELECT substr(c, length('{KEEP}=') + 1) FROM pg_db_role_setting s, unnest(s.setconfig) c
             WHERE s.setrole = 0 AND s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) AND c LIKE '{KEEP}=%')
)
"""


@deploy("Outbox")
def outbox() -> None:
    """What is written to the outbox is published, and Kafka Connect may read that and nothing else."""
    published(name="Publication, rights and age as described")


@operation()
def published() -> Commands:
    """The publication holds the outbox's inserts; the login of Connect may read the outbox and leave its heartbeat in the WAL."""
    leads, state = of_leader(STATE, database=DATABASE)
    if not leads:
        return
    if state is None or not state["table"]:  # in a dry run of a bare host there is no schema yet
        findings.report(f"publication {PUBLICATION} is missing")
        yield refusal(f"Table {TABLE} of database {DATABASE} cannot be seen: look at 'phoenix logs patroni', then deploy again.")
        return
    keep = f"{of(patroni.connectors()[0], ConnectSettings).outbox_keep_days} days"
    differing = changes(state, keep=keep)
    for what, _ in differing:
        findings.report(what)
    if differing:
        yield execute("\n".join(sql for _, sql in differing), database=DATABASE)


def changes(state: Mapping[str, Any], *, keep: str) -> list[tuple[str, str]]:
    """What differs, in words and with the SQL that mends it. `state` is a row of STATE, `keep` how long rows stay, as an interval."""
    name, login, found = identifier(PUBLICATION), identifier(LOGIN), []
    present = state["publication"]
    create = f"CREATE PUBLICATION {name} FOR TABLE {TABLE} WITH (publish = 'insert');"
    if present is None:
        found.append((f"publication {PUBLICATION} is missing", create))
    elif not present["insert"] or present["others"] or present["tables"] not in ([TABLE], [TABLE.partition(".")[2]]):
        found.append((f"publication {PUBLICATION} is another", f"DROP PUBLICATION {name}; {create}"))
    if not state["enters"]:
        found.append(
            (f"{LOGIN} may not enter", f"GRANT CONNECT ON DATABASE {DATABASE} TO {login}; GRANT USAGE ON SCHEMA phoenix TO {login};")
        )
    if not state["emits"]:
        # PostgreSQL 17 gave both functions a fourth argument.
        grant = (
            "DO $$ DECLARE f regprocedure; BEGIN FOR f IN SELECT oid FROM pg_proc WHERE proname = 'pg_logical_emit_message' "
            "AND pronamespace = 'pg_catalog'::regnamespace "
            f"LOOP EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO {login}', f); END LOOP; END $$;"
        )
        found.append((f"{LOGIN} may not leave its heartbeat in the WAL", grant))
    bare = {str(one).removeprefix("phoenix.") for one in state["granted"]}
    if bare != {"outbox SELECT"}:
        found.append(
            (
                f"{LOGIN} has other rights",
                f"REVOKE ALL ON ALL TABLES IN SCHEMA phoenix FROM {login}; GRANT SELECT ON {TABLE} TO {login};",
            )
        )
    if state["keep"] != keep:
        found.append((f"{KEEP} is {state['keep']}", f"ALTER DATABASE {identifier(DATABASE)} SET {KEEP} = {literal(keep)};"))
    return found
