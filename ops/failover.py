"""failover: another member leads. Planned, the spec's five steps are done, checked and shown one by one; after the leader's death the
verb says what Patroni did by itself, and promotes by hand only who has every acknowledged write."""

from __future__ import annotations

import argparse
import json
import time
from contextlib import suppress
from dataclasses import dataclass

from deploys.lib import region2
from deploys.lib.settings import Platform, PlatformHost, PostgresqlSettings
from ops import cluster, inventory, receipt, remote, watch
from ops.cluster import Cluster, View
from ops.deploy import only_one
from ops.errors import DONE, Ended, Failed, Refused
from ops.receipt import Receipt
from ops.steps import Doing
from ops.terminal import Terminal

MAX_LAG_BYTES = 1_048_576
CATCH_UP_S = 20
SWITCH_WAIT_S = 60


@dataclass(frozen=True)
class Check:
    """A precondition, and what was found."""

    name: str
    ok: bool
    detail: str
    passes: bool = False
    """Whether it becomes true by waiting."""


@dataclass(frozen=True)
class Plan:
    """Who leads, who shall, and what speaks against it."""

    cluster: Cluster
    leader: str
    target: str
    view: View
    checks: tuple[Check, ...]

    @property
    def problems(self) -> list[Check]:
        return [check for check in self.checks if not check.ok]

    @property
    def objection(self) -> str:
        """The problems in one line; empty when there are none."""
        return "; ".join(f"{check.name}: {check.detail}" for check in self.problems)


