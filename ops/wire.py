"""One PostgreSQL session in which nothing waits longer than it is told to: for watching a database that dies under the watcher.

libpq's own connect_timeout counts whole seconds and a frozen server answers no cancel request, so neither a blocking call nor one that
asks the server to stop is of use here. A deadline closes the socket.
"""

from __future__ import annotations

import select
import time
from types import TracebackType
from typing import Self

import psycopg
from psycopg import pq

_READING, _WRITING = pq.PollingStatus.READING, pq.PollingStatus.WRITING


class Lost(Exception):
    """The session ended, could not be had, or did not answer in time; what was sent may or may not have been done."""


class Wire:
    """An open session. After `Lost` it is of no more use."""

    def __init__(self, conninfo: str, *, timeout_s: float) -> None:
        """Log in by `conninfo` (libpq's keywords; give hostaddr, names are looked up without a deadline). Raises Lost."""
        self.notices: list[str] = []
        """What the server remarked on the present statement."""
        deadline = time.monotonic() + timeout_s
        self._pg = pq.PGconn.connect_start(conninfo.encode())
        self._pg.notice_handler = lambda result: self.notices.append(result.error_message.decode(errors="replace").strip())
        try:
            waiting_for: int = _WRITING
            while self._pg.status != pq.ConnStatus.BAD:
                self._wait(waiting_for, deadline)
                waiting_for = self._pg.connect_poll()
                if waiting_for == pq.PollingStatus.OK:
                    self._pg.nonblocking = 1
                    return
                if waiting_for == pq.PollingStatus.FAILED:
                    break
            raise Lost(self._said())
        except psycopg.Error as failure:
            self._pg.finish()
            raise Lost(str(failure).strip() or type(failure).__name__) from failure
        except BaseException:
            self._pg.finish()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the session."""
        self._pg.finish()

    def value(self, sql: str, *, timeout_s: float) -> str | None:
        """The first column of the first row that `sql` gives, as text; None for NULL and for no row. Raises Lost."""
        deadline = time.monotonic() + timeout_s
        self.notices.clear()
        try:
            self._pg.send_query(sql.encode())
            while self._pg.flush():
                self._wait(_WRITING, deadline)
            found, error = None, None
            while True:
                while self._pg.is_busy():
                    self._wait(_READING, deadline)
                    self._pg.consume_input()
                result = self._pg.get_result()
                if result is None:
                    break
                if result.status == pq.ExecStatus.TUPLES_OK and result.ntuples:
                    content = result.get_value(0, 0)
                    found = None if content is None else content.decode()
                elif result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
                    error = result.error_message.decode(errors="replace").strip()
        except psycopg.Error as failure:
            raise Lost(str(failure).strip() or type(failure).__name__) from failure
        if error is not None:
            raise Lost(error)
        return found

    def _wait(self, direction: int, deadline: float) -> None:
        left = deadline - time.monotonic()
        sockets = [self._pg.socket]
        reading = sockets if direction == _READING else []
        writing = sockets if direction == _WRITING else []
        if left <= 0 or not any(select.select(reading, writing, [], left)):
            raise Lost("no answer in time")

    def _said(self) -> str:
        lines = self._pg.error_message.decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "the connection was refused"
