"""The ledger: a writer outside the database that writes down, on disk, every row whose commit the database has acknowledged.

Afterwards the table is compared with what was written down: what is acknowledged and missing is lost, to the row. The longest time
between two acknowledged rows is how long there were no writes, as a client sees it.

    with Ledger(conninfos, Path("ledger.jsonl"), table="drill.ledger_1") as ledger:
        ledger.wait(10)                       # ten rows acknowledged: the writers run
        ...the disaster...
        ledger.wait(10)                       # ten more: writes work again
    verdict = ledger.judge(map(int, psql(ledger.present_sql).split()))
    assert verdict.lost == ()

The table is made by the caller, as a superuser, with `create_sql`, and removed with `drop_sql`.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from ops.wire import Lost, Wire

SCHEMA = "drill"
_TABLE = re.compile(rf"{SCHEMA}\.[a-z][a-z0-9_]*")

# PostgreSQL acknowledges a commit that was cancelled while it waited for its standby, with this remark: it may be lost.
_NOT_REPLICATED = "might not have been replicated"


def table_name(moment: datetime) -> str:
    """A table of its own for a run that began at `moment`."""
    return f"{SCHEMA}.ledger_{moment:%Y%m%d_%H%M%S_%f}"


def create_sql(table: str, role: str) -> str:
    """SQL, for a superuser, that makes the table for the writer `role`."""
    return (
        f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}; GRANT USAGE ON SCHEMA {SCHEMA} TO {role}; "
        f"CREATE TABLE {_checked(table)} (id bigint PRIMARY KEY, written_at timestamptz NOT NULL DEFAULT clock_timestamp()); "
        f"GRANT INSERT, SELECT ON {table} TO {role};"
    )


def drop_sql(table: str) -> str:
    """SQL, for a superuser, that removes the table, and the schema when nothing else is in it. Does no harm when they are gone."""
    return (
        f"DROP TABLE IF EXISTS {_checked(table)}; DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n "
        f"ON n.oid = c.relnamespace WHERE n.nspname = '{SCHEMA}') THEN DROP SCHEMA IF EXISTS {SCHEMA}; END IF; END $$;"
    )


@dataclass(frozen=True)
class Acknowledged:
    """One row whose commit was acknowledged."""

    id: int
    at: float
    """Unix time of the acknowledgement."""
    clock: float
    """The same by the monotonic clock of the writer's computer, for differences."""
    lsn: str
    """Where the leader's WAL was when the row was written."""
    via: int
    """Which of the conninfos it went through."""


@dataclass(frozen=True)
class Gap:
    """A time without an acknowledged write, in seconds. `after` None: it had not ended when it was looked at."""

    seconds: float
    before: Acknowledged
    after: Acknowledged | None


@dataclass(frozen=True)
class Verdict:
    """What became of the rows."""

    attempted: int
    acknowledged: int
    present: int
    lost: tuple[int, ...]
    """Acknowledged, and not in the table. Zero is the promise."""
    lost_seconds: float
    """From the first lost row's acknowledgement to the last acknowledgement before the disaster took it: the data loss as time."""
    unconfirmed: tuple[int, ...]
    """In the table, and never acknowledged: the answer was cut off. A client that asks again must expect these."""
    unknown: tuple[int, ...]
    """In the table, and never sent by this ledger. Anything here means the wrong table was read."""


