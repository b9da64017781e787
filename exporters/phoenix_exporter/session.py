"""The one connection to PostgreSQL, and the promise that nothing on it takes longer than its deadline.

A frozen server, or a network that swallows packets, answers neither a query nor the request to cancel it. So a
deadline is kept by shutting down the own end of the socket: libpq then sees the end of the stream at once, whatever
the other side does. The server notices too (client_connection_check_interval) and stops what it was doing, and its own
statement_timeout would stop it anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Coroutine
from typing import Any, TypeVar

import psycopg
from psycopg.rows import DictRow, dict_row

from phoenix_exporter.config import Database, Limits

T = TypeVar("T")

UNWIND_S = 0.2
CLIENT_CHECK_MS = 100


class DatabaseLost(Exception):
    """There is no usable connection: refused, broken, or silent for longer than the deadline."""


class StatementFailed(Exception):
    """The server answered that this statement cannot be done; the connection is fine."""


class Session:
    """At most one connection. Not for concurrent use: the engine runs one execution at a time."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database = database
        self._limits = limits
        self._connection: psycopg.AsyncConnection[DictRow] | None = None
        self._server_timeout_ms = 0
        self.connects_ok = 0
        self.connects_failed = 0
        self.server_version = ""

    @property
    def connected(self) -> bool:
        """Whether a connection is held, as far as this side knows."""
        return self._connection is not None

    @property
    def in_recovery(self) -> bool | None:
        """Whether the server is a standby, as it said with its last answer (it says so unasked); None without a connection."""
        if self._connection is None:
            return None
        return self._connection.info.parameter_status("in_hot_standby") == "on"

    async def connect(self, deadline: float) -> None:
        """Open the connection before `deadline` (event-loop time). Raises DatabaseLost."""
        self.close()
        try:
            arguments = self._arguments()
            # Nothing is prepared: a plan that outlives a migration fails once the shape of its view has changed.
            opening = psycopg.AsyncConnection.connect(**arguments, autocommit=True, row_factory=dict_row, prepare_threshold=None)
            connection = await self._before(deadline, opening)
        except OSError as error:
            self.connects_failed += 1
            raise DatabaseLost(f"password file {self._database.password_file}: {error.strerror}") from error
        except psycopg.Error as error:
            self.connects_failed += 1
            raise DatabaseLost(_one_line(error)) from error
        except DatabaseLost:
            self.connects_failed += 1
            raise
        self._connection = connection
        self.connects_ok += 1
        version = connection.info.parameter_status("server_version") or ""
        self.server_version = version.split(" ", maxsplit=1)[0]

    def _arguments(self) -> dict[str, Any]:
        database, limits = self._database, self._limits
        self._server_timeout_ms = round(limits.query_timeout_s * 1000)
        settings = {
            "default_transaction_read_only": "on",
            "statement_timeout": self._server_timeout_ms,
            "lock_timeout": round(limits.lock_timeout_s * 1000),
            "client_connection_check_interval": CLIENT_CHECK_MS,
            "search_path": "phoenix,public",
            "jit": "off",
        }
        arguments: dict[str, Any] = {
            "host": database.host,
            "port": database.port,
            "dbname": database.name,
            "user": database.user,
            "sslmode": database.sslmode,
            "application_name": "phoenix-exporter",
            "client_encoding": "UTF8",
            "options": " ".join(f"-c {key}={value}" for key, value in settings.items()),
        }
        if database.password_file is not None:
            # Read for every connection, so that a new password needs no restart where the file itself can be changed.
            arguments["password"] = database.password_file.read_text(encoding="utf-8").rstrip("\n")
        if database.sslrootcert is not None:
            arguments["sslrootcert"] = str(database.sslrootcert)
        return arguments

    async def query(self, sql: str, server_timeout_s: float, deadline: float) -> list[DictRow]:
        """Run one statement and give all its rows.

        The server stops it after `server_timeout_s`; when nothing came back by `deadline` (event-loop time) the
        connection is given up. Raises StatementFailed or DatabaseLost.
        """
        if self._connection is None:
            raise DatabaseLost("not connected")
        connection = self._connection
        milliseconds = max(1, int(server_timeout_s * 1000))

        async def work() -> list[DictRow]:
            if milliseconds != self._server_timeout_ms:
                await connection.execute(f"SET statement_timeout = {milliseconds}".encode())
                self._server_timeout_ms = milliseconds
            cursor = await connection.execute(sql.encode(), binary=True)
            return await cursor.fetchall()

        try:
            return await self._before(deadline, work())
        except psycopg.Error as error:
            if connection.closed or connection.pgconn.status != psycopg.pq.ConnStatus.OK:
                self.close()
                raise DatabaseLost(_one_line(error)) from error
            raise StatementFailed(_one_line(error)) from error

    async def _before(self, deadline: float, work: Coroutine[Any, Any, T]) -> T:
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)
        try:
            await asyncio.wait({task}, timeout=max(0.0, deadline - loop.time()))
            if task.done():
                return task.result()
        finally:
            # Reached at the deadline, and when the execution around it is aborted.
            if not task.done():
                await self._give_up(task)
        raise DatabaseLost("no answer before the deadline")

    async def _give_up(self, task: asyncio.Task[Any]) -> None:
        if self._connection is None:
            task.cancel()
        else:
            # Cancelling the task here would make psycopg ask the server to cancel, and wait for its answer.
            shut(self._connection.pgconn.socket)
        await asyncio.wait({task}, timeout=UNWIND_S)
        self.close()
        task.cancel()
        if task.done() and not task.cancelled() and task.exception() is None:
            late = task.result()
            if isinstance(late, psycopg.AsyncConnection):  # connected in the very moment of giving up
                late.pgconn.finish()

    def close(self) -> None:
        """Forget the connection now, without waiting for the server."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.closed:
            with contextlib.suppress(OSError, psycopg.Error):
                shut(connection.pgconn.socket)
            connection.pgconn.finish()


def shut(descriptor: int) -> None:
    """Shut the own end of a socket down: who waits for it sees the end of the stream at once. Raises OSError when it is closed already."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as end:
        end.shutdown(socket.SHUT_RDWR)


def _one_line(error: psycopg.Error) -> str:
    message = error.diag.message_primary or str(error)
    text = " ".join(message.split()) or type(error).__name__
    return f"{text} ({error.sqlstate})" if error.sqlstate else text
