"""rebuild: a host that lost everything becomes again what the inventory says. With the rest of the platform alive it is cloned from it;
when every database host is gone, the first one comes back from the offsite backup alone, and the secrets file."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from deploys.lib import region2
from deploys.lib.settings import EtcdSettings, HostSettings, Platform, PlatformHost, PostgresqlSettings
from ops import cluster, copy_anew, deploy, followers, inplace, inventory, receipt, remote, status, watch
from ops.cluster import Cluster
from ops.deploy import only_one
from ops.errors import DONE, Failed, Refused
from ops.probe import TLS
from ops.receipt import Receipt
from ops.remote import Unreachable
from ops.terminal import Terminal

ETCD_DATA = "/var/lib/etcd/phoenix/member"
DATA_WAIT_S = 6 * 3600
STATUS_WAIT_S = 60

Kind = Literal["member", "alone", "everything", "plain"]
KINDS: dict[Kind, str] = {
    "member": "it is cloned from the other members of its cluster",
    "alone": "its cluster is made anew: it is the only member, and what it holds is a copy",
    "everything": "the database is restored from the offsite backup: no member of its cluster has data",
    "plain": "it has no database: it is deployed",
}


@dataclass(frozen=True)
class Found:
    """A host as it is now."""

    reachable: bool
    data: bool = False
    """It has PostgreSQL's data."""
    etcd: bool = False
    """It has etcd's data."""
    etcd_serves: bool = False
    """Its etcd answers a request that needs the majority."""


@dataclass(frozen=True)
class Plan:
    """What a rebuild of `host` would do."""

    host: PlatformHost
    kind: Kind
    found: dict[str, Found]
    destroys: tuple[str, ...] = ()
    """Sentences for the question."""
    deploys: tuple[str, ...] = ()
    """Hosts that are deployed."""
    etcd_lost: tuple[str, ...] = ()
    """Members of etcd that a new cluster begins without."""
    etcd_anew: tuple[str, ...] = ()
    """Hosts whose etcd has data and no majority: it begins anew."""
    left_out: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """For --json and the receipt."""
        return {
            "host": self.host.name,
            "kind": self.kind,
            "destroys": list(self.destroys),
            "deploys": list(self.deploys),
            "etcd_lost": list(self.etcd_lost),
            "etcd_anew": list(self.etcd_anew),
            "left_out": list(self.left_out),
        }


