"""The publication of the second region's tables, on the platform's cluster: what is published, and who may read it.

What is declared (`region2_tables`) is what is published: a table or column that comes or goes there changes the publication, and the
subscription follows it (deploys/postgresql/subscription.py). Changed by hand, it is named and put back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyinfra.api import deploy, operation

from deploys.lib import findings, hosts, region2
from deploys.lib.operations import Commands, refusal
from deploys.lib.settings import PostgresqlSettings, Region2Settings, of
from deploys.postgresql.database import NAME as DATABASE
from deploys.postgresql.psql import execute, identifier, of_leader

# Chunks of a hypertable are tables of their own, which a publication of the hypertable does not follow.
STATE = f"""
WITH relation AS (
    SELECT c.oid, c.relname, c.relacl, c.relkind, c.relreplident FROM pg_class c
    WHERE c.relnamespace = 'phoenix'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
), subscriber AS (
    SELECT oid FROM pg_roles WHERE rolname = '{region2.LOGIN}'
)
SELECT json_build_object(
    'publication', (SELECT json_build_object('actions', pubinsert AND pubupdate AND pubdelete AND pubtruncate, 'root', pubviaroot,
                                             'all', puballtables OR EXISTS (SELECT FROM pg_publication_namespace WHERE pnpubid = p.oid))
                    FROM pg_publication p WHERE pubname = '{region2.NAME}'),
    'published', (SELECT coalesce(json_object_agg(t.schemaname || '.' || t.tablename, json_build_object(
                      'columns', CASE WHEN r.prattrs IS NULL THEN '{{}}' ELSE t.attnames END, 'filter', t.rowfilter)), '{{}}')
                  FROM pg_publication_tables t JOIN pg_publication p USING (pubname)
                  LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = format('%I.%I', t.schemaname, t.tablename)::regclass
                  WHERE t.pubname = '{region2.NAME}'),
    'tables', (SELECT json_object_agg(relname, json_build_object(
        'columns', (SELECT json_agg(attname ORDER BY attnum) FROM pg_attribute
                    WHERE attrelid = relation.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''),
        'key', (SELECT json_agg(attname) FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
                WHERE indrelid = relation.oid AND relation.relreplident = 'd' AND indisprimary),
        'hypertable', EXISTS (SELECT FROM timescaledb_information.hypertables h
                              WHERE h.hypertable_schema = 'phoenix' AND h.hypertable_name = relname),
        'references', (SELECT json_agg(DISTINCT referenced.relname ORDER BY referenced.relname)
                       FROM pg_constraint k JOIN relation referenced ON referenced.oid = k.confrelid WHERE k.conrelid = relation.oid),
        'granted', (SELECT json_agg(a.privilege_type) FROM aclexplode(relacl) a JOIN subscriber ON a.grantee = subscriber.oid),
        'granted_columns', (SELECT json_agg(attname || CASE a.privilege_type WHEN 'SELECT' THEN '' ELSE ' ' || a.privilege_type END)
                            FROM pg_attribute, aclexplode(attacl) a JOIN subscriber ON a.grantee = subscriber.oid
                            WHERE attrelid = relation.oid)
    )) FROM relation),
    'enters', (SELECT has_database_privilege(oid, '{DATABASE}', 'CONNECT') AND has_schema_privilege(oid, 'phoenix', 'USAGE')
               FROM subscriber)
)
"""


def publishes() -> bool:
    """Whether the present host's cluster is copied by a second region."""
    return hosts.settings(PostgresqlSettings).cluster_name in {of(copy, Region2Settings).source for copy in hosts.members(region2.NAME)}


@deploy("Publication for the second region")
def publication() -> None:
    """What the second region needs is published, and its login may read that and no more."""
    published(name="Tables as declared, readable by their subscriber")


@operation()
def published() -> Commands:
    """The publication holds the declared tables and columns, and the subscriber's login may read them."""
    leads, state = of_leader(STATE, database=DATABASE)
    if not leads:
        return
    declared = region2.spelled(of(hosts.members(region2.NAME)[0], Region2Settings).tables)
    if state is None:  # in a dry run of a bare host there is no schema yet
        findings.report(f"publication {region2.NAME} is missing")
        yield refusal(f"The schema of database {DATABASE} cannot be read: look at 'phoenix logs patroni', then deploy again.")
        return
    if wrong := faults(declared, state["tables"] or {}):
        for what in wrong:
            findings.report(what)
        yield refusal("\n".join(wrong))
        return
    differing = changes(declared, state)
    for what, _ in differing:
        findings.report(what)
    if differing:
        yield execute("\n".join(sql for _, sql in differing), database=DATABASE)


