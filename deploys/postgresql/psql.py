"""SQL on the present host, as the superuser over the local socket. Statements go over stdin: they are in no argument list or log."""

from __future__ import annotations

import shlex

from pyinfra.api import StringCommand

from deploys.lib import facts

PSQL = "runuser -u postgres -- psql -X -v ON_ERROR_STOP=1"


def execute(sql: str, *, database: str = "postgres", settings: str = "") -> StringCommand:
    """A command that runs `sql` in one transaction. `settings` are libpq options, for example `-c role=phoenix_owner`."""
    options = f"PGOPTIONS={shlex.quote(settings)} " if settings else ""
    return StringCommand(f"cd / && {options}{PSQL} -q --single-transaction -d {shlex.quote(database)} -f - >/dev/null", _stdin=sql)


def execute_outside_transaction(sql: str, *, database: str = "postgres") -> StringCommand:
    """A command that runs `sql` statement by statement: CREATE DATABASE refuses a transaction."""
    return StringCommand(f"cd / && {PSQL} -q -d {shlex.quote(database)} -f - >/dev/null", _stdin=sql)


class Query(facts.Json):
    """The single JSON value that a query returns; None when the server or the database is not there."""

    def command(self, sql: str, database: str = "postgres") -> str:
        return super().command(f"cd / && {PSQL} -qAt -d {shlex.quote(database)} -c {shlex.quote(sql)}")


def literal(text: str) -> str:
    """`text` as an SQL string literal (standard_conforming_strings is on)."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """`name` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
