"""SQL on the present host, as the superuser over the local socket. Statements go over stdin: they are in no argument list or log."""

from __future__ import annotations

import shlex
from typing import Any, NamedTuple

from pyinfra import host
from pyinfra.api import StringCommand

from deploys.lib import facts, hosts
from deploys.lib.settings import PostgresqlSettings


def psql() -> str:
    """The server's own psql: Debian's in /usr/bin is a Perl program that looks for it, ten times as slow."""
    return f"runuser -u postgres -- /usr/lib/postgresql/{hosts.settings(PostgresqlSettings).version}/bin/psql -X -v ON_ERROR_STOP=1"


def execute(sql: str, *, database: str = "postgres", settings: str = "") -> StringCommand:
    """A command that runs `sql` in one transaction. `settings` are libpq options, for example `-c role=phoenix_owner`."""
    options = f"PGOPTIONS={shlex.quote(settings)} " if settings else ""
    return StringCommand(f"cd / && {options}{psql()} -q --single-transaction -d {shlex.quote(database)} -f - >/dev/null", _stdin=sql)


def execute_outside_transaction(sql: str, *, database: str = "postgres") -> StringCommand:
    """A command that runs `sql` statement by statement: CREATE DATABASE refuses a transaction."""
    return StringCommand(f"cd / && {psql()} -q -d {shlex.quote(database)} -f - >/dev/null", _stdin=sql)


class Query(facts.Json):
    """The single JSON value that a query returns; None when the server or the database is not there."""

    def command(self, sql: str, database: str = "postgres") -> str:
        return super().command(f"cd / && {psql()} -qAt -d {shlex.quote(database)} -c {shlex.quote(sql)}")


class Answer(NamedTuple):
    """What a query said of the member that leads."""

    leads: bool
    """Whether the present host's server takes writes; in a dry run of a bare host none does."""
    value: Any
    """The JSON value; None elsewhere than on the leader, and when the database is not there."""


ELSEWHERE = "elsewhere"


class LeaderQuery(Query):
    """A query's single JSON value where the server takes writes, as an `Answer`. Both are asked in one session, and a standby is
    asked no more than that it is one.
    """

    def command(self, sql: str, database: str = "postgres") -> str:
        def asked(query: str) -> str:
            return f"SELECT pg_is_in_recovery() AS elsewhere \\gset\n\\if :elsewhere\n\\echo {ELSEWHERE}\n\\else\n{query};\n\\endif\n"

        def session(query: str, database: str) -> str:
            return f"printf %s {shlex.quote(asked(query))} | {psql()} -qAt -d {shlex.quote(database)} -f -"

        without = session("SELECT 'null'", "postgres")  # the server may be there and the database not, or what the query asks about
        return f"(cd / && {{ {session(sql, database)} || {without}; }}) 2>/dev/null || echo {ELSEWHERE}"

    def process(self, output: list[str]) -> Answer:
        return Answer(False, None) if ELSEWHERE in output else Answer(True, super().process(output))

    @staticmethod
    def default() -> Answer:
        """Of a host where nothing answers."""
        return Answer(False, None)


def of_leader(sql: str, *, database: str = "postgres") -> Answer:
    """What `sql` says where the present host's member leads."""
    answer: Answer = host.get_fact(LeaderQuery, sql=sql, database=database)
    return answer


def leads() -> bool:
    """Whether the present host's member leads now. In a dry run of a bare host nobody does."""
    return of_leader("SELECT 'true'::json").leads


def literal(text: str) -> str:
    """`text` as an SQL string literal (standard_conforming_strings is on)."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """`name` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
