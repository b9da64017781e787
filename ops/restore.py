"""restore: the cluster goes back to a time, to a position in the WAL, or to the end of the archive; in place, or as a copy beside it."""

from __future__ import annotations

import argparse
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deploys.lib import region2
from deploys.lib.settings import Platform, PlatformHost, PostgresqlSettings
from ops import backup, cluster, copy_anew, followers, inplace, inventory, moment, receipt, remote, repository, scratch
from ops.backup import size
from ops.cluster import Cluster
from ops.deploy import only_one
from ops.errors import DONE, Ended, Failed, Refused
from ops.inplace import Job
from ops.moment import Target, age
from ops.repository import Backup, Branch, Repository
from ops.terminal import Terminal


@dataclass(frozen=True)
class Scene:
    """What every way of restoring needs."""

    platform: Platform
    cluster: Cluster
    members: tuple[PlatformHost, ...]
    """Those that take part; who is gone for good (--without) is none of them."""
    terminal: Terminal
    held: list[int]
    """What `only_one` gave."""


SPARE_BYTES = 1024**3
"""Beside the restored data: WAL that is replayed, and what the host needs to go on."""


@dataclass(frozen=True)
class Plan:
    """What a restore in place would do."""

    cluster: Cluster
    host: PlatformHost
    members: tuple[PlatformHost, ...]
    """Those that take part; who is gone for good (--without) is none of them."""
    target: Target
    begins_with: Backup
    repository: Repository
    free: int

    def as_dict(self) -> dict[str, Any]:
        """For --json and the receipt."""
        return {
            "cluster": self.cluster.scope,
            "host": self.host.name,
            "members": [member.name for member in self.members],
            "target": str(self.target),
            "type": self.target.kind,
            "backup": self.begins_with.as_dict(),
            "free_bytes": self.free,
        }


