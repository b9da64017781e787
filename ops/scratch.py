"""A copy of the cluster as it was, restored beside everything else for a person to look into: `phoenix restore --into scratch`.

The program that does it is on the hosts of group drill (services/drill_copy.py); the platform is not touched.
"""

from __future__ import annotations

import shlex
from contextlib import suppress
from typing import Any

from deploys.lib.settings import Platform, PlatformHost, PostgresqlSettings, shown
from ops import inplace, inventory, remote, repository
from ops.backup import size
from ops.cluster import Cluster
from ops.errors import Ended, Refused
from ops.moment import Target
from ops.receipt import Receipt
from ops.repository import Backup, Branch
from ops.shells import DATABASE
from ops.terminal import Terminal

LIBRARY = "/usr/local/lib/phoenix"
PROGRAM = f"{LIBRARY}/drill_copy.py"
DIRECTORY = f"{inplace.HOME}/.scratch"
LIBRARIES = "timescaledb,pg_cron,pgaudit,pg_stat_statements"
"""Preloaded where no leader can be asked (deploys/postgresql/patroni.py); the copy leaves out those that work by themselves."""
SPARE_BYTES = 1024**3


def host(platform: Platform, name: str | None) -> PlatformHost:
    """Where copies are made: `name`, or the first host of group drill. Raises Refused."""
    able = platform.group("drill")
    if not able:
        raise Refused(f"{shown(platform.inventory)} has no host in the group drill, where copies are made: add one and deploy.")
    if name is None:
        return able[0]
    chosen = inventory.host(platform, name)
    if chosen not in able:
        raise Refused(f"{name} is not in the group drill, where copies are made: choose from {', '.join(one.name for one in able)}.")
    return chosen


def prepare(place: PlatformHost, own: Cluster, target: Target, branch: Branch | None) -> Backup:
    """The backup that the copy begins with. Raises Refused and Failed; nothing was touched then."""
    begins_with = repository.read(place, own.scope).for_target(target, branch)
    if remote.ask(place, f"test -e {DIRECTORY}", timeout_s=20).code == 0:
        raise Refused(f"{place.name} has a copy already, in {DIRECTORY}: remove it first, with './phoenix restore --remove-scratch'.")
    free, needed = inplace.free_bytes(place), begins_with.size + SPARE_BYTES
    if free < needed:
        raise Refused(f"{place.name} has {size(free)} free in {inplace.HOME}, and the copy needs {size(needed)}: make room.")
    return begins_with


def make(place: PlatformHost, own: Cluster, target: Target, *, begins_with: Backup, kept: Receipt, terminal: Terminal) -> None:
    """Restore and start the copy. Raises Failed."""
    words = ["python3", PROGRAM, "make", "--set", begins_with.label, "--type", target.kind]
    words += ["--target", target.text] if target.text else []
    words += ["--libraries", _libraries(own), "--license", own.hosts[0][PostgresqlSettings].timescaledb_license]
    with kept.steps.step("restore a copy") as doing:
        text = remote.follow(place, shlex.join(words), what="the copy", said=lambda line: terminal.say(f"  {line}", "dim"))
        made: dict[str, Any] = remote.value(text, what=PROGRAM)
        kept.facts["copy"] = {"host": place.name, **made}
        doing.note(f"{made['directory']} on {place.name}")
    kept.rto_seconds = kept.steps.total


def remove(place: PlatformHost, kept: Receipt) -> None:
    """The copy is gone; no harm when there is none. Raises Failed."""
    with kept.steps.step("remove the copy") as doing:
        remote.run(place, f"python3 {PROGRAM} remove", what="removing the copy", timeout_s=600)
        doing.note(f"{DIRECTORY} on {place.name} is gone")


def words(place: PlatformHost) -> tuple[str, str]:
    """How a person looks into the copy, and removes it."""
    look = f"./phoenix ssh {place.name} -- 'cd / && runuser -u postgres -- psql -h {DIRECTORY}/socket -d {DATABASE}'"
    return look, f"./phoenix restore --remove-scratch --on {place.name}"


def _libraries(own: Cluster) -> str:
    """What the leader preloads."""
    with suppress(Ended):
        leader = own.view().leader
        if leader is not None:
            member = own.host(leader.name)
            port = member[PostgresqlSettings].port
            return (
                remote.sql(member, "SHOW shared_preload_libraries", port=port, what="asking for its libraries", timeout_s=20) or LIBRARIES
            )
    return LIBRARIES