def faults(declared: Mapping[str, frozenset[str]], tables: Mapping[str, Any]) -> list[str]:
    """Why tables cannot be published as declared, a sentence each: `tables` are those of schema phoenix, as STATE gives them."""
    found = []
    for name, columns in declared.items():
        table = tables.get(name)
        if table is None:
            found.append(f"region2_tables: schema phoenix has no table {name}: take it out, or write the migration that makes it.")
            continue
        if table["hypertable"]:
            found.append(f"region2_tables: {name} is a hypertable, whose rows no publication follows: take it out (docs/region2.md).")
            continue
        if not table["key"]:
            found.append(f"region2_tables: {name} has no primary key, so its changes cannot be told: give it one, or take it out.")
            continue
        if unknown := sorted(columns - set(table["columns"])):
            found.append(f"region2_tables: {name} has no column {', '.join(unknown)} (a generated one computes itself): take it out.")
        if columns and (missing := sorted(set(table["key"]) - columns)):
            found.append(f"region2_tables: {name} is declared without {', '.join(missing)} of its primary key: add it.")
    for name, table in tables.items():
        for other in table["references"] or []:
            if (name in declared) != (other in declared):
                which, absent = (name, other) if name in declared else (other, name)
                found.append(
                    f"region2_tables: {which} is declared and {absent} is not, and {name} references {other}: "
                    "a row or a TRUNCATE could arrive without the other: declare both, or neither."
                )
    return found


def changes(declared: Mapping[str, frozenset[str]], state: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What differs from the declaration, in words and with the SQL that mends it. `state` is a row of STATE; `declared` has no faults."""
    name, present = identifier(region2.NAME), state["publication"]
    wanted = {f"phoenix.{table}": columns for table, columns in declared.items()}
    found: list[tuple[str, str]] = []
    options = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true"
    listed = ", ".join(_spelled(table, columns) for table, columns in sorted(declared.items()))
    if present is not None and present["all"]:
        found.append((f"publication {region2.NAME} publishes whole schemas", f"DROP PUBLICATION {name};"))
        present = None
    if present is None:
        found.append((f"publication {region2.NAME} is missing", f"CREATE PUBLICATION {name} FOR TABLE {listed} WITH ({options});"))
    else:
        if not (present["actions"] and present["root"]):
            found.append((f"publication {region2.NAME} has other options", f"ALTER PUBLICATION {name} SET ({options});"))
        have = {table: frozenset(one["columns"]) for table, one in state["published"].items()}
        filtered = [table for table, one in state["published"].items() if one["filter"]]
        words = [f"lacks {table}" for table in sorted(wanted.keys() - have.keys())]
        words += [f"has {table}" for table in sorted(have.keys() - wanted.keys())]
        words += [f"has other columns of {table}" for table in sorted(wanted.keys() & have.keys()) if wanted[table] != have[table]]
        words += [f"filters {table}" for table in filtered]
        if words:
            # All at once: nothing is published twice or not at all in between.
            found.append((f"publication {region2.NAME} " + ", ".join(words), f"ALTER PUBLICATION {name} SET TABLE {listed};"))
    return found + _grants(declared, state)


def _grants(declared: Mapping[str, frozenset[str]], state: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The same for what the subscriber's login may read."""
    login, found = identifier(region2.LOGIN), []
    if not state["enters"]:
        found.append(
            (
                f"{region2.LOGIN} may not enter",
                f"GRANT CONNECT ON DATABASE {DATABASE} TO {login}; GRANT USAGE ON SCHEMA phoenix TO {login};",
            )
        )
    for name, table in sorted(state["tables"].items()):
        whole, some = _wanted_rights(declared.get(name))
        if set(table["granted"] or []) == whole and set(table["granted_columns"] or []) == some:
            continue
        sql = f"REVOKE ALL ON phoenix.{identifier(name)} FROM {login};"
        if name in declared:
            sql += f" GRANT SELECT {_columns(declared[name])} ON phoenix.{identifier(name)} TO {login};"
        found.append((f"{region2.LOGIN} has other rights on {name}", sql))
    return found


def _wanted_rights(columns: frozenset[str] | None) -> tuple[set[str], set[str]]:
    """Rights on the whole table, and columns that may be selected; `columns` of the declaration, None when it is not declared."""
    if columns is None:
        return set(), set()
    return (set(), set(columns)) if columns else ({"SELECT"}, set())


def _columns(columns: Sequence[str] | frozenset[str]) -> str:
    return f"({', '.join(identifier(column) for column in sorted(columns))})" if columns else ""


def _spelled(table: str, columns: frozenset[str]) -> str:
    return f"phoenix.{identifier(table)} {_columns(columns)}".rstrip()
