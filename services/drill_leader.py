"""The witness: what the live leader holds at one position of its WAL, and a marker behind that position.

A logical slot that is made only for its snapshot gives both: the position at which the slot is consistent, and a snapshot of exactly the
transactions that committed before it. Nothing is locked, and the slot is gone as soon as the snapshot is taken over.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import drill_fingerprint as fingerprint
import psycopg
from drill_config import Config, credential
from drill_errors import DrillFailed, first_line
from psycopg import sql

CONNECT_TIMEOUT_S = 20
"""Long: a drill is in no hurry, and a busy leader is no lost one."""
MARKER_PREFIX = "phoenix-drill"
CARRIED_OVER = (
    # A server refuses to recover with less of these than the one that wrote the WAL.
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    # Types and functions of the data need these.
    "shared_preload_libraries",
    "timescaledb.license",
)
"""Parameters of the leader that the scratch cluster takes over."""


@dataclass(frozen=True)
class Witness:
    """What the leader held."""

    host: str
    """Address of the leader."""
    lsn: str
    """The position: every transaction whose commit stands before it is in `tables`, no other."""
    tables: dict[str, fingerprint.Content]
    parameters: dict[str, str]
    """`CARRIED_OVER` parameters that the leader has."""


@dataclass(frozen=True)
class Marker:
    """A commit behind the witness, written so that there is something to wait for."""

    committed_at: float
    """`time.monotonic()` when the leader acknowledged it."""
    lsn: str
    segment: str
    """Name of the WAL segment that holds it."""

    @property
    def timeline(self) -> int:
        """Timeline on which it was written."""
        return int(self.segment[:8], 16)


class Leader:
    """A session with the leader whose snapshot stands at `lsn`. Use `opened`."""

    def __init__(self, config: Config, session: psycopg.Connection, lsn: str) -> None:
        self._config = config
        self._session = session
        self.lsn = lsn

    def marker(self) -> Marker:
        """Commit a marker now. It is a message in the WAL; no table is touched. Raises psycopg.Error."""
        with connect(self._config, host=self._session.info.host) as session:
            session.execute("SELECT pg_logical_emit_message(true, %s, %s)", (MARKER_PREFIX, self.lsn))
            session.commit()
            committed_at = time.monotonic()
            row = session.execute("SELECT lsn, pg_walfile_name(lsn) FROM pg_current_wal_insert_lsn() lsn").fetchone()
        assert row is not None  # noqa: S101 - a query without FROM a table returns a row
        return Marker(committed_at, str(row[0]), str(row[1]))

    def witness(self) -> Witness:
        """Count and hash every table of the schema, as of `lsn`. Raises psycopg.Error."""
        rows = self._session.execute(
            "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(%s)", (list(CARRIED_OVER),)
        ).fetchall()
        held = contents(self._session, self._config.schema)
        return Witness(self._session.info.host, self.lsn, held, dict(rows))


@contextmanager
def opened(config: Config) -> Iterator[Leader]:
    """The leader, in a session whose snapshot stands at one position of the WAL.

    Raises DrillFailed when no member takes writes, when the login is refused, or when the snapshot does not come in time.
    """
    try:
        with connect(config) as session:
            _prepare(session, config)
            with connect(config, host=session.info.host, replication=True) as slots:
                lsn, snapshot = _export(slots, config.witness_timeout_s)
                session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                session.read_only = True
                session.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(snapshot))
            yield Leader(config, session, lsn)  # the slot went with its session; the snapshot stays for this one
    except psycopg.Error as error:
        raise DrillFailed(
            f"The leader of {config.stanza} (one of {', '.join(config.hosts)}) gives no witness ({first_line(error)}): "
            f"see './phoenix status'; './phoenix deploy' repairs the login {config.user}."
        ) from error


def contents(session: psycopg.Connection, schema: str) -> dict[str, fingerprint.Content]:
    """What each table of the schema holds, by its qualified name, as the session's snapshot sees it. Raises psycopg.Error."""
    found = {}
    for table in fingerprint.tables(session.execute(fingerprint.TABLES.encode(), (schema,)).fetchall()):
        row = session.execute(fingerprint.query(table).encode()).fetchone()
        assert row is not None  # noqa: S101 - an aggregate without GROUP BY returns a row
        found[table.qualified] = fingerprint.Content(int(row[0]), str(row[1]))
    return found


def connect(config: Config, *, host: str = "", replication: bool = False) -> psycopg.Connection:
    """A session with whichever member takes writes, or with `host` alone. Raises psycopg.Error."""
    return psycopg.connect(
        "replication=database" if replication else "",
        host=host or ",".join(config.hosts),
        port=config.port,
        dbname=config.database,
        user=config.user,
        password=credential("password").read_text(encoding="utf-8").strip(),
        sslmode="verify-full",
        sslrootcert=config.ca,
        target_session_attrs="primary",
        application_name="phoenix-drill",
        connect_timeout=CONNECT_TIMEOUT_S,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=20_000,
        # psycopg would begin a transaction, in which a replication session does not make slots.
        autocommit=replication,
    )


def _prepare(session: psycopg.Connection, config: Config) -> None:
    for setting in fingerprint.SESSION:
        session.execute(setting.encode())
    session.execute(sql.SQL("SET statement_timeout = {}").format(f"{config.witness_timeout_s}s"))
    # One process of the leader is enough: it has work to do.
    session.execute(b"SET max_parallel_workers_per_gather = 0")
    session.commit()


def _export(slots: psycopg.Connection, timeout_s: int) -> tuple[str, str]:
    """Position and name of a snapshot that lives until the session's next command, or its end.

    The slot waits for the transactions that run now. Time-outs of the server do not reach commands of replication, so the client counts.
    """
    timer = threading.Timer(timeout_s, slots.cancel)
    timer.start()
    try:
        name = f"phoenix_drill_{secrets.token_hex(8)}"
        row = slots.execute(f"CREATE_REPLICATION_SLOT {name} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'export')".encode()).fetchone()
    except psycopg.errors.QueryCanceled:
        raise DrillFailed(
            f"A transaction on {slots.info.host} has been open for more than {timeout_s} s, and no snapshot comes before its end: "
            "look for it in pg_stat_activity."
        ) from None
    finally:
        timer.cancel()
    assert row is not None  # noqa: S101 - the command returns a row or fails
    _, lsn, snapshot, _ = row
    return str(lsn), str(snapshot)
