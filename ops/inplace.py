"""The platform's cluster goes back to an earlier moment, in place: step by step, so that one that was interrupted can go on or be undone.

What is under way is written on the member that is restored, before anything is stopped; every step first looks at what is there. The old
data directory is moved aside and stays until the restored cluster leads (longer with --keep).
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from deploys.lib.settings import PlatformHost, PostgresqlSettings
from ops import cluster, remote, watch
from ops.cluster import Cluster
from ops.errors import Ended, Failed, Refused
from ops.receipt import Receipt
from ops.steps import Doing

HOME = "/var/lib/postgresql"
REQUEST = f"{HOME}/.phoenix-restore.json"
"""What Patroni's bootstrap reads (templates/pgbackrest)."""
PROGRESS = f"{HOME}/.phoenix-restore-progress.json"

ARCHIVE_WAIT_S = 90
STOP_WAIT_S = 120
CLONE_WAIT_S = 6 * 3600
POLL_S = 2.0

# A commit behind the target: without one, recovery would not know that it has arrived. And the segment it is in goes to the archive.
CLOSE_SEGMENT = "SELECT txid_current(); SELECT pg_walfile_name(pg_switch_wal())"
ARCHIVED = "SELECT last_archived_wal FROM pg_stat_archiver"


@dataclass(frozen=True)
class Job:
    """A restore that is under way: what was asked for, and where."""

    host: str
    kind: str
    """time, lsn or latest: what the bootstrap understands."""
    target: str | None
    set: str | None
    """Label of the backup to begin with."""
    aside: str
    """Where the old data directory of `host` is kept."""
    began: str
    """UTC, ISO 8601."""

    @property
    def wanted(self) -> str:
        """The target for people."""
        return self.target or "the end of the archive"

    def same_as(self, other: Job) -> bool:
        """Whether both go to the same point."""
        return (self.kind, self.target) == (other.kind, other.target)


def aside(host: PlatformHost, began: datetime) -> str:
    """Where the data directory of `host` goes. Hidden, so that no deploy takes it for a cluster of another name."""
    return f"{HOME}/.before-restore-{began:%Y%m%dT%H%M%SZ}-{host[PostgresqlSettings].cluster_name}"


def under_way(target: Cluster) -> Job | None:
    """The restore that an earlier run began on a member and did not end. Members that cannot be reached are passed over."""
    for host in target.hosts:
        with suppress(Ended):
            text = remote.run(host, f"cat {PROGRESS} 2>/dev/null || true", what="looking for a restore under way", timeout_s=20)
            if text.strip():
                return Job(**json.loads(text))
    return None


def free_bytes(host: PlatformHost) -> int:
    """Room where the data is, in bytes. Raises Failed."""
    return int(remote.run(host, f"df --output=avail -B1 {HOME} | tail -1", what="asking for free disk", timeout_s=20))


def restore(target: Cluster, members: Sequence[PlatformHost], job: Job, kept: Receipt) -> None:
    """All steps until the restored member takes writes. Raises Failed; run again, it goes on, and does nothing when it came that far."""
    host = target.host(job.host)
    if not _promoted(target, host, job):
        with kept.steps.step("archive what there is") as doing:
            _archive(host, doing)
        _write(host, PROGRESS, asdict(job))
        began = time.monotonic()
        with kept.steps.step("stop the cluster") as doing:
            # The leader last: a standby that is still there would take its place.
            for member in [*_standbys_first(target, members)]:
                stop(member)
                doing.note(f"{member.name} is stopped")
        with kept.steps.step("move the data aside") as doing:
            _move_aside(host, job, doing)
        with kept.steps.step("forget who led") as doing:
            doing.note(f"{target.forget()} keys removed from etcd")
        with kept.steps.step("restore") as doing:
            _write(host, REQUEST, {"type": job.kind, "target": job.target, "set": job.set})
            _start_and_wait(host, job, doing)
        with kept.steps.step("take writes") as doing:
            port = host[PostgresqlSettings].port
            remote.sql(host, "SELECT txid_current()", port=port, what="the first write")
            kept.rto_seconds = time.monotonic() - began
            # What recovery replayed stays known until the server is restarted.
            last = remote.sql(
                host, "SELECT pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC'", port=port, what="asking for the last commit"
            )
            after = watch.position(host) | {"last_commit": last or None}
            kept.facts["restored"] = after
            doing.note(
                f"timeline {after['timeline']}, LSN {after['lsn']}; the last transaction that came back is of {last or 'the backup'} UTC"
            )
    remote.run(host, f"rm -f {REQUEST}", what="removing the request")


