"""backup: take one now, from the standby where there is a healthy one; or list what the repository has."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from typing import Any

from deploys.lib.settings import PlatformHost
from ops import cluster, inventory, receipt, remote, repository
from ops.cluster import Cluster
from ops.deploy import only_one
from ops.errors import DONE, Failed, Refused
from ops.moment import age, lsn_text
from ops.repository import Repository
from ops.terminal import Terminal, seconds

PROGRAM = "/usr/local/lib/phoenix/backup.py"
TYPES = ("full", "diff", "incr")
BUSY_WAIT_S = 1800
BUSY = ("being taken on this host already", "another pgBackRest process")
"""What services/backup.py and pgBackRest say while another backup is taken."""


def arguments(verb: str, parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("type", nargs="?", choices=TYPES, metavar="full|diff|incr", help="what kind (default: incr)")
    parser.add_argument("--list", action="store_true", help="show the backups there are; take none")
    parser.add_argument("--plan", action="store_true", help="say what would be done; change nothing")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Do the verb."""
    if options.list and options.type:
        raise Refused(f"--list takes no backup: leave out {options.type}, or --list.")
    platform = inventory.made(options.inventory)
    target = cluster.of(platform)
    if options.list:
        return show(target, terminal)
    kind = options.type or "incr"
    host, why = chosen(target)
    if options.plan:
        terminal.result({"ok": True, "type": kind, "host": host.name})
        terminal.line(f"A backup of type {kind} would be taken from {host.name}, {why}; nothing else changes.")
        return DONE
    with only_one(platform, [host.name]), receipt.kept("backup", platform, terminal) as kept:
        kept.facts["cluster"] = target.scope
        with kept.steps.step("backup") as doing:
            doing.note(f"from {host.name}, {why}")
            taken = take(host, kind, terminal)
            kept.facts["backup"] = taken
        with kept.steps.step("repository") as doing:
            found = repository.read(host, target.scope)
            if taken.get("label") not in [one.label for one in found.backups]:
                raise Failed(f"the repository does not list {taken.get('label')}: see './phoenix logs {host.name}'.")
            doing.note(f"{len(found.backups)} backups")
            kept.facts["backups"] = [one.as_dict() for one in found.backups]
    _table(found, terminal)
    return DONE


def chosen(target: Cluster) -> tuple[PlatformHost, str]:
    """The host to take a backup from, and why it. Raises Refused, Failed."""
    able = [host for host in target.hosts if "backup" in host.groups]
    if not able:
        raise Refused(f"no host of the cluster {target.scope} is in the group backup: add them to the inventory and deploy.")
    view = target.view()
    for host in able:
        member = view.member(host.name)
        if member is not None and member.state == "streaming":
            return host, "a healthy standby"
    for host in able:
        member = view.member(host.name)
        if member is not None and member.leads:
            return host, "the leader: there is no healthy standby"
    raise Failed(f"the cluster {target.scope} has neither a healthy standby nor a leader: see './phoenix status'.")


def take(host: PlatformHost, kind: str, terminal: Terminal) -> dict[str, Any]:
    """Take a backup of type `kind` from `host`; what the program there says of it: label, times, LSNs, bytes. Raises Failed.

    One that is going on there already is waited for: a timer may just have begun it.
    """
    end = time.monotonic() + BUSY_WAIT_S
    while True:
        try:
            text = remote.follow(host, f"{PROGRAM} {kind} --here", what="the backup", said=lambda line: terminal.say(f"  {line}", "dim"))
            return dict(remote.value(text, what=PROGRAM))
        except Failed as error:
            if not any(words in str(error) for words in BUSY) or time.monotonic() > end:
                raise
        time.sleep(5)


def show(target: Cluster, terminal: Terminal) -> int:
    """Print the backups there are."""
    _, found = repository.of(target)
    content = {
        "ok": bool(found.backups),
        "stanza": found.stanza,
        "message": found.message,
        "wal_end": lsn_text(found.wal_end) if found.wal_end is not None else None,
        "backups": [one.as_dict() for one in found.backups],
    }
    if not found.backups:
        error = Failed(f"the repository has no backup of {found.stanza} ({found.message}): take one with './phoenix backup full'.")
        error.details = content
        raise error
    terminal.result(content)
    _table(found, terminal)
    return DONE


def _table(found: Repository, terminal: Terminal) -> None:
    now = datetime.now(UTC)
    rows = [
        [
            one.label,
            one.type,
            f"{one.ended:%Y-%m-%d %H:%M:%S}",
            age(one.ended, now=now),
            seconds((one.ended - one.began).total_seconds()),
            size(one.size),
            "" if one.stored is None else size(one.stored),
            lsn_text(one.lsn_stop),
            str(one.timeline),
        ]
        for one in found.backups
    ]
    terminal.table(["backup", "type", "ended (UTC)", "age", "took", "database", "stored", "consistent from", "timeline"], rows)
    end = "no WAL" if found.wal_end is None else f"WAL up to {lsn_text(found.wal_end)}"
    terminal.line(f"{found.stanza}: {len(found.backups)} backups, {end}; pgBackRest says {found.message or 'nothing'}.")


def size(count: int) -> str:
    """Bytes for people: 812 B, 34.1 MB, 1.2 GB."""
    number = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
