"""The second region's subscription: its cluster holds the declared tables as a copy, kept by logical replication, that nobody else writes.

The schema is the same migrations'; the rows come from the publication (deploys/postgresql/publication.py). docs/region2.md.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from pyinfra import host
from pyinfra.api import Host, StringCommand, deploy, operation

from deploys import tls
from deploys.lib import findings, hosts, region2, verify
from deploys.lib.operations import Commands, Directory, File, files, refusal
from deploys.lib.region2 import Option, Publisher
from deploys.lib.settings import ROOT, PostgresqlSettings, Region2Settings, of
from deploys.postgresql.database import NAME as DATABASE
from deploys.postgresql.psql import Query, execute, execute_outside_transaction, identifier, literal, of_leader, psql

GUARD = ROOT / "sql" / "region2.sql"
GUARD_TRIGGERS = {
    "region2_copy": "BEFORE INSERT OR UPDATE OR DELETE ON phoenix.{table} FOR EACH ROW",
    "region2_copy_truncate": "BEFORE TRUNCATE ON phoenix.{table} FOR EACH STATEMENT",
}

STATE = f"""
WITH subscription AS (
    SELECT * FROM pg_subscription
    WHERE subname = '{region2.NAME}' AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
)
SELECT json_build_object(
    'subscription', (SELECT to_jsonb(s) || jsonb_build_object('owner', pg_get_userbyid(subowner)) FROM subscription s),
    'tables', (SELECT coalesce(json_agg(c.relname), '[]')
               FROM subscription s JOIN pg_subscription_rel r ON r.srsubid = s.oid JOIN pg_class c ON c.oid = r.srrelid),
    'guard', (SELECT md5(prosrc) FROM pg_proc WHERE oid = to_regprocedure('region2.keep_copy()')),
    'guarded', (SELECT coalesce(json_object_agg(relname, triggers), '{{}}')
                FROM (SELECT c.relname, json_agg(t.tgname ORDER BY t.tgname) FILTER (WHERE t.tgenabled = 'O') AS triggers
                      FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
                      WHERE t.tgfoid = to_regprocedure('region2.keep_copy()') AND t.tgparentid = 0 GROUP BY 1) AS hung)
)
"""

WORKS = (
    "SELECT pg_is_in_recovery() OR EXISTS "
    f"(SELECT FROM pg_stat_subscription WHERE subname = '{region2.NAME}' AND relid IS NULL AND pid > 0)"
)


def publishers() -> list[Host]:
    """Members of the cluster that the present host's copy is of."""
    source = hosts.settings(Region2Settings).source
    return [member for member in hosts.members("postgresql") if of(member, PostgresqlSettings).cluster_name == source]


def version() -> int:
    """The older major version of the two sides: what only the newer can is not used."""
    return min(of(member, PostgresqlSettings).version for member in [host, *publishers()])


@deploy("Copy of the platform's tables")
def subscription() -> None:
    """The declared tables are copied from whichever member of the platform's cluster takes writes, and nobody here changes them."""
    files(
        name="Password of the subscriber",
        entries=[Directory("/etc/phoenix"), File(region2.PASSFILE, _passfile, "postgres", "postgres", "600")],
    )
    subscribed(name="Tables as declared, written by replication alone")
    verify.answers(
        name="Changes arrive",
        script=f'cd / && {psql()} -XAtqd {DATABASE} -c "{WORKS}" | grep t',
        seconds=60,
        problem=f"The subscription {region2.NAME} on {host.name} does not reach its publisher: look at 'phoenix logs patroni' "
        "and docs/runbooks/SubscriptionDown.md.",
    )


def _passfile() -> str:
    password = hosts.secrets().get(f"postgresql/{region2.LOGIN}")
    escaped = re.sub(r"([:\\])", r"\\\1", password)
    return f"*:*:{DATABASE}:{region2.LOGIN}:{escaped}"


def _declared() -> dict[str, frozenset[str]]:
    return region2.spelled(hosts.settings(Region2Settings).tables)


