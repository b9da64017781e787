"""What a schema holds, as one row count and one hash for each table; the same on two servers when they hold the same rows.

A row's hash is made from the binary form in which PostgreSQL would send each column (`pg_type.typsend`), so any type can take part,
also those without a hash function of their own (vectors), and two values that are merely equal (1.0 and 1.00) differ. The rows' hashes
are added up: the order in which a server finds its rows does not matter, and a row that is there twice counts twice.
Source of the method: docs/decisions/0520-fingerprint-at-an-lsn.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SESSION = (
    # Row security must not hide rows in silence: without BYPASSRLS the query fails instead.
    "SET row_security = off",
    # Text is hashed as it is sent, that is in the client's encoding.
    "SET client_encoding = 'UTF8'",
    "SET search_path = pg_catalog",
    "SET jit = off",
)
"""What a session has to be told before it runs `TABLES` and `query`."""

TABLES = """
SELECT n.nspname, c.relname, a.attname,
       CASE WHEN t.typsend <> 0 THEN (SELECT format('%%I.%%I', fn.nspname, f.proname)
                                      FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace fn ON fn.oid = f.pronamespace
                                      WHERE f.oid = t.typsend) END
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE n.nspname = %s
  AND (c.relkind IN ('r', 'p') OR (c.relkind = 'm' AND c.relispopulated))
  AND c.relpersistence = 'p'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid)
ORDER BY n.nspname, c.relname, a.attnum
"""
"""Tables and populated materialized views of a schema with their columns and each column's send function (schema-qualified, quoted).

Partitions and chunks of hypertables are counted in their parent. Unlogged, temporary and foreign tables are left out: no backup has
their rows. Parameter: the schema's name. One row for each column; a table without columns has one row with nulls.
"""


@dataclass(frozen=True)
class Table:
    """A table and its columns: name, and the function that gives the column's binary form, None when its type has none."""

    schema: str
    name: str
    columns: tuple[tuple[str, str | None], ...]

    @property
    def qualified(self) -> str:
        """`schema.name`, for people."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class Content:
    """What a table holds: the number of its rows and the sum of their hashes, a decimal number."""

    rows: int
    hash: str


@dataclass(frozen=True)
class Difference:
    """A table that does not hold the same on both sides; None where it is missing."""

    table: str
    witnessed: Content | None
    restored: Content | None

    def __str__(self) -> str:
        if self.restored is None:
            return f"{self.table} is missing"
        if self.witnessed is None:
            return f"{self.table} should not exist"
        if self.witnessed.rows != self.restored.rows:
            return f"{self.table} has {self.restored.rows} rows instead of {self.witnessed.rows}"
        return f"{self.table} has other contents in its {self.restored.rows} rows"


def tables(rows: Iterable[tuple[str, str, str | None, str | None]]) -> list[Table]:
    """The answer of `TABLES`, table by table."""
    found: dict[tuple[str, str], list[tuple[str, str | None]]] = {}
    for schema, name, column, send in rows:
        columns = found.setdefault((schema, name), [])
        if column is not None:
            columns.append((column, send))
    return [Table(schema, name, tuple(columns)) for (schema, name), columns in found.items()]


def query(table: Table) -> str:
    """SQL for the table's `Content`: one row of count and sum. It holds no parameters."""
    columns = ", ".join(_bytes(name, send) for name, send in table.columns)
    # The only way to hash a bytea in SQL before PostgreSQL 18; it also tells a null from every value, and one column from another.
    row = f"pg_catalog.hash_array_extended(ARRAY[{columns}]::pg_catalog.bytea[], 0)"
    return f"SELECT count(*), coalesce(sum({row}), 0) FROM {identifier(table.schema)}.{identifier(table.name)} AS r"


def _bytes(name: str, send: str | None) -> str:
    column = f"r.{identifier(name)}"
    return f"pg_catalog.convert_to({column}::pg_catalog.text, 'UTF8')" if send is None else f"{send}({column})"


def differences(witnessed: Mapping[str, Content], restored: Mapping[str, Content]) -> list[Difference]:
    """Tables that differ, by name."""
    return [
        Difference(table, witnessed.get(table), restored.get(table))
        for table in sorted(witnessed.keys() | restored.keys())
        if witnessed.get(table) != restored.get(table)
    ]


def lost_rows(found: Iterable[Difference]) -> int:
    """Rows that the restored side has too few, added up over the tables. A row that merely changed is no lost row."""
    return sum(max(0, (one.witnessed.rows if one.witnessed else 0) - (one.restored.rows if one.restored else 0)) for one in found)


def identifier(name: str) -> str:
    """`name` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
