"""drill: a rehearsed disaster, with what it cost measured by a writer outside: rows lost, seconds without writes, and the way back."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import suppress

from deploys.lib.settings import Platform, PlatformHost
from ops import cluster, deploy, failover, followers, inplace, inventory, receipt, remote, watch
from ops.cluster import Cluster
from ops.deploy import only_one
from ops.errors import DONE, Failed, Refused
from ops.steps import Doing
from ops.terminal import Terminal

PROGRAM = "/usr/local/lib/phoenix/drill.py"
KINDS = ("restore", "failover", "rebuild")
FAULTS = ("switchover", "kill")
PROMOTION_WAIT_S = 90
CLONE_WAIT_S = 3600


def arguments(verb: str, parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("kind", choices=KINDS, metavar="restore|failover|rebuild", help="what to rehearse")
    parser.add_argument(
        "--fault", choices=FAULTS, help="of a failover: a planned switch, or the leader's server killed (default: switchover)"
    )
    parser.add_argument("--bare", action="store_true", help="of a rebuild, in the lab: the standby's machine itself is made anew")
    parser.add_argument("--plan", action="store_true", help="say what would be done; change nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Do the verb."""
    if options.fault and options.kind != "failover":
        raise Refused(f"--fault belongs to a drill of failover, not of {options.kind}: leave it out.")
    if options.bare and options.kind != "rebuild":
        raise Refused(f"--bare belongs to a drill of rebuild, not of {options.kind}: leave it out.")
    platform = inventory.made(options.inventory)
    if options.kind == "restore":
        return restore(platform, options, terminal)
    own = cluster.of(platform)
    if len(own.hosts) < 2:
        raise Refused(f"the cluster {own.scope} is {own.names[0]} alone: a drill of {options.kind} takes a standby.")
    plan = failover.prepare(platform, own, None, wait_s=failover.CATCH_UP_S)
    if plan.problems:
        raise Refused(f"{plan.objection}: a drill begins with a healthy cluster.")
    if options.kind == "failover":
        return fail_over(platform, plan, options, terminal)
    return rebuild(platform, plan, options, terminal)


def restore(platform: Platform, options: argparse.Namespace, terminal: Terminal) -> int:
    """Run the restore drill of the group `drill` now, and take over its receipt."""
    hosts = platform.group("drill")
    if not hosts:
        raise Refused("the inventory has no host in the group drill: add one and deploy.")
    host = hosts[0]
    what = f"{host.name} restores the newest backup beside everything else, compares it with the leader and throws it away"
    if options.plan:
        terminal.result({"ok": True, "host": host.name})
        terminal.line(f"{what}; the platform is not touched.")
        return DONE
    terminal.say(f"{what}.", "bold")
    with only_one(platform, [host.name]), receipt.kept("drill restore", platform, terminal) as kept:
        with kept.steps.step("drill") as doing:
            text = remote.follow(host, f"{PROGRAM} --json || true", what="the drill", said=lambda line: terminal.say(f"  {line}", "dim"))
            found = remote.value(text, what=PROGRAM)
            doing.note(f"on {host.name}")
        kept.facts["drill"] = {key: value for key, value in found.items() if not isinstance(value, list)}
        kept.facts |= {f"drill_{key}": value for key, value in found.items() if isinstance(value, list)}
        kept.rpo_seconds, kept.rto_seconds, kept.lost_rows = (found.get(key) for key in ("rpo_seconds", "rto_seconds", "lost_rows"))
        if not found.get("ok"):
            raise Failed(f"the restore drill on {host.name} failed: {str(found.get('error') or 'see phoenix logs drill').rstrip('.')}.")
    terminal.line(
        f"The backup comes back whole: RPO {kept.rpo_seconds or 0:.1f} s, RTO {kept.rto_seconds or 0:.1f} s, nothing lost.", "green"
    )
    return DONE


def fail_over(platform: Platform, plan: failover.Plan, options: argparse.Namespace, terminal: Terminal) -> int:
    """The leader is switched or killed while a writer outside keeps count; then the first leader leads again."""
    fault = options.fault or FAULTS[0]
    own = plan.cluster
    what = f"{plan.leader} hands over to {plan.target}" if fault == "switchover" else f"PostgreSQL on {plan.leader} is killed"
    if options.plan:
        terminal.result({"ok": True, "fault": fault, "leader": plan.leader, "target": plan.target})
        terminal.line(
            f"{what}, {plan.target} takes over, and {plan.leader} leads again at the end: two pauses of about 2 s without writes."
        )
        return DONE
    if not options.yes:
        terminal.confirm(f"{what}: writes pause for some seconds, twice, and all sessions end.")
    old, new = own.host(plan.leader), own.host(plan.target)
    with only_one(platform, own.names), receipt.kept("drill failover", platform, terminal) as kept:
        kept.facts |= {"cluster": own.scope, "fault": fault, "from": plan.leader, "to": plan.target}
        if fault == "switchover":
            failover.planned(platform, plan, kept)
        else:
            with watch.watching(platform, own, old, kept) as watching:
                before, began = watch.position(old), time.monotonic()
                with kept.steps.step("kill the leader") as doing:
                    _kill(old)
                    doing.note(f"kill -9 of the postmaster on {old.name}")
                with kept.steps.step("promote standby") as doing:
                    led = _led(own, new)
                    doing.note(f"{led.name} leads" + ("" if led.name == new.name else ": it came back before the standby took over"))
                watching.prove(led, began=began, before=before)
            with kept.steps.step("rebuild standby") as doing:
                watch.rebuilt(own, [name for name in own.names if name != led.name], doing)
        with kept.steps.step("back to normal") as doing:
            _back(platform, own, plan.leader, doing)
            watch.rebuilt(own, [name for name in own.names if name != plan.leader], doing)
    watch.say(kept, plan.leader, terminal)
    return DONE


