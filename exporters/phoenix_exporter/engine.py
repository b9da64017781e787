"""Runs the collectors: one execution at a time, shared by all scrapes that wait for it, never longer than they wait."""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Tally
from dataclasses import dataclass, field

from prometheus_client.metrics_core import Metric

from phoenix_exporter import exposition, journal
from phoenix_exporter.collector import Collector, Role
from phoenix_exporter.collectors import ALL
from phoenix_exporter.config import Config
from phoenix_exporter.metric import Recorder, capped
from phoenix_exporter.session import DatabaseLost, Session, StatementFailed

# From the end of the server's own limit to ours: what its "cancelled" needs to travel.
GRACE_S = 0.2
# Less time than this is not worth a statement.
MIN_STATEMENT_S = 0.02
# An execution ends this much before those who wait for it give up, so that they get its last word and not half of it.
SETTLE_S = 0.05


@dataclass
class State:
    """What is known about one collector. Times are event-loop seconds, except `last_success` (unix)."""

    collector: Collector
    ttl_s: float
    timeout_s: float
    recorders: list[Recorder]
    text: bytes | None = None
    measured_at: float = 0.0
    duration_s: float = 0.0
    last_success: float = 0.0
    rows: int = 0
    error: str | None = None

    def good(self, now: float, since: float) -> bool:
        """Whether the values may be served: measured after `since`, or within the collector's time to live."""
        return self.text is not None and (self.measured_at >= since or now - self.measured_at < self.ttl_s)


@dataclass
class Execution:
    """One run over all collectors. `deadline` is the latest of those who wait."""

    started: float
    deadline: float
    waiters: int = 0
    answered: bool = False
    lost: str | None = None
    task: asyncio.Task[None] | None = None


@dataclass
class Totals:
    """Counters since the start of the process."""

    scrapes: int = 0
    executions: int = 0
    aborted: Tally[str] = field(default_factory=Tally)
    dropped: Tally[str] = field(default_factory=Tally)