def _conninfo() -> str:
    members = [Publisher(hosts.address(member), of(member, PostgresqlSettings).port) for member in publishers()]
    return region2.conninfo(members, ca=tls.CA)


def guards(declared: Mapping[str, frozenset[str]], state: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the guard of the copied tables lacks, in words and with the SQL that mends it. `state` is a row of STATE."""
    found: list[tuple[str, str]] = []
    text = GUARD.read_text(encoding="utf-8")
    if state["guard"] != hashlib.md5(text.split("$$")[1].encode(), usedforsecurity=False).hexdigest():
        found.append(("the function that guards the copied tables is another", text))
    hung: dict[str, list[str] | None] = state["guarded"]
    for table in sorted(declared):
        if hung.get(table) != sorted(GUARD_TRIGGERS):
            found.append((f"{table} may be written by anybody", "\n".join(_guard(table))))
    for table in sorted(hung.keys() - declared.keys()):
        drops = [f"DROP TRIGGER IF EXISTS {name} ON phoenix.{identifier(table)};" for name in GUARD_TRIGGERS]
        found.append((f"{table} is guarded and not copied", "\n".join(drops)))
    return found


def _guard(table: str) -> list[str]:
    return [
        f"CREATE OR REPLACE TRIGGER {name} {when.format(table=identifier(table))} EXECUTE FUNCTION region2.keep_copy(); "
        f"ALTER TABLE phoenix.{identifier(table)} ENABLE TRIGGER {name};"
        for name, when in GUARD_TRIGGERS.items()
    ]


@operation()
def subscribed() -> Commands:
    """The subscription has the declared tables, connection and options and is enabled; the tables refuse rows that come otherwise."""
    leads, state = of_leader(STATE, database=DATABASE)
    if not leads:
        return
    if state is None:
        findings.report(f"subscription {region2.NAME} is missing")
        yield refusal(f"The database {DATABASE} on {host.name} cannot be read: look at 'phoenix logs patroni', then deploy again.")
        return
    new = sorted(set(_declared()) - set(state["tables"] if state["subscription"] else []))
    if held := _holding(new):
        problem = (
            f"{', '.join(held)} on {host.name} hold rows, and no subscription keeps them: an initial copy needs empty tables. "
            "See 'Begin the copy anew' in docs/region2.md; if this cluster has taken over from the platform, take it out of group region2."
        )
        findings.report(problem)
        yield refusal(problem)
        return
    unguarded = guards(_declared(), state)
    differing = changes(_declared(), _conninfo(), subscription_options(), state) if state["subscription"] else []
    for what, _ in unguarded + differing:
        findings.report(what)
    commands: list[StringCommand | str] = []  # all before the first is run: a dry run looks no further than that one
    if unguarded:
        commands.append(execute("\n".join(sql for _, sql in unguarded), database=DATABASE))
    if state["subscription"] is None:
        findings.report(f"subscription {region2.NAME} is missing")
        commands += [_drop_old_slots()] if version() >= 17 else []
        statements = create(_conninfo(), subscription_options(), own_slot=version() >= 17)
        commands.append(execute_outside_transaction(statements, database=DATABASE))
    elif differing:
        commands.append(execute_outside_transaction("\n".join(sql for _, sql in differing), database=DATABASE))
    yield from commands


def subscription_options() -> list[Option]:
    """The options for the versions of the two sides."""
    return region2.subscription_options(version())


def _holding(tables: Sequence[str]) -> list[str]:
    """Those of `tables` that have rows; a table that is not there has none."""
    if not tables:
        return []
    asked = " UNION ALL ".join(f"SELECT {literal(name)} AS name WHERE EXISTS (SELECT FROM phoenix.{identifier(name)})" for name in tables)
    found: list[str] | None = host.get_fact(Query, sql=f"SELECT coalesce(json_agg(name), '[]') FROM ({asked}) AS held", database=DATABASE)
    return found or []


def _drop_old_slots() -> str:
    """Shell that removes, on the publisher, what an earlier life of this copy left there: it would keep WAL, and its name is needed."""
    sql = (
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
        f"WHERE NOT active AND (slot_name = '{region2.NAME}' OR slot_name ~ '^pg_[0-9]+_sync_[0-9]+_[0-9]+$')"
    )
    return f"cd / && runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d {shlex.quote(_conninfo())} -c {shlex.quote(sql)} >/dev/null"


def create(conninfo: str, options: Sequence[Option], *, own_slot: bool) -> str:
    """SQL that makes the subscription. With `own_slot` it makes its slot on the publisher, otherwise Patroni has made it there."""
    name = identifier(region2.NAME)
    listed = ", ".join(f"{option.name} = {option.value}" for option in options)
    # Disabled until it belongs to the role that may do less than a superuser.
    return (
        f"CREATE SUBSCRIPTION {name} CONNECTION {literal(conninfo)} PUBLICATION {name} "
        f"WITH (enabled = false, create_slot = {'true' if own_slot else 'false'}, slot_name = {name}, {listed});\n"
        f"ALTER SUBSCRIPTION {name} OWNER TO {identifier(region2.APPLIER)};\n"
        f"ALTER SUBSCRIPTION {name} ENABLE;"
    )


def changes(
    declared: Mapping[str, frozenset[str]], conninfo: str, options: Sequence[Option], state: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """What differs from the declaration, in words and with the SQL that mends it, to be run statement by statement.

    `state` is a row of STATE, with a subscription.
    """
    name, present = identifier(region2.NAME), state["subscription"]
    quiet: list[tuple[str, str]] = []  # what can only be changed while no worker runs
    wrong = [option for option in options if present.get(option.column) != option.stored]
    if present["subslotname"] != region2.NAME:
        quiet.append((f"subscription {region2.NAME} has another slot", f"ALTER SUBSCRIPTION {name} SET (slot_name = {name});"))
    quiet += [
        (f"subscription {region2.NAME}: {option.name} differs", f"ALTER SUBSCRIPTION {name} SET ({option.name} = {option.value});")
        for option in wrong
    ]
    found: list[tuple[str, str]] = []
    if quiet:
        found.append((f"subscription {region2.NAME} is stopped for a moment", f"ALTER SUBSCRIPTION {name} DISABLE;\n{_UNTIL_IDLE}"))
        found += quiet
    if present["owner"] != region2.APPLIER:
        owner = f"ALTER SUBSCRIPTION {name} OWNER TO {identifier(region2.APPLIER)};"
        found.append((f"subscription {region2.NAME} belongs to {present['owner']}", owner))
    if present["subconninfo"] != conninfo:
        found.append((f"subscription {region2.NAME} connects elsewhere", f"ALTER SUBSCRIPTION {name} CONNECTION {literal(conninfo)};"))
    if quiet or not present["subenabled"]:
        words = f"subscription {region2.NAME} is disabled" if not present["subenabled"] else f"subscription {region2.NAME} starts again"
        found.append((words, f"ALTER SUBSCRIPTION {name} ENABLE;"))
    if present["subpublications"] != [region2.NAME]:
        found.append((f"subscription {region2.NAME} has other publications", f"ALTER SUBSCRIPTION {name} SET PUBLICATION {name};"))
    elif set(state["tables"]) != set(declared):
        more, less = sorted(set(declared) - set(state["tables"])), sorted(set(state["tables"]) - set(declared))
        words = "; ".join(f"{verb} {', '.join(tables)}" for verb, tables in (("lacks", more), ("has", less)) if tables)
        found.append((f"subscription {region2.NAME} {words}", f"ALTER SUBSCRIPTION {name} REFRESH PUBLICATION;"))
    return found


_UNTIL_IDLE = f"""DO $$
BEGIN
    FOR i IN 1..100 LOOP
        EXIT WHEN NOT EXISTS (SELECT FROM pg_stat_subscription WHERE subname = '{region2.NAME}' AND pid IS NOT NULL);
        PERFORM pg_sleep(0.1);
        PERFORM pg_stat_clear_snapshot();
    END LOOP;
END
$$;"""
