"""Heartbeats and consciousness into PostgreSQL, a batch in one round trip (sql/R__43_stream.sql).

Settings (`store`): `members`, the cluster's members as `host:port`; `user`; `password`, the name of a credential; `sslrootcert`.
Whoever takes writes is found by libpq.

Of an agent's heartbeats in a batch only the newest is written, and only when it is newer than what is stored. Of several figures for one
moment and team the last one counts.
"""

from __future__ import annotations

import math
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import psycopg
from phoenix_exporter.session import shut
from psycopg.types.json import Jsonb

from phoenix_stream.sink import Credential, Event, Rejected, Unavailable

AHEAD = timedelta(minutes=1)
"""How far a producer's clock may be ahead: one heartbeat from next year would keep its agent alive until then."""
BEHIND = timedelta(days=7)
"""How old a figure may be: what an agent may write itself, and what keeps the number of the hypertable's chunks bounded."""
TEAMS = frozenset({"alpha_delta", "epsilon_zeta", "iota"})

HEARTBEATS = "SELECT agent::text, problem FROM phoenix.apply_heartbeats(%s::uuid[], %s::timestamptz[], %s::uuid[], %s::timestamptz[])"
CONSCIOUSNESS = "SELECT phoenix.apply_consciousness(%s::jsonb)"

NUMBERS = (
    "global_consciousness",
    "global_trust",
    "team_consciousness",
    "team_coherence",
    "avg_dopamine",
    "avg_oxytocin",
    "avg_adrenaline",
    "avg_cortisol",
    "decisions_per_second",
)
COUNTS = ("active_agents", "tasks_per_hour", "entanglement_pairs")
_TOP_COUNT = 2**31

# The lead moves in two seconds when a server ends and in twenty when its machine does: nothing waits longer for an answer than this.
_PATIENCE = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 5000,
    "options": "-c statement_timeout=4s -c lock_timeout=3s -c idle_in_transaction_session_timeout=10s -c jit=off",
}


T = TypeVar("T")


# The server's own time-outs come first; a server that is frozen keeps none.
DEADLINE_S = 4.5


@contextmanager
def _deadline(connection: psycopg.Connection) -> Iterator[None]:
    """Nothing on the connection takes longer than DEADLINE_S: then its socket is shut, and libpq sees the end of the stream."""
    timer = threading.Timer(DEADLINE_S, _shut, [connection])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut(connection: psycopg.Connection) -> None:
    with suppress(OSError, psycopg.Error):
        shut(connection.pgconn.socket)


class Poison(Exception):
    """An event's data can never be stored; one line that says why."""