def clone(target: Cluster, members: Sequence[PlatformHost], job: Job, kept: Receipt) -> None:
    """The other members throw their data away and clone the restored one. Raises Failed."""
    others = [member for member in members if member.name != job.host]
    if others:
        with kept.steps.step("clone the other members") as doing:
            for member in others:
                stop(member)
                remove(member, cluster.data_directory(member))
                start(member)
            watch.rebuilt(target, [member.name for member in others], doing, seconds=CLONE_WAIT_S)


def close(target: Cluster, job: Job, *, keep: bool, doing: Doing) -> None:
    """The restore is done: the old data goes, unless it is kept. Raises Failed."""
    host = target.host(job.host)
    if keep:
        doing.note(f"the old data is kept: {job.aside} on {host.name}")
    else:
        remove(host, job.aside)
        doing.note(f"{job.aside} removed")
    remote.run(host, f"rm -f {PROGRESS}", what="ending the restore")


def undo(target: Cluster, members: Sequence[PlatformHost], job: Job, kept: Receipt) -> None:
    """Put the old data back and start it. Raises Refused once the restored cluster has taken over, Failed."""
    host = target.host(job.host)
    if _promoted(target, host, job):
        raise Refused(
            "the restored cluster takes writes already, and they would be lost: run the restore again to end it; the old data is in "
            f"{job.aside} on {host.name}."
        )
    data = cluster.data_directory(host)
    with kept.steps.step("stop the cluster"):
        for member in members:
            stop(member)
    with kept.steps.step("put the old data back") as doing:
        found = remote.run(host, f"test -d {job.aside} && echo aside || true", what="looking for the old data").strip()
        if found:
            remove(host, data)
            remote.run(host, f"mv -T {job.aside} {data}", what="moving the old data back")
        doing.note(f"{data} is as it was" if found else f"{data} was not moved yet")
        remote.run(host, f"rm -f {REQUEST}", what="removing the request")
    with kept.steps.step("forget who led") as doing:
        doing.note(f"{target.forget()} keys removed from etcd")
    with kept.steps.step("start") as doing:
        start(host)
        target.wait(
            lambda view: view.leader is not None and view.leader.name == host.name and view.leader.state == "running",
            seconds=STOP_WAIT_S,
            problem=f"{host.name} does not lead",
            now=doing.now,
        )
        others = [member for member in members if member.name != host.name]
        for member in others:
            start(member)
        remote.run(host, f"rm -f {PROGRESS}", what="ending the restore")
        if others:
            watch.rebuilt(target, [member.name for member in others], doing)


def stop(host: PlatformHost) -> None:
    """Patroni and PostgreSQL on `host` are stopped, by force when they do not stop in order. Does no harm when they are. Raises Failed."""
    data = shlex.quote(cluster.data_directory(host))
    program = f"/usr/lib/postgresql/{host[PostgresqlSettings].version}/bin/pg_ctl"
    remote.run(
        host,
        # What KillMode=process leaves when Patroni itself has to be killed.
        "timeout 60 systemctl stop patroni || systemctl kill --kill-whom=all --signal=KILL patroni; "
        f"systemctl reset-failed patroni 2>/dev/null; if cd / && runuser -u postgres -- {program} -D {data} status >/dev/null 2>&1; then "
        f"runuser -u postgres -- {program} -D {data} -m immediate -w -t 30 stop >/dev/null; fi",
        what="stopping PostgreSQL",
        timeout_s=STOP_WAIT_S,
    )


def start(host: PlatformHost) -> None:
    """Patroni on `host` is started. Raises Failed."""
    remote.run(host, "systemctl start patroni", what="starting Patroni", timeout_s=60)


def remove(host: PlatformHost, directory: str) -> None:
    """The directory of a stopped cluster on `host` is gone. Raises Failed."""
    if not directory.startswith(f"{HOME}/"):
        raise ValueError(f"{directory} is not below {HOME}")
    remote.run(host, f"rm -rf -- {shlex.quote(directory)}", what=f"removing {directory}", timeout_s=900)


def _archive(host: PlatformHost, doing: Doing) -> None:
    """Where the member still takes writes, everything up to now reaches the archive first. Raises Failed."""
    try:
        alive = not watch.position(host)["in_recovery"]
    except Failed:
        alive = False
    if not alive:
        doing.note(f"{host.name} takes no writes: the archive is as its end left it")
        return
    port = host[PostgresqlSettings].port
    segment = remote.sql(host, CLOSE_SEGMENT, port=port, what="closing the WAL segment").split()[-1]
    end = time.monotonic() + ARCHIVE_WAIT_S
    while (last := remote.sql(host, ARCHIVED, port=port, what="asking for the archive")) < segment:
        if time.monotonic() > end:
            raise Failed(
                f"WAL segment {segment} is not in the archive after {ARCHIVE_WAIT_S} s (the last is {last or 'none'}): see the alert "
                "WalArchiveFailing; nothing was stopped."
            )
        doing.now(f"the archive is at {last}")
        time.sleep(1)
    doing.note(f"the archive has {segment}")


