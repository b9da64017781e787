"""Which cluster is archived, and how PostgreSQL hands over its WAL. What takes it, pgBackRest, is configured in deploys/backup.py."""

from __future__ import annotations

from typing import Any

from pyinfra import host
from pyinfra.api import Host

from deploys.lib import hosts
from deploys.lib.settings import BackupSettings, PostgresqlSettings, of

PROGRAM = "/usr/bin/pgbackrest"
BOOTSTRAP = "/usr/local/lib/phoenix/bootstrap-cluster"


def members() -> list[Host]:
    """Hosts whose PostgreSQL is archived: those of group `backup` in the cluster that its setting `stanza` names."""
    return [member for member in hosts.members("backup") if _archived(member)]


def archives() -> bool:
    """Whether the present host's PostgreSQL is archived."""
    return "backup" in host.groups and _archived(host)


def _archived(member: Host) -> bool:
    return "postgresql" in member.groups and of(member, PostgresqlSettings).cluster_name == of(member, BackupSettings).stanza


def stanza() -> str:
    """pgBackRest's name of the cluster."""
    return hosts.settings(BackupSettings).stanza


def parameters() -> dict[str, Any]:
    """Parameters of postgresql.conf. Archiving is on also where nobody archives: turning it on later would need a restart, and a command
    that throws each segment away does not (docs/decisions/0510-archiving-is-always-on.md)."""
    if not archives():
        return {"archive_mode": "on", "archive_command": "/bin/true", "archive_timeout": 0}
    return {
        "archive_mode": "on",
        "archive_command": f"{PROGRAM} --stanza={stanza()} archive-push %p",
        "archive_timeout": hosts.settings(BackupSettings).archive_timeout_s,
    }


def restore_command() -> str:
    """How a standby fetches a segment from the archive before it asks the leader.

    Within 3 s: a promotion asks once more, and an S3 service that is away must not hold it up. What takes longer is fetched on in the
    background and is there the next time. A restore has a command of pgBackRest's own, which waits: there, no answer is not the end.
    """
    return f'timeout 3 {PROGRAM} --stanza={stanza()} archive-get %f "%p"'