def arguments(verb: str, parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    goal = parser.add_mutually_exclusive_group()
    goal.add_argument("--to", metavar="TIME", help="a time that has been, like '2026-11-23 14:05:00' (UTC) or with a zone, +02:00")
    goal.add_argument("--to-lsn", metavar="LSN", help="a position in the WAL, like 0/5A3C28")
    goal.add_argument("--latest", action="store_true", help="the end of the archive")
    goal.add_argument("--undo", action="store_true", help="put the old data back after a restore that did not end")
    goal.add_argument("--remove-scratch", action="store_true", help="remove the copy that --into scratch made")
    parser.add_argument("--into", choices=("scratch",), help="restore a copy beside everything else, for a person to look into")
    parser.add_argument("--on", metavar="HOST", help="where the copy is: a host of the group drill (default: the first)")
    parser.add_argument("--without", metavar="HOST", action="append", default=[], help="a member that is gone for good")
    parser.add_argument("--keep", action="store_true", help="keep the old data directory beside the restored one")
    parser.add_argument("--plan", action="store_true", help="say what would be done; change nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Do the verb."""
    target = _target(options)
    platform = inventory.made(options.inventory)
    own = cluster.of(platform)
    if options.into or options.remove_scratch:
        return beside(platform, own, target, options, terminal)
    members = _members(own, options.without)
    copies = [host.name for host in platform.group(region2.NAME)]
    with only_one(platform, [*own.names, *copies]) as held:
        present = inplace.under_way(own)
        if target is None:
            return undo(Scene(platform, own, members, terminal, held), present, options)
        if target.assumed_utc:
            terminal.say(f"No zone was given: {target}.", "yellow")
        return in_place(Scene(platform, own, members, terminal, held), target, present, options)


def beside(platform: Platform, own: Cluster, target: Target | None, options: argparse.Namespace, terminal: Terminal) -> int:
    """Make or remove a copy; the platform's own cluster is not touched."""
    place = scratch.host(platform, options.on)
    if target is None:
        if options.plan:
            terminal.line(f"{scratch.DIRECTORY} on {place.name} would be removed.")
            return DONE
        with only_one(platform, [place.name]), receipt.kept("restore scratch", platform, terminal) as kept:
            scratch.remove(place, kept)
        return DONE
    if target.assumed_utc:
        terminal.say(f"No zone was given: {target}.", "yellow")
    with only_one(platform, [place.name]):
        begins_with = scratch.prepare(place, own, target, branch(own, own.hosts))
        facts = {"cluster": own.scope, "host": place.name, "target": str(target), "backup": begins_with.as_dict()}
        terminal.say(f"{own.scope} as of {target}, from {begins_with.label}, beside everything else on {place.name}.", "bold")
        if options.plan:
            terminal.result({"ok": True, **facts})
            return DONE
        with receipt.kept("restore scratch", platform, terminal) as kept:
            kept.facts |= facts
            scratch.make(place, own, target, begins_with=begins_with, kept=kept, terminal=terminal)
    look, away = scratch.words(place)
    terminal.line(f"Look into it:  {look}")
    terminal.line(f"Remove it:     {away}")
    return DONE


def in_place(scene: Scene, target: Target, present: Job | None, options: argparse.Namespace) -> int:
    """Restore the cluster itself; goes on with what an earlier run began (`present`)."""
    own, terminal = scene.cluster, scene.terminal
    if present is not None:
        if (present.kind, present.target) != (target.kind, target.text):
            raise Refused(
                f"a restore to {present.wanted}, begun {present.began}, has not ended: run that one again, or './phoenix restore --undo'."
            )
        terminal.say(f"Going on with the restore begun {present.began}.", "bold")
        job: Job = present
        facts: dict[str, Any] = {"cluster": own.scope, "host": job.host, "target": job.wanted, "resumed": True}
    else:
        plan = prepare(own, scene.members, target)
        _show(plan, terminal)
        facts = plan.as_dict()
        now = datetime.now(UTC)
        away = inplace.aside(plan.host, now)
        job = Job(plan.host.name, target.kind, target.text, plan.begins_with.label, away, now.isoformat(timespec="seconds"))
    if options.plan:
        terminal.result({"ok": True, **facts})
        return DONE
    if not options.yes:
        terminal.confirm(_consequence(own, target))
    with receipt.kept("restore", scene.platform, terminal) as kept:
        kept.facts |= facts
        inplace.restore(own, scene.members, job, kept)
        # Before the others are cloned: they begin with the newest backup, and the old ones may be of a branch that is cut off now.
        with kept.steps.step("take a new backup") as doing:
            # pgBackRest sees the new timeline and compares by checksum, so that an incremental one is sound.
            taken = backup.take(own.host(job.host), "incr", terminal)
            kept.facts["new_backup"] = taken
            doing.note(f"{taken.get('label')} from {job.host}")
        inplace.clone(own, scene.members, job, kept)
        # Before the next deploy, which wants the connector to run: its place in the WAL is of a future that is gone.
        left = followers.bring_back(scene.platform, followers.EVERYTHING, kept.steps)
        copy_anew.begin(scene.platform, own, scene.members, kept, terminal, held=scene.held)
        with kept.steps.step("clean up") as doing:
            inplace.close(own, job, keep=options.keep, doing=doing)
        if left:
            raise Failed("\n".join(left))
    terminal.line(f"{own.scope} is at {target}, and takes writes.", "green")
    return DONE


def undo(scene: Scene, present: Job | None, options: argparse.Namespace) -> int:
    """Put the old data back after a restore that did not come as far as a cluster that takes writes."""
    own, terminal = scene.cluster, scene.terminal
    if present is None:
        raise Refused(f"no restore of {own.scope} is under way: there is nothing to undo.")
    terminal.say(f"A restore of {present.host} to {present.wanted}, begun {present.began}, has not ended.")
    if options.plan:
        terminal.result({"ok": True, "host": present.host, "target": present.wanted, "aside": present.aside})
        terminal.line(f"The data in {present.aside} would be put back, and {own.scope} started with it.")
        return DONE
    if not options.yes:
        terminal.confirm(f"What was restored so far on {present.host} is removed, and its old data put back.")
    with receipt.kept("restore undo", scene.platform, terminal) as kept:
        inplace.undo(own, scene.members, present, kept)
    terminal.line(f"{own.scope} is as it was before the restore.", "green")
    return DONE


def prepare(own: Cluster, members: tuple[PlatformHost, ...], target: Target) -> Plan:
    """Look at everything that a restore needs. Raises Refused and Failed; nothing was touched then."""
    host = _host(own, members)
    _, found = repository.of(own)
    begins_with = found.for_target(target, branch(own, members))
    free = inplace.free_bytes(host)
    needed = begins_with.size + SPARE_BYTES
    if free < needed:
        raise Refused(
            f"{host.name} has {size(free)} free in {inplace.HOME}, and the restored data needs {size(needed)} beside the old: make room."
        )
    return Plan(own, host, members, target, begins_with, found, free)


def branch(own: Cluster, members: tuple[PlatformHost, ...]) -> Branch | None:
    """The newest timeline that a member knows, with its ancestors; None when no member has data."""
    newest: Branch | None = None
    for host in members:
        data = cluster.data_directory(host)
        program = f"/usr/lib/postgresql/{host[PostgresqlSettings].version}/bin/pg_controldata"
        script = (
            f"cd {data} 2>/dev/null && t=$({program} -D . | sed -n 's/^Latest checkpoint.s TimeLineID: *//p') && "
            'echo "$t" && cat "pg_wal/$(printf %08X "$t").history" 2>/dev/null || true'
        )
        with suppress(Failed):
            first, _, rest = remote.run(host, script, user="postgres", what="reading the timeline", timeout_s=20).partition("\n")
            if first.strip().isdigit() and (newest is None or int(first) > newest.timeline):
                newest = repository.parse_history(int(first), rest)
    return newest


def _target(options: argparse.Namespace) -> Target | None:
    if options.on and not (options.into or options.remove_scratch):
        raise Refused("--on says where a copy is: it goes with --into scratch or --remove-scratch.")
    if options.into and (options.undo or options.keep or options.without):
        raise Refused("--into scratch touches no other data: leave out --undo, --keep and --without.")
    if options.undo or options.remove_scratch:
        return None
    if options.to is not None:
        return moment.parse_time(options.to, now=datetime.now(UTC))
    if options.to_lsn is not None:
        return moment.parse_lsn(options.to_lsn)
    if options.latest:
        return moment.LATEST
    raise Refused(f"say how far to go back: --to '{moment.EXAMPLE}', --to-lsn LSN, or --latest.")


def _members(own: Cluster, without: list[str]) -> tuple[PlatformHost, ...]:
    """The members that take part: all, but those that are gone for good. Raises Refused when another one cannot be reached."""
    for name in without:
        own.host(name)
    wanted = [host for host in own.hosts if host.name not in without]
    if not wanted:
        raise Refused(f"--without leaves no member of {own.scope}: name fewer.")
    silent = [name for name, answers in remote.together(cluster.reachable, wanted).items() if not answers]
    if silent:
        raise Refused(
            f"{', '.join(silent)} cannot be reached, and would go on with the old data: bring it back, or add "
            f"{' '.join(f'--without {name}' for name in silent)} when it is gone for good."
        )
    return tuple(wanted)


def _host(own: Cluster, members: tuple[PlatformHost, ...]) -> PlatformHost:
    """The member to restore on: who leads, else the first that has data, else the first."""
    with suppress(Ended):
        leader = own.view().leader
        if leader is not None and leader.name in [host.name for host in members]:
            return own.host(leader.name)
    for host in members:
        with suppress(Ended):
            if remote.ask(host, f"test -f {cluster.data_directory(host)}/PG_VERSION", timeout_s=20).code == 0:
                return host
    return members[0]


def _consequence(own: Cluster, target: Target) -> str:
    if target.kind == "latest":
        return f"This stops {own.scope} and restores all of it from the backup: what did not reach the archive is lost."
    return f"This stops {own.scope} and takes all of it back: everything that was written after {target} is lost."


def _show(plan: Plan, terminal: Terminal) -> None:
    now = datetime.now(UTC)
    begins = plan.begins_with
    terminal.table(
        ["what", "value"],
        [
            ["cluster", f"{plan.cluster.scope}: {', '.join(member.name for member in plan.members)}"],
            ["restored on", f"{plan.host.name}, the others are cloned from it"],
            ["to", str(plan.target) + (f", {age(plan.target.time, now=now)} ago" if plan.target.time else "")],
            ["begins with", f"{begins.label}, ended {begins.ended:%Y-%m-%d %H:%M:%S} UTC, {size(begins.size)}"],
            ["is lost", "what did not reach the archive" if plan.target.kind == "latest" else "everything after that moment"],
            ["disk", f"{size(plan.free)} free, {size(begins.size)} needed beside the old data, which is kept until the end"],
            ["afterwards", "a new timeline, a new backup, the other members cloned, the second region copied anew"],
        ],
    )