def arguments(verb: str, parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("--to", metavar="HOST", help="who shall lead (default: the synchronous standby)")
    parser.add_argument("--plan", action="store_true", help="say what would be done, and whether it can be; change nothing")
    parser.add_argument(
        "--accept-loss",
        action="store_true",
        help="when the leader is dead: promote a standby that may lack acknowledged writes",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Do the verb."""
    platform = inventory.made(options.inventory)
    target_cluster = cluster.of(platform, options.to)
    if len(target_cluster.hosts) < 2:
        raise Refused(f"the cluster {target_cluster.scope} is {target_cluster.names[0]} alone: there is nobody to fail over to.")
    try:
        view = target_cluster.view()
    except Failed as error:
        raise Refused(str(error)) from error
    leader = view.leader
    if leader is None or not _alive(target_cluster, leader.name):
        return after_death(platform, target_cluster, view, options, terminal)
    plan = prepare(platform, target_cluster, options.to, wait_s=0 if options.plan else CATCH_UP_S)
    _show(plan, terminal)
    if options.plan:
        terminal.result({"ok": not plan.problems, "leader": plan.leader, "target": plan.target, "checks": [vars(c) for c in plan.checks]})
        return DONE
    if plan.problems:
        raise Refused(f"{plan.objection}: nothing was changed.")
    if not options.yes:
        terminal.confirm(f"{plan.target} will lead instead of {plan.leader}: writes pause for about 2 s, sessions on {plan.leader} end.")
    with only_one(platform, target_cluster.names), receipt.kept("failover", platform, terminal) as kept:
        kept.facts |= {"cluster": plan.cluster.scope, "from": plan.leader, "to": plan.target}
        planned(platform, plan, kept)
    watch.say(kept, plan.target, terminal)
    return DONE


def prepare(platform: Platform, target_cluster: Cluster, to: str | None, *, wait_s: float) -> Plan:
    """Choose the target and check what has to hold; what only has to catch up gets `wait_s` for it. Raises Refused for a target that is
    none, Failed when a host does not answer."""
    end = time.monotonic() + wait_s
    while True:
        plan = _looked_at(platform, target_cluster, to)
        if not plan.problems or any(not check.passes for check in plan.problems) or time.monotonic() >= end:
            return plan
        time.sleep(1)


def _looked_at(platform: Platform, target_cluster: Cluster, to: str | None) -> Plan:
    """The plan as things are now."""
    view = target_cluster.view()
    if view.leader is None:
        raise Refused(f"nobody leads {target_cluster.scope}: see './phoenix failover --plan'.")
    leader = view.leader.name
    standbys = [member for member in view.members if not member.leads]
    chosen = to or next((member.name for member in standbys if member.synchronous), None) or (standbys[0].name if standbys else "")
    if chosen == leader:
        raise Refused(f"{leader} leads already: name another member with --to, or leave it out.")
    member = view.member(chosen)
    if member is None:
        raise Refused(
            f"{chosen or 'a standby'} is not there for Patroni: see './phoenix status', or make it anew with './phoenix rebuild'."
        )
    checks = [
        Check("not paused", not view.paused, "Patroni is paused, resume it first" if view.paused else "Patroni decides"),
        Check("standby streams", member.state == "streaming", f"{chosen} is {member.state or 'unknown'}"),
        Check("standby is synchronous", member.synchronous, f"{chosen} is {member.role.replace('_', ' ')}"),
        Check(
            "standby is not behind",
            member.lag is not None and member.lag <= MAX_LAG_BYTES,
            "its lag is unknown" if member.lag is None else f"{member.lag} bytes to receive",
            passes=True,  # after a change of leader Patroni counts from a position that is up to a loop old
        ),
        _slots(platform, target_cluster.host(chosen)),
    ]
    return Plan(target_cluster, leader, chosen, view, tuple(checks))


def planned(platform: Platform, plan: Plan, kept: Receipt) -> None:
    """The five steps, watched by a writer outside. Raises Failed."""
    old, new = plan.cluster.host(plan.leader), plan.cluster.host(plan.target)
    with watch.watching(platform, plan.cluster, old, kept) as watching:
        before = watch.position(old)
        began = time.monotonic()
        with kept.steps.step("promote standby") as doing:
            doing.note(plan.cluster.switchover(plan.leader, plan.target))
            led_by(plan.cluster, plan.target, doing)
        watching.prove(new, began=began, before=before)
    with kept.steps.step("rebuild standby") as doing:
        watch.rebuilt(plan.cluster, [plan.leader], doing)


def led_by(target: Cluster, name: str, doing: Doing) -> None:
    """Wait until the member `name` leads. Raises Failed."""
    target.wait(
        lambda view: view.leader is not None and view.leader.name == name and view.leader.state == "running",
        seconds=SWITCH_WAIT_S,
        problem=f"{name} does not lead",
        now=doing.now,
    )


def after_death(platform: Platform, dead: Cluster, view: View, options: argparse.Namespace, terminal: Terminal) -> int:
    """Nobody leads, or who should gives no answer: wait for Patroni, and only then offer more. Raises Refused, Failed."""
    settings = dead.hosts[0][PostgresqlSettings]
    lost = view.leader.name if view.leader else ""
    terminal.say(f"{lost or 'No member'} {'leads by the store and gives no answer' if lost else 'leads'}.", "bold yellow")
    patience = settings.failover_ttl_s + 3 * settings.loop_wait_s
    alive = [host for host in dead.hosts if host.name != lost and cluster.reachable(host)]
    if options.plan:
        last, synchronous = dead.synchronous_set()
        safe = [host.name for host in alive if host.name in synchronous or host.name == last]
        terminal.result({"ok": bool(safe), "leader": None, "lost": lost, "safe": safe})
        terminal.line(f"Patroni promotes by itself within {patience} s who has everything: {', '.join(safe) or 'nobody does'}.")
        return DONE
    if not alive:
        raise Refused(f"no member of {dead.scope} but {lost or 'none'} can be reached: bring a host back, or see docs/recovery.md.")
    with only_one(platform, [host.name for host in alive]), receipt.kept("failover", platform, terminal) as kept:
        kept.facts |= {"cluster": dead.scope, "from": lost}
        with kept.steps.step("wait for Patroni") as doing:
            leader = _by_itself(dead, alive, lost, patience, doing)
        if leader is None:
            with kept.steps.step("promote standby") as doing:
                leader = _by_hand(dead, alive, options, terminal, doing)
        kept.facts["to"] = leader.name
        with watch.watching(platform, dead, leader, kept) as watching:
            watching.prove(leader, began=time.monotonic())
        kept.rto_seconds = kept.rpo_seconds = kept.lost_rows = None  # nobody watched when the leader died
    step = f"make it anew with './phoenix rebuild {lost}'" if lost else "see './phoenix status' for the others"
    terminal.line(f"{leader.name} leads and takes writes. When {lost or 'the old leader'} does not come back by itself, {step}.", "green")
    return DONE


def _by_itself(dead: Cluster, alive: list[PlatformHost], lost: str, patience: float, doing: Doing) -> PlatformHost | None:
    """Who Patroni promoted within `patience` seconds, if it did."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        with suppress(Failed):
            leader = dead.view(alive).leader
            if leader is not None and leader.name != lost and leader.state == "running":
                doing.note(f"Patroni has promoted {leader.name}")
                return dead.host(leader.name)
        doing.now(f"{end - time.monotonic():.0f} s left")
        time.sleep(1)
    doing.note(f"nobody was promoted within {patience:.0f} s")
    return None


def _by_hand(dead: Cluster, alive: list[PlatformHost], options: argparse.Namespace, terminal: Terminal, doing: Doing) -> PlatformHost:
    """Promote who has every acknowledged write; anybody else only when the person says so. Raises Refused, Failed."""
    last, synchronous = dead.synchronous_set()
    names = [options.to] if options.to else [host.name for host in alive]
    safe = [name for name in names if name in synchronous or name == last]
    if not safe and not options.accept_loss:
        complete = " and ".join(name for name in (last, *synchronous) if name) or "the old leader"
        raise Refused(
            f"{', '.join(names)} may lack acknowledged writes, only {complete} has all: bring that host back, or add --accept-loss and "
            "lose them."
        )
    chosen = (safe or names)[0]
    if not options.yes:
        terminal.confirm(f"{chosen} will lead" + ("." if safe else ", and writes that only the dead leader has are lost."))
    doing.note(dead.promote(chosen))
    doing.note("it has every acknowledged write" if safe else "it may lack acknowledged writes: accepted with --accept-loss")
    led_by(dead, chosen, doing)
    return dead.host(chosen)


def _slots(platform: Platform, target: PlatformHost) -> Check:
    """Whether the target could serve the second region's subscription: without the slot it would have to copy anew."""
    names = region2.failover_slots(platform) if "region2" not in target.groups else []
    if not names:
        return Check("slots follow", True, "there are none")
    text = remote.sql(target, region2.slots_ready(names), port=target[PostgresqlSettings].port, what="asking for its slots")
    late = [f"{slot['slot']} {slot['why']}" for slot in json.loads(text) if not slot["ready"]]
    if late:
        return Check("slots follow", False, f"on {target.name} {'; '.join(late)}: wait, and see docs/region2.md", passes=True)
    return Check("slots follow", True, f"{', '.join(names)} ready on {target.name}")


def _alive(target_cluster: Cluster, name: str) -> bool:
    """Whether the member that leads by the store says so itself."""
    try:
        return not watch.position(target_cluster.host(name))["in_recovery"]
    except Ended:
        return False


def _show(plan: Plan, terminal: Terminal) -> None:
    terminal.say(f"{plan.cluster.scope}: {plan.leader} leads, {plan.target} shall.")
    for check in plan.checks:
        terminal.say(f"  {'ok' if check.ok else 'NOT OK':7} {check.name}: {check.detail}", "" if check.ok else "red")