class Engine:
    """The collectors of one database. All methods belong to one event loop."""

    def __init__(self, config: Config, collectors: tuple[Collector, ...] = ALL) -> None:
        self.config = config
        self.session = Session(config.database, config.limits)
        self.totals = Totals()
        self.duration_s = 0.0
        self.finished_at: float | None = None
        self.states = [self._state(c) for c in collectors if config.collector(c.name).enabled]
        self._current: Execution | None = None
        self._last: Execution | None = None
        self._one_at_a_time = asyncio.Lock()
        self._was_up: bool | None = None
        self._role: Role | None = None

    def _state(self, collector: Collector) -> State:
        settings = self.config.collector(collector.name)
        return State(
            collector,
            ttl_s=collector.ttl_s if settings.ttl_s is None else settings.ttl_s,
            timeout_s=self.config.limits.query_timeout_s if settings.timeout_s is None else settings.timeout_s,
            recorders=[kind.start() for kind in collector.metrics],
        )

    @property
    def up(self) -> bool:
        """Whether the database answered in the last execution and was not lost during it."""
        return self._last is not None and self._last.answered and self._last.lost is None

    @property
    def asked(self) -> list[State]:
        """The collectors that the server is asked in the role it had last; all of them before its first answer."""
        return [state for state in self.states if self._asks(state)]

    @property
    def lost(self) -> str | None:
        """Why the database was lost in the last execution."""
        return None if self._last is None else self._last.lost

    async def scrape(self, timeout_s: float) -> bytes:
        """Give the exposition within `timeout_s`; whatever is not measured by then is left out.

        When the caller is cancelled and nobody else waits, the execution is aborted and its connection closed.
        """
        now = asyncio.get_running_loop().time()
        deadline = now + max(timeout_s - SETTLE_S, timeout_s / 2)
        self.totals.scrapes += 1
        execution = self._current
        if execution is None:
            recent = self.finished_at is not None and now - self.finished_at < self.config.limits.min_interval_s
            if recent and self._last is not None:
                return self._render(self._last)
            execution = self._start(now, deadline)
        execution.deadline = max(execution.deadline, deadline)
        execution.waiters += 1
        assert execution.task is not None  # noqa: S101  (set by _start; for the type checker)
        reason = "abandoned"
        try:
            await asyncio.wait({execution.task}, timeout=timeout_s)
            reason = "deadline"
        finally:
            execution.waiters -= 1
            if execution.waiters == 0 and not execution.task.done():
                self._abort(execution, reason)
        return self._render(execution)

    def _start(self, now: float, deadline: float) -> Execution:
        execution = Execution(started=now, deadline=deadline)
        execution.task = asyncio.get_running_loop().create_task(self._run(execution))
        self._current = execution
        self.totals.executions += 1
        return execution

    def _abort(self, execution: Execution, reason: str) -> None:
        assert execution.task is not None  # noqa: S101
        self.totals.aborted[reason] += 1
        execution.lost = execution.lost or f"aborted: {reason}"
        execution.task.cancel()
        if self._current is execution:
            self._current = None
        journal.write("execution aborted", reason=reason, level="notice" if reason == "abandoned" else "warning")

    async def _run(self, execution: Execution) -> None:
        loop = asyncio.get_running_loop()
        async with self._one_at_a_time:  # an aborted one may still be closing its connection
            try:
                await self._collect(execution)
            except Exception as error:  # a fault of ours: the scrapers still get an answer, and somebody can read why
                execution.lost = f"internal error: {type(error).__name__}: {error}"
                journal.write("execution failed", level="error", reason=execution.lost)
            finally:
                if self._current is execution:
                    self._current = None
            self.finished_at = loop.time()
            self.duration_s = self.finished_at - execution.started
            self._last = execution
            self._tell(execution)

    async def _collect(self, execution: Execution) -> None:
        loop = asyncio.get_running_loop()
        contact = loop.time() + self.config.limits.contact_timeout_s
        for state in self.states:
            began = loop.time()
            self._take_role()
            if not self._asks(state):
                state.text = state.error = None  # nothing of another role is served again
                continue
            if state.good(began, since=float("inf")):
                continue
            remaining = execution.deadline - began
            if execution.lost is not None:
                self._failed(state, f"database lost: {execution.lost}", 0.0)
                continue
            if remaining < MIN_STATEMENT_S:
                self._failed(state, "no time left before the deadline of the scrape", 0.0)
                continue
            # Short deadlines cannot afford the whole grace; then half of the time is the statement's.
            server_s = min(state.timeout_s, max(remaining - GRACE_S, remaining / 2))
            deadline = min(began + server_s + GRACE_S, execution.deadline)
            try:
                if not execution.answered:
                    rows = await self._first(state, server_s, min(deadline, contact))
                else:
                    rows = await self.session.query(state.collector.sql, server_s, deadline)
                execution.answered = True
                self._succeeded(state, rows, began)
            except (KeyError, TypeError, ValueError) as error:  # a view gives what its metrics were not written for
                self._failed(state, f"unexpected answer: {type(error).__name__}: {error}", loop.time() - began)
            except StatementFailed as error:
                execution.answered = True
                self._failed(state, str(error), loop.time() - began)
            except DatabaseLost as error:
                execution.lost = str(error)
                self._failed(state, f"database lost: {error}", loop.time() - began)

    def _asks(self, state: State) -> bool:
        return self._role is None or self._role in state.collector.roles

    def _take_role(self) -> None:
        in_recovery = self.session.in_recovery
        if in_recovery is not None:
            self._role = Role.STANDBY if in_recovery else Role.COPY if self.config.copy else Role.LEADER

    async def _first(self, state: State, server_s: float, deadline: float) -> list[dict[str, object]]:
        """Ask the first statement, over a new connection when the old one is broken (the server was restarted)."""
        loop = asyncio.get_running_loop()
        if self.session.connected:
            try:
                return await self.session.query(state.collector.sql, server_s, deadline)
            except DatabaseLost:
                if loop.time() >= deadline:
                    raise
        await self.session.connect(deadline)
        return await self.session.query(state.collector.sql, server_s, deadline)

    def _succeeded(self, state: State, rows: list[dict[str, object]], began: float) -> None:
        now = asyncio.get_running_loop().time()
        families: list[Metric] = []
        for kind, recorder in zip(state.collector.metrics, state.recorders, strict=True):
            family = recorder.record(rows, now)
            if kind.labels:
                self.totals.dropped[kind.name] += capped(family, self.config.limits.series_per_metric)
            families.append(family)
        state.text = exposition.render(families)
        state.measured_at = now
        state.last_success = time.time()
        state.duration_s = now - began
        state.rows = len(rows)
        if state.error is not None:
            journal.write("collector recovered", collector=state.collector.name)
        state.error = None

    def _failed(self, state: State, why: str, duration_s: float) -> None:
        if state.error is None and not why.startswith("database lost"):
            journal.write("collector failed", level="warning", collector=state.collector.name, reason=why)
        state.text = None
        state.error = why
        state.duration_s = duration_s

    def _tell(self, execution: Execution) -> None:
        """Log a change of the database's state, once."""
        up = execution.answered and execution.lost is None
        if up == self._was_up:
            return
        self._was_up = up
        if up:
            journal.write("database answers", server=self.session.server_version)
        else:
            journal.write("database does not answer", level="error", reason=execution.lost or "no statement was answered")

    def _render(self, execution: Execution) -> bytes:
        now = asyncio.get_running_loop().time()
        up = execution.answered and execution.lost is None
        # Judged as when the execution began: a value that was young enough for it stays in all of its answers.
        served = [state for state in self.asked if state.good(execution.started, execution.started)]
        return b"".join([exposition.render(exposition.own(self, up, now, served)), *(s.text for s in served if s.text)])

    async def stop(self) -> None:
        """Abort what runs and close the connection."""
        execution = self._current
        if execution is not None and execution.task is not None:
            self._abort(execution, "stopped")
            await asyncio.wait({execution.task}, timeout=1.0)
        self.session.close()
