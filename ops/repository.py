"""What is in the backup repository, as pgBackRest tells it on a host that may read it, and which backup a restore begins with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deploys.lib.settings import PlatformHost
from ops import remote
from ops.cluster import Cluster
from ops.errors import Failed, Refused
from ops.moment import Target, lsn, lsn_text

SEGMENT_BYTES = 16 * 1024 * 1024
TIMEOUT_S = 120


@dataclass(frozen=True)
class Backup:
    """One backup set."""

    label: str
    type: str
    """full, diff or incr."""
    began: datetime
    ended: datetime
    lsn_start: int
    lsn_stop: int
    """From here on the restored data is consistent."""
    timeline: int
    size: int
    """Bytes of the database when it was taken."""
    stored: int | None
    """Bytes that this set added to the repository."""

    def as_dict(self) -> dict[str, Any]:
        """For --json and receipts."""
        return {
            "label": self.label,
            "type": self.type,
            "began": self.began.isoformat(),
            "ended": self.ended.isoformat(),
            "seconds": (self.ended - self.began).total_seconds(),
            "lsn_start": lsn_text(self.lsn_start),
            "lsn_stop": lsn_text(self.lsn_stop),
            "timeline": self.timeline,
            "bytes": self.size,
            "bytes_stored": self.stored,
        }


@dataclass(frozen=True)
class Branch:
    """The newest timeline and those it came from. A restore to a point in the past begins a new one and cuts the rest off."""

    timeline: int
    left: Mapping[int, int]
    """Each ancestor, and the LSN at which it was left."""

    def has(self, backup: Backup) -> bool:
        """Whether this timeline goes on from `backup`."""
        return backup.timeline == self.timeline or backup.lsn_stop <= self.left.get(backup.timeline, -1)


@dataclass(frozen=True)
class Repository:
    """The backups of one stanza, oldest first, and the WAL that goes with them."""

    stanza: str
    backups: tuple[Backup, ...]
    wal_end: int | None
    """The archive reaches to this LSN; None without any WAL."""
    message: str
    """pgBackRest's own verdict: ok, or what is missing."""

    def for_target(self, target: Target, branch: Branch | None = None) -> Backup:
        """The newest backup from which `target` can be reached: one of `branch`, where that is known, since a backup of another one leads
        elsewhere. Raises Refused when there is none.
        """
        usable = [backup for backup in self.backups if branch is None or branch.has(backup)]
        if not usable:
            raise Refused(f"the repository has no usable backup of {self.stanza} ({self.message}): take one with './phoenix backup full'.")
        oldest = usable[0]
        if target.time is not None:
            reached = [backup for backup in usable if backup.ended <= target.time]
            limit = f"{oldest.ended:%Y-%m-%d %H:%M:%S} UTC, when the oldest backup ended"
        elif target.lsn is not None:
            if self.wal_end is None or target.lsn >= self.wal_end:
                end = "has no WAL" if self.wal_end is None else f"ends at {lsn_text(self.wal_end)}"
                raise Refused(f"{target} is beyond the archive, which {end}: choose an earlier one, or --latest.")
            reached = [backup for backup in usable if backup.lsn_stop <= target.lsn]
            limit = f"LSN {lsn_text(oldest.lsn_stop)}, where the oldest backup ended"
        else:
            reached, limit = usable, ""
        if not reached:
            raise Refused(
                f"{target} is before {limit} ({oldest.label}): choose a later one; './phoenix backup --list' shows what there is."
            )
        return reached[-1]


def read(host: PlatformHost, stanza: str) -> Repository:
    """What the repository has, asked on `host`. Raises Failed."""
    text = remote.run(
        host,
        f"pgbackrest --stanza={stanza} --output=json --log-level-console=error info",
        user="postgres",
        what="reading the backup repository",
        timeout_s=TIMEOUT_S,
    )
    return parse(remote.value(text, what="pgbackrest info"), stanza)


def of(cluster: Cluster) -> tuple[PlatformHost, Repository]:
    """The first host of `cluster` that can read its repository, and what is in it. Raises Refused without backups, Failed."""
    able = [host for host in cluster.hosts if "backup" in host.groups]
    if not able:
        raise Refused(f"no host of the cluster {cluster.scope} is in the group backup: add them to the inventory and deploy.")
    problem: Failed | None = None
    for host in able:
        try:
            return host, read(host, cluster.scope)
        except Failed as error:
            problem = problem or error
    assert problem is not None  # noqa: S101 - there was at least one host
    raise problem


def parse(content: Any, stanza: str) -> Repository:
    """The output of `pgbackrest info --output=json`."""
    known = next((one for one in content if one.get("name") == stanza), None)
    if known is None:
        return Repository(stanza, (), None, "no stanza")
    backups = [_backup(one) for one in known.get("backup", []) if not one.get("error")]
    ends = [_segment_end(archive["max"]) for archive in known.get("archive", []) if archive.get("max")]
    message = str(known.get("status", {}).get("message", ""))
    return Repository(stanza, tuple(sorted(backups, key=lambda one: one.ended)), max(ends, default=None), message)


def parse_history(timeline: int, text: str) -> Branch:
    """The branch that ends in `timeline`, from the text of its history file (none for the first)."""
    rows = [line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return Branch(timeline, {int(row[0]): lsn(row[1]) for row in rows})


def _backup(one: dict[str, Any]) -> Backup:
    return Backup(
        label=str(one["label"]),
        type=str(one["type"]),
        began=datetime.fromtimestamp(one["timestamp"]["start"], UTC),
        ended=datetime.fromtimestamp(one["timestamp"]["stop"], UTC),
        lsn_start=lsn(one["lsn"]["start"]),
        lsn_stop=lsn(one["lsn"]["stop"]),
        timeline=int(one["archive"]["start"][:8], 16),
        size=int(one["info"]["size"]),
        stored=one["info"].get("repository", {}).get("delta"),
    )


def _segment_end(name: str) -> int:
    """The LSN behind the last byte of a WAL segment of the default size."""
    return (int(name[8:16], 16) << 32) + (int(name[16:24], 16) + 1) * SEGMENT_BYTES