class Ledger:
    """Writers that insert numbered rows until the `with` ends.

    `conninfos`: libpq keyword strings, the ways in; a writer that loses one goes on with the next. `path`: one JSON object a line for
    each acknowledged row, on disk before the next is sent. `interval_s`: each of `writers` writes that often. Nothing waits longer than
    `timeout_s`. Two writers, because one that waits for an answer that never comes does not see the service return. `rows_per_session`: a
    writer logs in anew after so many; a server that answers its old sessions and lets nobody in is found out by that alone.
    """

    def __init__(
        self,
        conninfos: Sequence[str],
        path: Path,
        *,
        table: str,
        interval_s: float = 0.05,
        timeout_s: float = 1.0,
        writers: int = 2,
        rows_per_session: int | None = None,
    ) -> None:
        if not conninfos:
            raise ValueError("a ledger needs a way in: give at least one conninfo")
        self.path = path
        self.table = _checked(table)
        self._conninfos = list(conninfos)
        self._interval_s, self._timeout_s = interval_s, timeout_s
        self._rows_per_session = rows_per_session
        self._ids = itertools.count(1)
        self._lock = threading.Condition()
        self._acknowledged: list[Acknowledged] = []
        self._attempted = 0
        self._trouble: list[str] = []
        self._stop = threading.Event()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._threads = [threading.Thread(target=self._write, args=(number,), daemon=True) for number in range(writers)]

    @property
    def present_sql(self) -> str:
        """SQL that gives the ids in the table, a row each."""
        return f"SELECT id FROM {self.table} ORDER BY id"

    @property
    def trouble(self) -> list[str]:
        """What went wrong with single writes, in their order, repetitions left out."""
        with self._lock:
            return [text for text, _ in itertools.groupby(self._trouble)]

    @property
    def acknowledged(self) -> list[Acknowledged]:
        """The rows acknowledged so far, in the order of their acknowledgement."""
        with self._lock:
            return list(self._acknowledged)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End the writers and close the file. Takes at most `timeout_s` or so; a second call does nothing."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def wait(self, rows: int, *, timeout_s: float = 60.0) -> bool:
        """Whether `rows` more rows were acknowledged within `timeout_s`."""
        with self._lock:
            goal = len(self._acknowledged) + rows
            return self._lock.wait_for(lambda: len(self._acknowledged) >= goal, timeout=timeout_s)

    def gap(self, *, since: float = 0.0) -> Gap:
        """The longest time without an acknowledged write, among those that ended after `since` (monotonic clock), the present one included.

        Raises ValueError when nothing was acknowledged yet.
        """
        rows = self.acknowledged
        if not rows:
            raise ValueError("nothing was acknowledged yet: wait() for the first rows")
        gaps = [Gap(later.clock - earlier.clock, earlier, later) for earlier, later in itertools.pairwise(rows) if later.clock >= since]
        if not self._stop.is_set():
            gaps.append(Gap(time.monotonic() - rows[-1].clock, rows[-1], None))
        return max(gaps, key=lambda gap: gap.seconds, default=Gap(0.0, rows[-1], rows[-1]))

    def judge(self, present: Iterable[int]) -> Verdict:
        """Compare the ids that are in the table now with those that were acknowledged."""
        there = set(present)
        rows = self.acknowledged
        known = {row.id for row in rows}
        lost = [row for row in rows if row.id not in there]
        with self._lock:
            attempted = self._attempted
        return Verdict(
            attempted=attempted,
            acknowledged=len(rows),
            present=len(there),
            lost=tuple(sorted(row.id for row in lost)),
            lost_seconds=lost[-1].clock - lost[0].clock if lost else 0.0,
            unconfirmed=tuple(sorted(number for number in there - known if number <= attempted)),
            unknown=tuple(sorted(number for number in there if number > attempted or number < 1)),
        )

    def _write(self, number: int) -> None:
        """One writer. It begins with its own way in, so that all of them are in use."""
        ways = itertools.cycle(range(len(self._conninfos)))
        via = next(itertools.islice(ways, number % len(self._conninfos), None))
        # Spread over the interval, so that the writers do not all write at the same moment.
        due = time.monotonic() + self._interval_s * number / max(1, len(self._threads))
        while not self._stop.is_set():
            try:
                with Wire(self._conninfos[via], timeout_s=self._timeout_s) as wire:
                    for _ in itertools.count() if self._rows_per_session is None else range(self._rows_per_session):
                        if self._stop.wait(max(0.0, due - time.monotonic())):
                            return
                        due = max(due + self._interval_s, time.monotonic())
                        self._insert(wire, via)
            except Lost as error:
                with self._lock:
                    self._trouble.append(str(error).splitlines()[0])
                via = next(ways)
                self._stop.wait(self._interval_s)

    def _insert(self, wire: Wire, via: int) -> None:
        with self._lock:
            number = next(self._ids)
            self._attempted = number
        lsn = wire.value(
            f"INSERT INTO {self.table} (id) VALUES ({number}) RETURNING pg_current_wal_insert_lsn()", timeout_s=self._timeout_s
        )
        if any(_NOT_REPLICATED in notice for notice in wire.notices):
            raise Lost("a commit was not replicated")
        row = Acknowledged(number, time.time(), time.monotonic(), lsn or "", via)
        with self._lock:
            os.write(self._file, (json.dumps(asdict(row)) + "\n").encode())
            os.fsync(self._file)
            self._acknowledged.append(row)
            self._lock.notify_all()


def moment(row: Acknowledged) -> str:
    """When `row` was acknowledged, UTC, to the millisecond."""
    return datetime.fromtimestamp(row.at, UTC).isoformat(timespec="milliseconds")


def _checked(table: str) -> str:
    if not _TABLE.fullmatch(table):
        raise ValueError(f"{table} is no table for a ledger: name one as {SCHEMA}.NAME, lower case")
    return table