def _standbys_first(target: Cluster, members: Sequence[PlatformHost]) -> list[PlatformHost]:
    leader = None
    with suppress(Failed):
        leader = target.view().leader
    return sorted(members, key=lambda member: leader is not None and member.name == leader.name)


def _move_aside(host: PlatformHost, job: Job, doing: Doing) -> None:
    """The old data directory is at `job.aside`, and the place where it was is free."""
    data, away = shlex.quote(cluster.data_directory(host)), shlex.quote(job.aside)
    # Once the old one is aside, what is in its place is an attempt that did not end.
    script = (
        f"if test -d {away}; then rm -rf -- {data}; echo again; "
        f"elif test -d {data}; then mv -T {data} {away}; echo moved; else mkdir -p {away}; echo none; fi"
    )
    said = remote.run(host, script, what="moving the data aside", timeout_s=900).strip()
    doing.note(
        {
            "moved": f"{cluster.data_directory(host)} is now {job.aside}",
            "again": f"the old data is in {job.aside}, an unfinished attempt was removed",
            "none": f"{host.name} has no old data",
        }[said]
    )


def _start_and_wait(host: PlatformHost, job: Job, doing: Doing) -> None:
    """Patroni restores and promotes `host`. Raises Failed with the server's own words when its bootstrap ends badly."""
    since = datetime.now(UTC)
    remote.run(host, "systemctl reset-failed patroni 2>/dev/null; systemctl start patroni", what="starting Patroni", timeout_s=60)
    problem = f"the restore to {job.wanted} failed ({{}}): './phoenix restore --undo' brings the old data back."
    await_leader(host, since=since, problem=problem, doing=doing)


def await_leader(host: PlatformHost, *, since: datetime, problem: str, doing: Doing) -> None:
    """Wait, as long as it takes, until the bootstrap of `host` has ended and it leads. When Patroni gives up (`problem`, with the reason
    in its braces) it is stopped: it would try again and again. Raises Failed."""
    data = shlex.quote(cluster.data_directory(host))
    look = (
        f"systemctl show -p NRestarts --value patroni; du -sb {data} 2>/dev/null | cut -f1; "
        f"{remote.CURL} -o /dev/null -w '%{{http_code}}' --max-time 3 {cluster.url(host)}/primary 2>/dev/null || true"
    )
    while True:
        words = remote.run(host, look, what="watching the restore", timeout_s=30).split()
        if words and words[-1] == "200":
            return
        if words and words[0].isdigit() and int(words[0]) >= 1:
            stop(host)
            raise Failed(problem.format(_why(host, since)))
        size = int(words[1]) if len(words) > 2 and words[1].isdigit() else 0
        doing.now(f"{size / 1e6:.0f} MB")
        time.sleep(POLL_S)


def _why(host: PlatformHost, since: datetime) -> str:
    """What the journal says of the failure: the first word of PostgreSQL or pgBackRest that is fatal."""
    script = (
        f"journalctl -u patroni -o cat --no-pager --since '@{since.timestamp():.0f}' | grep -E 'FATAL|PANIC|ERROR: \\[|phoenix:' | head -1"
    )
    with suppress(Ended):
        said = remote.ask(host, script, timeout_s=30).out.strip()
        if "recovery ended before configured recovery target was reached" in said:
            return "no transaction in the archive is as late as that: take --latest"
        if said:
            return said.rstrip(".")
    return "see './phoenix logs patroni'"


def _promoted(target: Cluster, host: PlatformHost, job: Job) -> bool:
    """Whether an earlier run came as far as a restored cluster that takes writes: the old data is aside and PostgreSQL leads."""
    done = remote.ask(host, f"test -f {PROGRESS} && test -d {shlex.quote(job.aside)}", timeout_s=20)
    if done.code != 0:
        return False
    with suppress(Failed):
        leader = target.view([host]).leader
        return leader is not None and leader.name == host.name and not watch.position(host)["in_recovery"]
    return False


def _write(host: PlatformHost, path: str, content: dict[str, str | None]) -> None:
    """Put a small JSON file of the user postgres on `host`, in one step."""
    script = f"umask 077; cat >{path}.part && chown postgres:postgres {path}.part && mv {path}.part {path} && sync {path}"
    remote.run(host, script, what=f"writing {path}", stdin=json.dumps(content) + "\n", timeout_s=20)