def rebuild(platform: Platform, plan: failover.Plan, options: argparse.Namespace, terminal: Terminal) -> int:
    """The standby's data (with --bare: its machine) is destroyed and comes back, while writes go on."""
    own, lost = plan.cluster, plan.cluster.host(plan.target)
    what = f"the machine {lost.name} is thrown away and made anew" if options.bare else f"the data of the standby {lost.name} is destroyed"
    if options.bare:
        from ops import lifecycle  # noqa: PLC0415 - the lab's code, of no use elsewhere

        lifecycle.lab_machines(platform)
    if options.plan:
        terminal.result({"ok": True, "host": lost.name, "bare": options.bare})
        terminal.line(f"{what}, and it is rebuilt while writes go on; until then a failover would lose the leader's last writes.")
        return DONE
    if not options.yes:
        terminal.confirm(f"{what[0].upper()}{what[1:]}; until it is back there is no standby.")
    with only_one(platform, list(platform.hosts)) as held, receipt.kept("drill rebuild", platform, terminal) as kept:
        kept.facts |= {"cluster": own.scope, "host": lost.name, "bare": options.bare}
        leader = own.host(plan.leader)
        with watch.watching(platform, own, leader, kept) as watching:
            began = time.monotonic()
            with kept.steps.step("destroy the standby") as doing:
                _destroy(lost, bare=options.bare, terminal=terminal)
                doing.note(what)
            with kept.steps.step("rebuild standby") as doing:
                if options.bare:
                    _deploy(platform, terminal, held=held)
                else:
                    inplace.start(lost)
                watch.rebuilt(own, [lost.name], doing, seconds=CLONE_WAIT_S)
            back = time.monotonic() - began
            with kept.steps.step("resume operations") as doing:
                watching.resumed(leader, began, doing)
        kept.facts["redundant_again_seconds"] = round(back, 2)
        # With its machine goes what follows the database there.
        if options.bare and (left := followers.bring_back(platform, lost.groups, kept.steps)):
            raise Failed("\n".join(left))
    terminal.line(
        f"{lost.name} is back after {back:.0f} s; writes paused for {kept.rto_seconds or 0:.2f} s at most, {kept.lost_rows} rows lost.",
        "green",
    )
    return DONE


def _kill(host: PlatformHost) -> None:
    remote.run(host, f"kill -9 $(head -1 {cluster.data_directory(host)}/postmaster.pid)", what="killing the postmaster", timeout_s=20)


def _led(own: Cluster, expected: PlatformHost) -> PlatformHost:
    """Who takes writes after the fault: asks the servers, since the store is a loop old. Raises Failed."""
    end = time.monotonic() + PROMOTION_WAIT_S
    candidates = sorted(own.hosts, key=lambda host: host.name != expected.name)
    while time.monotonic() < end:
        for host in candidates:
            with suppress(Failed):
                if not watch.position(host)["in_recovery"]:
                    return host
        time.sleep(0.3)
    raise Failed(f"nobody leads {own.scope} after {PROMOTION_WAIT_S} s: see './phoenix failover --plan'.")


def _back(platform: Platform, own: Cluster, name: str, doing: Doing) -> None:
    """The member that led before leads again. Raises Failed."""
    leader = own.view().leader
    if leader is None:
        raise Failed(f"nobody leads {own.scope}: see './phoenix failover --plan'.")
    if leader.name == name:
        return
    plan = failover.prepare(platform, own, name, wait_s=failover.CATCH_UP_S)
    if plan.problems:
        raise Failed(f"{plan.objection}: {leader.name} goes on leading.")
    own.switchover(leader.name, name)
    failover.led_by(own, name, doing)


def _destroy(host: PlatformHost, *, bare: bool, terminal: Terminal) -> None:
    if bare:
        import lab  # noqa: PLC0415 - only here

        lab.up([host.name], fresh=True, progress=terminal.say)
        return
    inplace.stop(host)
    inplace.remove(host, cluster.data_directory(host))


def _deploy(platform: Platform, terminal: Terminal, *, held: Sequence[int]) -> None:
    result = deploy.perform(platform, [], terminal, held=held)
    if not result.ok:
        raise Failed("\n".join(result.problems))