def arguments(verb: str, parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("host", metavar="HOST", help="the host to make anew; a bare Debian at the same address, or one to be emptied")
    parser.add_argument("--accept-new-host-key", action="store_true", help="the machine is a new one: trust the SSH host key that it shows")
    parser.add_argument("--plan", action="store_true", help="say what would be done; change nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Do the verb."""
    platform = inventory.made(options.inventory)
    host = inventory.host(platform, options.host)
    _known(host, accept=options.accept_new_host_key and not options.plan, terminal=terminal)
    with only_one(platform, list(platform.hosts)) as held:
        plan = prepare(platform, host)
        _show(plan, terminal)
        if options.plan:
            terminal.result({"ok": True, **plan.as_dict()})
            return DONE
        if plan.destroys and not options.yes:
            terminal.confirm(" ".join(plan.destroys))
        with receipt.kept("rebuild", platform, terminal) as kept:
            kept.facts["plan"] = plan.as_dict()
            perform(platform, plan, kept, terminal, held=held)
    terminal.line(f"{host.name} is what the inventory says it is.", "green")
    return DONE


def prepare(platform: Platform, host: PlatformHost) -> Plan:
    """Look at all hosts and decide. Raises Refused when it must not or cannot be done; nothing was touched then."""
    found = remote.together(look, list(platform.hosts.values()))
    if not found[host.name].reachable:
        raise Refused(
            f"{host.name} cannot be reached over SSH: bring a bare Debian machine up at {host.data.get('ssh_hostname', host.name)}, with "
            "your key in it."
        )
    if "postgresql" not in host.groups:
        return _plan(platform, host, "plain", found)
    own = cluster.of(platform, host.name)
    others = [other for other in own.hosts if other.name != host.name]
    if not others and "region2" in host.groups:
        return _plan(platform, host, "alone", found)
    if any(found[other.name].data for other in others):
        plan = _plan(platform, host, "member", found)
        if not plan.etcd_anew:
            _member_may_go(own, host, others)
        return plan
    if found[host.name].data:
        raise Refused(
            f"{host.name} has the only copy of {own.scope} that can be reached: use './phoenix restore' to go back in time, or "
            "'./phoenix deploy' to mend the host."
        )
    if "backup" not in host.groups:
        raise Refused(f"no member of {own.scope} has data, and {host.name} is not in the group backup: there is nothing to rebuild from.")
    return _plan(platform, host, "everything", found)


def _plan(platform: Platform, host: PlatformHost, kind: Kind, found: dict[str, Found]) -> Plan:
    """Who is deployed, and what becomes of etcd. Other database hosts that are bare wait for a rebuild of their own."""
    bare = [other.name for other in platform.group("postgresql") if other.name != host.name and not found[other.name].data]
    deploys = tuple(name for name, state in found.items() if state.reachable and name not in bare)
    destroys = []
    if found[host.name].data:
        destroys.append(f"The database in {cluster.data_directory(host)} on {host.name} is removed.")
    members = platform.group("etcd") if "etcd" in host.groups else []
    lost: tuple[str, ...] = ()
    anew: tuple[str, ...] = ()
    if members and not any(found[member.name].etcd_serves for member in members):
        # What holds data and has no majority stands in the way of a new cluster; it keeps nothing but who led.
        anew = tuple(member.name for member in members if found[member.name].etcd and member.name in deploys)
        lost = tuple(member.name for member in members if member.name not in (*anew, host.name))
        if anew:
            destroys.append(
                f"etcd has lost its majority and begins anew on {', '.join(anew)}: the database that is still there leads from then on, "
                "and what only a lost host had is gone."
            )
    left_out = tuple(name for name in platform.hosts if name not in deploys)
    return Plan(host, kind, found, tuple(destroys), deploys, lost, anew, left_out)


def perform(platform: Platform, plan: Plan, kept: Receipt, terminal: Terminal, *, held: Sequence[int]) -> None:
    """The steps of `plan`. Raises Failed; run again, it goes on."""
    host = plan.host
    began = time.monotonic()
    if plan.found[host.name].data:
        with kept.steps.step("remove the old data") as doing:
            inplace.stop(host)
            inplace.remove(host, cluster.data_directory(host))
            doing.note(f"{cluster.data_directory(host)} on {host.name} is gone")
    if plan.kind == "alone":
        with kept.steps.step("forget who led") as doing:
            doing.note(f"{cluster.of(platform, host.name).forget(via=_etcd_hosts(platform, plan))} keys removed from etcd")
    for name in plan.etcd_anew:
        with kept.steps.step("begin etcd anew") as doing:
            remote.run(platform.hosts[name], f"systemctl stop etcd; rm -rf {ETCD_DATA}", what="emptying etcd")
            doing.note(f"etcd on {name} had data and no majority: its data is gone, Patroni writes it anew")
    if plan.kind == "everything":
        with kept.steps.step("ask for the restore") as doing:
            _request(host)
            doing.note("the newest backup, to the end of the archive")
    _deploy(platform, plan, kept, terminal, held=held)
    if "postgresql" in host.groups:
        _database(platform, plan, kept, terminal, held=held)
        kept.rto_seconds = time.monotonic() - began
    # With the database's end of the archive comes an earlier moment than the one that followers elsewhere know.
    if left := followers.bring_back(platform, followers.EVERYTHING if plan.kind == "everything" else host.groups, kept.steps):
        raise Failed("\n".join(left))
    with kept.steps.step("verify") as doing:
        _well(platform, host)
        doing.note(f"every service on {host.name} is well")


def _deploy(platform: Platform, plan: Plan, kept: Receipt, terminal: Terminal, *, held: Sequence[int]) -> None:
    """The deploy of the plan. It does not wait for gigabytes: where Patroni is still at work on the data, it is made again afterwards."""
    host, data = plan.host, {"etcd_lost": list(plan.etcd_lost)} if plan.etcd_lost else {}
    since = datetime.now(UTC)
    with kept.steps.step("deploy") as doing:
        result = deploy.perform(platform, plan.deploys, terminal, data=data, held=held)
        doing.note(f"{result.changed} operations changed something on {', '.join(plan.deploys)}")
        at_work = "postgresql" in host.groups and remote.ask(host, "systemctl is-active --quiet patroni", timeout_s=20).code == 0
        if not result.ok and not at_work:
            raise Failed("\n".join(result.problems))
    if result.ok:
        return
    with kept.steps.step("wait for the data") as doing:
        doing.note(result.problems[0])
        if plan.kind == "member":
            watch.rebuilt(cluster.of(platform, host.name), [host.name], doing, seconds=DATA_WAIT_S)
        else:
            problem = f"the database of {host.name} does not come up ({{}}): see './phoenix logs patroni', then run the rebuild again."
            inplace.await_leader(host, since=since, problem=problem, doing=doing)
    with kept.steps.step("deploy again") as doing:
        result = deploy.perform(platform, plan.deploys, terminal, data=data, held=held)
        doing.note(f"{result.changed} operations changed something")
        if not result.ok:
            raise Failed("\n".join(result.problems))


def look(host: PlatformHost) -> Found:
    """What is on `host`."""
    settings = host.settings.get(PostgresqlSettings.prefix)
    data = f"{cluster.data_directory(host)}/PG_VERSION" if settings else "/nonexistent"
    etcd = host.settings.get(EtcdSettings.prefix)
    port = host[EtcdSettings].client_port if etcd else 2379
    script = (
        f"test -f {data} && echo data; test -d {ETCD_DATA} && echo etcd; "
        f"ETCDCTL_API=3 etcdctl --endpoints https://127.0.0.1:{port} --cacert {TLS}/ca.crt --cert {TLS}/host.crt --key {TLS}/host.key "
        "--dial-timeout 2s --command-timeout 5s get --limit 1 / >/dev/null 2>&1 && echo serves; true"
    )
    try:
        words = remote.ask(host, script, timeout_s=30).out.split()
    except Unreachable:
        return Found(reachable=False)
    return Found(True, "data" in words, "etcd" in words, "serves" in words)


def _member_may_go(own: Cluster, host: PlatformHost, others: Sequence[PlatformHost]) -> None:
    """Another member leads. Raises Refused, Failed."""
    leader = own.view([*others, host]).leader
    if leader is None:
        raise Refused(f"nobody leads {own.scope}, so nothing can be cloned: see './phoenix failover --plan'.")
    if leader.name == host.name:
        raise Refused(f"{host.name} leads {own.scope}: let another member lead first, with './phoenix failover'.")


def _database(platform: Platform, plan: Plan, kept: Receipt, terminal: Terminal, *, held: Sequence[int]) -> None:
    """The member is where it belongs: it streams, or leads. Raises Failed."""
    host, own = plan.host, cluster.of(platform, plan.host.name)
    if plan.kind == "member":
        with kept.steps.step("stream") as doing:
            watch.rebuilt(own, [host.name], doing, seconds=DATA_WAIT_S)
        return
    with kept.steps.step("take writes") as doing:
        own.wait(
            lambda view: view.leader is not None and view.leader.name == host.name and view.leader.state == "running",
            seconds=STATUS_WAIT_S,
            problem=f"{host.name} does not lead",
            now=doing.now,
        )
        remote.sql(host, "SELECT txid_current()", port=host[PostgresqlSettings].port, what="the first write")
        kept.facts["position"] = watch.position(host)
        remote.run(host, f"rm -f {inplace.REQUEST}", what="removing the request")
        doing.note(f"{host.name} leads, timeline {kept.facts['position']['timeline']}, LSN {kept.facts['position']['lsn']}")
    far = [other.name for other in platform.group(region2.NAME) if plan.found[other.name].data]
    if plan.kind == "everything" and far:
        copy_anew.begin(platform, own, [host], kept, terminal, held=held)


def _request(host: PlatformHost) -> None:
    """The bootstrap of a host that has nothing yet restores the newest backup. The directory is the package's, which may come later."""
    content = json.dumps({"type": "latest", "target": None, "set": None})
    script = f"mkdir -p {inplace.HOME} && cat >{inplace.REQUEST} && chmod 644 {inplace.REQUEST} && sync {inplace.REQUEST}"
    remote.run(host, script, what="asking for the restore", stdin=content + "\n")


def _etcd_hosts(platform: Platform, plan: Plan) -> list[PlatformHost]:
    """Members of etcd that can be asked, the host itself last: it may be bare."""
    able = [host for host in platform.group("etcd") if plan.found[host.name].etcd_serves]
    return sorted(able, key=lambda host: host.name == plan.host.name)


def _well(platform: Platform, host: PlatformHost) -> None:
    """Every service of `host` is well, after a while: exporters and timers need a moment. Raises Failed."""
    end = time.monotonic() + STATUS_WAIT_S
    while bad := [health for health in status.ask(platform, [host]) if not health.ok]:
        if time.monotonic() > end:
            names = ", ".join(f"{health.service.name} ({health.detail})" for health in bad)
            raise Failed(f"{host.name}: {names}: see './phoenix status' and './phoenix logs {host.name}'.")
        time.sleep(2)


def _known(host: PlatformHost, *, accept: bool, terminal: Terminal) -> None:
    """A new machine shows another SSH host key than the old one: say so, or trust it when the person does. Raises Refused."""
    try:
        remote.ask(host, "true", timeout_s=20)
    except Unreachable as error:
        if "Host key verification failed" not in str(error):
            return  # `prepare` says that it cannot be reached
        if not accept:
            raise Refused(
                f"{host.name} shows another SSH host key than it used to, as a new machine does: make sure that it is yours, then add "
                "--accept-new-host-key."
            ) from None
        _accept(host)
        terminal.say(f"The new SSH host key of {host.name} is trusted from now on.", "yellow")


def _accept(host: PlatformHost) -> None:
    """Forget the old host key and take the one that the machine shows now. Raises Refused."""
    address, port = str(host.data.get("ssh_hostname", host.name)), host.data.get("ssh_port")
    file = Path(str(host.data.get("ssh_known_hosts_file") or "~/.ssh/known_hosts")).expanduser()
    for name in {address, host.name, host[HostSettings].address, *([f"[{address}]:{port}"] if port else [])}:
        subprocess.run(["ssh-keygen", "-R", name, "-f", str(file)], capture_output=True, check=False)
    command = inventory.ssh(host, "-o", "HashKnownHosts=no")
    # OpenSSH takes the first value of an option: ours has to come before the inventory's.
    command = [command[0], "-o", "StrictHostKeyChecking=accept-new", *command[1:], "true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [shlex.join(command)])[-1].rstrip(".")
        raise Refused(f"{host.name} is not let in with its new host key ({said}): see what {file} holds for {address}.")


def _show(plan: Plan, terminal: Terminal) -> None:
    rows = [
        ["host", plan.host.name],
        ["how", KINDS[plan.kind]],
        ["is destroyed", " ".join(plan.destroys) or "nothing: the host is bare"],
        ["is deployed", ", ".join(plan.deploys)],
    ]
    rows += [["is left out", ", ".join(plan.left_out)]] if plan.left_out else []
    rows += [["etcd", f"begins anew without {', '.join(plan.etcd_lost)}"]] if plan.etcd_lost else []
    terminal.table(["what", "value"], rows)
