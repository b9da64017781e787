"""Looks on, from outside, while the cluster is changed: writes all the time, and shows afterwards that clients find the new leader, that
nothing acknowledged is missing and how long there were no writes. Steps two to five of the spec's failover; the drills use them as well."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploys.lib.settings import HostSettings, Platform, PlatformHost, PostgresqlSettings
from ops import entrance, ledger, remote
from ops.cluster import Cluster
from ops.entrance import Way
from ops.errors import Ended, Failed
from ops.ledger import Ledger
from ops.moment import lsn
from ops.receipt import Receipt
from ops.shells import DATABASE
from ops.steps import Doing
from ops.terminal import Terminal
from ops.wire import Lost, Wire

ROWS_BEFORE, ROWS_AFTER = 20, 20
WRITES_WAIT_S = 90
WAY_WAIT_S = 20
REBUILD_WAIT_S = 180

# The timeline of a server that was just promoted is in the names of its WAL at once, and in its control file with the next checkpoint.
POSITION = """
SELECT json_build_object('in_recovery', pg_is_in_recovery(),
    'timeline', CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
                     ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END,
    'checksum_failures', (SELECT coalesce(sum(checksum_failures), 0) FROM pg_stat_database),
    'lsn', CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)
"""


@dataclass(frozen=True)
class Watch:
    """A writer at work, and the ways in that it uses."""

    cluster: Cluster
    ways: Sequence[Way]
    writer: Ledger
    kept: Receipt

    def prove(self, leader: PlatformHost, *, began: float, before: dict[str, Any] | None = None) -> None:
        """Steps two to four: clients find `leader`, it has everything, it takes writes. `began` is the monotonic time of the change;
        `before` the old leader's `position` then, where it could be asked. Fills in the receipt's RPO, RTO and lost rows. Raises Failed.
        """
        with self.kept.steps.step("update connection strings") as doing:
            for way in self.ways:
                doing.note(_leads_to(way, leader))
        with self.kept.steps.step("verify data integrity") as doing:
            self._integrity(leader, began, before, doing)
        with self.kept.steps.step("resume operations") as doing:
            self.resumed(leader, began, doing)

    def resumed(self, leader: PlatformHost, began: float, doing: Doing) -> None:
        """Writes succeed; how long they did not, at most, since `began`; and nothing acknowledged is missing. Raises Failed."""
        if not self.writer.wait(ROWS_AFTER, timeout_s=WRITES_WAIT_S):
            names = ", ".join(way.name for way in self.ways)
            raise Failed(f"no write succeeds through {names} ({_last(self.writer)}): see './phoenix status'.")
        gap = self.writer.gap(since=began)
        self.kept.rto_seconds = gap.seconds
        doing.note(f"{gap.seconds:.2f} s without writes, from {ledger.moment(gap.before)}")
        self.judge(leader, doing)

    def judge(self, leader: PlatformHost, doing: Doing) -> None:
        """End the writer and compare the table on `leader` with the ledger. Raises Failed when an acknowledged row is not there."""
        self.writer.stop()
        port = leader[PostgresqlSettings].port
        text = remote.sql(leader, self.writer.present_sql, port=port, database=DATABASE, what="reading the ledger's table")
        verdict = self.writer.judge(map(int, text.split()))
        self.kept.lost_rows, self.kept.rpo_seconds = len(verdict.lost), verdict.lost_seconds
        self.kept.facts["writes"] = {
            "attempted": verdict.attempted,
            "acknowledged": verdict.acknowledged,
            "present": verdict.present,
            "unconfirmed": len(verdict.unconfirmed),
            "lost": list(verdict.lost[:100]),
        }
        if verdict.lost:
            raise Failed(
                f"{len(verdict.lost)} acknowledged rows are lost, the first is {verdict.lost[0]}: keep the old leader's data and see "
                "docs/recovery.md."
            )
        doing.note(f"all {verdict.acknowledged} acknowledged rows are there")

    def _integrity(self, leader: PlatformHost, began: float, before: dict[str, Any] | None, doing: Doing) -> None:
        after = position(leader)
        self.kept.facts["positions"] = {"before": before, "after": after}
        if after["in_recovery"]:
            raise Failed(f"{leader.name} is in recovery and takes no writes: see './phoenix logs patroni'.")
        if int(after["checksum_failures"]) > 0:
            raise Failed(f"PostgreSQL on {leader.name} has seen {after['checksum_failures']} checksum failures: see docs/recovery.md.")
        last = max((lsn(row.lsn) for row in self.writer.acknowledged if row.lsn and row.clock <= began), default=0)
        if before is not None:
            last = max(last, lsn(before["lsn"]))
            doing.note(f"timeline {before['timeline']} -> {after['timeline']}, LSN {before['lsn']} -> {after['lsn']}")
        if lsn(after["lsn"]) < last:
            raise Failed(
                f"{leader.name} is behind what was acknowledged, at {after['lsn']}: keep the old leader's data and see docs/recovery.md."
            )
        doing.note("no checksum failures, takes writes, has the last acknowledged position")


@contextmanager
def watching(platform: Platform, target: Cluster, leader: PlatformHost, kept: Receipt) -> Iterator[Watch]:
    """A writer outside the database, at work while the `with` lasts; its table is gone afterwards. `leader` leads now. Raises Failed."""
    table = ledger.table_name(datetime.now(UTC))
    with entrance.ways(platform, target) as ways, tempfile.TemporaryDirectory(prefix="phoenix-ledger-") as scratch:
        try:
            with Ledger([way.conninfo for way in ways], Path(scratch) / "ledger.jsonl", table=table) as writer:
                with kept.steps.step("watch the writes") as doing:
                    remote.sql(
                        leader,
                        ledger.create_sql(table, entrance.WRITER),
                        port=leader[PostgresqlSettings].port,
                        database=DATABASE,
                        what="making the ledger's table",
                    )
                    doing.note(f"every 50 ms through {', '.join(way.name for way in ways)}")
                    if not writer.wait(ROWS_BEFORE, timeout_s=30):
                        raise Failed(f"no write succeeds before anything was changed ({_last(writer)}): see './phoenix status'.")
                yield Watch(target, ways, writer, kept)
        finally:
            _remove_table(target, table)


def rebuilt(target: Cluster, names: Sequence[str], doing: Doing, *, seconds: float = REBUILD_WAIT_S) -> None:
    """Step five: wait until `names` stream, and one member synchronously. Raises Failed."""
    view = target.wait(
        lambda view: (
            all((member := view.member(name)) is not None and member.state == "streaming" for name in names)
            and any(member.synchronous for member in view.members)
        ),
        seconds=seconds,
        problem=f"{', '.join(names)} does not stream again",
        now=doing.now,
    )
    for name in names:
        if (member := view.member(name)) is not None:
            doing.note(f"{name} is {member.role.replace('_', ' ')} on timeline {member.timeline}")


def position(host: PlatformHost) -> dict[str, Any]:
    """Where PostgreSQL on `host` is: in_recovery, timeline, checksum_failures, lsn. Raises Failed."""
    text = remote.sql(host, POSITION, port=host[PostgresqlSettings].port, what="asking PostgreSQL for its position", timeout_s=20)
    return dict(remote.value(text, what="PostgreSQL's position"))


def say(kept: Receipt, leader: str, terminal: Terminal) -> None:
    """The result for people."""
    acknowledged = kept.facts["writes"]["acknowledged"]
    terminal.line(
        f"{leader} leads. {kept.rto_seconds or 0:.2f} s without writes; of {acknowledged} acknowledged rows {kept.lost_rows} are lost.",
        "green",
    )


def _leads_to(way: Way, leader: PlatformHost) -> str:
    """Where new sessions through `way` end up: has to be `leader`. Waits a little: who asks Patroni learns it within seconds."""
    wanted = leader[HostSettings].address
    end = time.monotonic() + WAY_WAIT_S
    while True:
        try:
            with Wire(way.conninfo, timeout_s=3) as wire:
                found = wire.value("SELECT host(inet_server_addr())", timeout_s=3)
            if found == wanted:
                return f"{way.name} leads to {leader.name} ({found}), nothing was edited"
        except Lost as error:
            found = str(error).splitlines()[0]
        if way.member and way.member != leader.name:
            return f"{way.name} takes no writes; a client that names all members finds {leader.name}"
        if time.monotonic() > end:
            raise Failed(f"{way.name} does not lead to {leader.name} ({found}): see './phoenix logs haproxy'.")
        time.sleep(0.3)


def _last(writer: Ledger) -> str:
    return (writer.trouble or ["no answer"])[-1].rstrip(".")


def _remove_table(target: Cluster, table: str) -> None:
    """Whoever leads now drops the ledger's table; when nobody does it is left, and harms nothing."""
    with suppress(Ended):
        leader = target.view().leader
        if leader is not None:
            host = target.host(leader.name)
            port = host[PostgresqlSettings].port
            remote.sql(host, ledger.drop_sql(table), port=port, database=DATABASE, what="dropping the ledger's table")