class Postgres:
    """The sink of `agent.heartbeat` and `consciousness.update`."""

    name = "postgres"
    topics = ("agent.heartbeat", "consciousness.update")
    versions: Mapping[str, int] = {"agent.heartbeat": 1, "consciousness.update": 1}

    def __init__(self, arguments: Mapping[str, Any], password: Credential, password_name: str) -> None:
        self._arguments, self._password, self._password_name = arguments, password, password_name
        self._connection: psycopg.Connection | None = None

    def apply(self, events: Sequence[Event]) -> list[Rejected]:
        """As of phoenix_stream.sink.Sink."""
        rejected: list[Rejected] = []
        beats: dict[str, tuple[Event, Beat]] = {}
        of_agent: dict[str, list[Event]] = {}
        figures: dict[tuple[datetime, str | None], tuple[Event, dict[str, Any]]] = {}
        now = datetime.now(UTC)
        for event in events:
            try:
                if event.event == "agent.heartbeat":
                    beat = heartbeat(event, now)
                    of_agent.setdefault(beat[0], []).append(event)
                    if beat[0] not in beats or beats[beat[0]][0].occurred_at <= event.occurred_at:
                        beats[beat[0]] = event, beat
                else:
                    at, row = consciousness(event, now)
                    figures[at, row["team"]] = event, row
            except Poison as reason:
                rejected.append(Rejected(event, str(reason)))
        for agent, problem in self._write([beat for _, beat in beats.values()], [row for _, row in figures.values()]):
            rejected += [Rejected(event, f"agent {agent} {problem}") for event in of_agent[agent]]
        return rejected

    def ping(self) -> None:
        """As of phoenix_stream.sink.Sink."""
        self._ask(lambda connection: connection.execute("SELECT"))

    def close(self) -> None:
        """As of phoenix_stream.sink.Sink."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _write(self, beats: Sequence[Beat], rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
        """Both in one transaction; the agents whose heartbeats could not be stored, and why not."""
        if not beats and not rows:
            return []

        def work(connection: psycopg.Connection) -> list[tuple[str, str]]:
            problems: list[tuple[str, str]] = []
            with connection.transaction():
                if beats:
                    # In the order of ids, as everybody locks agents: those who update some of them at a time must not wait in a circle.
                    columns = [list(column) for column in zip(*sorted(beats), strict=True)]
                    problems = connection.execute(HEARTBEATS, columns).fetchall()
                if rows:
                    connection.execute(CONSCIOUSNESS, [Jsonb(list(rows))])
            return problems

        return self._ask(work)

    def _ask(self, work: Callable[[psycopg.Connection], T]) -> T:
        """Run `work` on the connection, a new one when there is none. Raises Unavailable, or what the data did wrong."""
        try:
            if self._connection is None or self._connection.closed:
                # Read for every connection, so that a new password needs no restart of PostgreSQL's other clients first.
                self._connection = psycopg.connect(**self._arguments, password=self._password(self._password_name), autocommit=True)
            with _deadline(self._connection):
                return work(self._connection)
        except (psycopg.DataError, psycopg.IntegrityError):
            raise  # the runner finds out whose it is
        except (psycopg.Error, OSError) as error:
            # Also what is no event's fault: a right that is missing, a function that is not there yet, a server that only reads.
            self.close()
            raise Unavailable(" ".join(str(error).split()) or type(error).__name__) from error


Beat = tuple[str, datetime, str | None, datetime | None]
"""Agent, when, its task, idle since."""


def heartbeat(event: Event, now: datetime) -> Beat:
    """What a heartbeat says. Raises Poison."""
    agent = _uuid(event.data, "agent_id")
    if agent is None:
        raise Poison("agent_id is missing")
    if missing := {"current_task", "idle_since"} - event.data.keys():
        raise Poison(f"{', '.join(sorted(missing))} is missing; null says that there is none")
    if event.occurred_at > now + AHEAD:
        raise Poison(f"occurred_at is in the future: {event.occurred_at.isoformat()}")
    return agent, event.occurred_at, _uuid(event.data, "current_task"), _moment(event.data, "idle_since")


def consciousness(event: Event, now: datetime) -> tuple[datetime, dict[str, Any]]:
    """The row of an update and its time. Figures that are not known are left out: a newer producer may have more. Raises Poison."""
    at = _moment(event.data, "time")
    if at is None:
        raise Poison("time is missing")
    if not now - BEHIND <= at <= now + AHEAD:
        raise Poison(f"time is not within the last 7 days: {at.isoformat()}")
    row: dict[str, Any] = {"time": at.astimezone(UTC).isoformat(), "team": None}
    if (team := event.data.get("team")) is not None:
        if team not in TEAMS:
            raise Poison(f"there is no team {team!r:.80}")
        row["team"] = team
    for name in NUMBERS:
        row[name] = _number(event.data, name)
    for name in COUNTS:
        row[name] = _count(event.data, name)
    row["coherence_average"] = _interval(event.data, "coherence_average")
    if row["global_consciousness"] is None or not row["global_consciousness"] > 0:
        raise Poison("global_consciousness has to be a number above 0")
    if row["global_trust"] is None or not 0 <= row["global_trust"] <= 1:
        raise Poison("global_trust has to be a number from 0 to 1")
    if row["team"] is None and not (row["team_consciousness"] is None and row["team_coherence"] is None):
        raise Poison("team_consciousness and team_coherence need a team")
    return at.astimezone(UTC), row


def _uuid(data: Mapping[str, Any], name: str) -> str | None:
    value = data.get(name)
    if value is None:
        return None
    try:
        return str(uuid.UUID(value))
    except (ValueError, AttributeError, TypeError):
        raise Poison(f"{name} is no UUID: {value!r:.80}") from None


def _moment(data: Mapping[str, Any], name: str) -> datetime | None:
    """A time as RFC 3339 has it, with its zone."""
    value = data.get(name)
    if value is None:
        return None
    try:
        parsed = datetime.fromisoformat(value)
        if parsed.tzinfo is not None:
            parsed.timestamp()  # the first and the last year cannot be told in every zone
    except (TypeError, ValueError, OverflowError):
        raise Poison(f"{name} is no time: {value!r:.80}") from None
    if parsed.tzinfo is None:
        raise Poison(f"{name} has no time zone: {value!r:.80}")
    return parsed


def _number(data: Mapping[str, Any], name: str) -> float | None:
    value = data.get(name)
    if value is None:
        return None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise Poison(f"{name} is no number: {value!r:.80}")


def _count(data: Mapping[str, Any], name: str) -> int | None:
    value = data.get(name)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _TOP_COUNT:
        return value
    raise Poison(f"{name} is no count: {value!r:.80}")


def _interval(data: Mapping[str, Any], name: str) -> str | None:
    """A duration as ISO 8601 has it; whether it is one, PostgreSQL says."""
    value = data.get(name)
    if value is None or (isinstance(value, str) and 1 < len(value) <= 100):
        return value
    raise Poison(f"{name} is no duration: {value!r:.80}")


def open_sink(settings: Mapping[str, Any], credential: Credential) -> Postgres:
    """As of phoenix_stream.sink.Factory."""
    known = {"members", "user", "password", "sslrootcert", "sslmode", "database"}
    if unknown := sorted(settings.keys() - known):
        raise ValueError(f"{', '.join(unknown)}: not a setting; known here: {', '.join(sorted(known))}")
    members = settings.get("members")
    if not isinstance(members, list) or not members or not all(isinstance(one, str) and ":" in one for one in members):
        raise ValueError("members: must be a list of host:port")
    sslmode: Literal["verify-full", "disable"] = settings.get("sslmode", "verify-full")
    if sslmode == "verify-full" and "sslrootcert" not in settings:
        raise ValueError("sslrootcert: is missing: name the authority of the servers' certificates")
    arguments: dict[str, Any] = {
        "host": ",".join(one.rpartition(":")[0] for one in members),
        "port": ",".join(one.rpartition(":")[2] for one in members),
        "dbname": settings.get("database", "phoenix"),
        "user": settings.get("user", "stream"),
        "target_session_attrs": "read-write",
        "sslmode": sslmode,
        "application_name": "phoenix-stream",
        "prepare_threshold": 1,
        **_PATIENCE,
    }
    if "sslrootcert" in settings:
        arguments["sslrootcert"] = str(Path(settings["sslrootcert"]))
    return Postgres(arguments, credential, settings.get("password", "postgresql.password"))
