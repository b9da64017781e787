"""A cluster as its Patroni tells it, and what can be asked of it. Everything goes over SSH: a host talks to its own Patroni and etcd,
with its own certificate."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from deploys.lib.settings import EtcdSettings, HostSettings, Platform, PlatformHost, PostgresqlSettings, shown
from ops import remote
from ops.errors import Failed, Refused
from ops.probe import TLS
from ops.remote import Unreachable

NAMESPACE = "/phoenix/"
"""Where Patroni keeps its clusters in etcd (templates/postgresql/patroni.yml.j2)."""

ACTION_TIMEOUT_S = 90
LEADERS = ("leader", "standby_leader", "master")


@dataclass(frozen=True)
class Member:
    """One member, as Patroni's store has it: up to a loop (postgresql_loop_wait_s) old."""

    name: str
    role: str
    """leader, sync_standby, quorum_standby, replica, …"""
    state: str
    """running, streaming, starting, stopped, creating replica, …"""
    timeline: int | None
    lag: int | None
    """Bytes of WAL not yet received; None for a leader and where it is unknown."""

    @property
    def leads(self) -> bool:
        return self.role in LEADERS

    @property
    def synchronous(self) -> bool:
        """Whether the leader waits for it at every commit."""
        return self.role == "sync_standby" and self.state == "streaming"


@dataclass(frozen=True)
class View:
    """A cluster at one moment."""

    members: tuple[Member, ...]
    paused: bool

    @property
    def leader(self) -> Member | None:
        return next((member for member in self.members if member.leads), None)

    def member(self, name: str) -> Member | None:
        return next((member for member in self.members if member.name == name), None)

    def as_rows(self) -> list[dict[str, Any]]:
        """For a receipt."""
        return [vars(member) for member in self.members]


@dataclass(frozen=True)
class Cluster:
    """A Patroni cluster of the inventory: the hosts of group postgresql that share a cluster name."""

    scope: str
    hosts: tuple[PlatformHost, ...]

    @property
    def names(self) -> list[str]:
        return [host.name for host in self.hosts]

    def host(self, name: str) -> PlatformHost:
        """The host called `name`. Raises Refused."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise Refused(f"{name} is no member of the cluster {self.scope}: choose from {', '.join(self.names)}.")

    def view(self, hosts: Sequence[PlatformHost] | None = None) -> View:
        """What the first of `hosts` (default: all) that answers says. Raises Failed when none does."""
        reasons = []
        for host in hosts or self.hosts:
            try:
                return parse(remote.run(host, f"{remote.CURL} --max-time 5 {url(host)}/cluster", what="asking Patroni", timeout_s=20))
            except (Failed, ValueError) as error:
                reasons.append(str(error).split(": see ")[0].rstrip("."))
        raise Failed(f"no Patroni of the cluster {self.scope} answers ({'; '.join(reasons)}): see './phoenix status'.")

    def wait(self, condition: Callable[[View], bool], *, seconds: float, problem: str, now: Callable[[str], None] = lambda _: None) -> View:
        """The first view for which `condition` holds, asked twice a second. Raises Failed with `problem` after `seconds`."""
        end = time.monotonic() + seconds
        said = ""
        while True:
            try:
                view = self.view()
                if condition(view):
                    return view
                said = ", ".join(f"{member.name} is {member.role}, {member.state}" for member in view.members) or "no members"
            except Failed as error:
                said = str(error)
            now(said)
            if time.monotonic() > end:
                raise Failed(f"{problem} ({said.rstrip('.')})".rstrip(".") + f" after {seconds:.0f} s: see './phoenix logs patroni'.")
            time.sleep(0.5)

    def switchover(self, leader: str, candidate: str) -> str:
        """Let `candidate` lead instead of `leader`; what Patroni said, which may be that it does not know yet. Raises Failed."""
        return self._act(
            self.host(leader), "POST", "/switchover", {"leader": leader, "candidate": candidate}, f"the switchover to {candidate}"
        )

    def promote(self, candidate: str) -> str:
        """Let `candidate` lead where nobody does; what Patroni said. Raises Failed."""
        return self._act(self.host(candidate), "POST", "/failover", {"candidate": candidate}, f"the promotion of {candidate}")

    def reinitialize(self, name: str) -> str:
        """Throw away the data of the standby `name` and clone it anew; Patroni does it by and by. Raises Failed."""
        return self._act(self.host(name), "POST", "/reinitialize", {"force": True}, f"the new clone of {name}")

    def synchronous_set(self) -> tuple[str, list[str]]:
        """Who led last and which standbys have everything that was acknowledged then, by the store. Raises Failed."""
        text = self._etcd(f"get --print-value-only {NAMESPACE}{self.scope}/sync", "reading the store").strip()
        content = json.loads(text) if text else {}
        names = content.get("sync_standby") or ""
        return str(content.get("leader") or ""), [name for name in names.split(",") if name]

    def forget(self, via: Sequence[PlatformHost] = ()) -> int:
        """Remove everything the store knows of this cluster: the next start bootstraps it. How many keys that were.

        `via` are hosts whose etcd is asked instead of the members' own. Raises Failed.
        """
        return int(self._etcd(f"del --prefix {NAMESPACE}{self.scope}/", "removing the cluster's keys", via).strip() or 0)

    def _act(self, host: PlatformHost, method: str, path: str, body: dict[str, Any], what: str) -> str:
        done = remote.ask(
            host,
            f"{remote.CURL} --max-time {ACTION_TIMEOUT_S} -X {method} -H 'Content-Type: application/json' -w '\\n%{{http_code}}' "
            f"{url(host)}{path} --data-binary @-",
            stdin=json.dumps(body),
            timeout_s=ACTION_TIMEOUT_S + 15,
        )
        said, _, status = done.out.strip().rpartition("\n")
        if "status unknown" in said:  # it has begun, and took longer than Patroni waits
            return said.strip()
        if done.code != 0 or not status.startswith("2"):
            raise Failed(f"Patroni refuses {what} ({(said or done.reason).strip().rstrip('.')}): see './phoenix logs patroni'.")
        return said.strip()

    def _etcd(self, words: str, what: str, via: Sequence[PlatformHost] = ()) -> str:
        """What etcdctl prints on the first host of this cluster (or of `via`) that has etcd and answers."""
        members = [host for host in via or self.hosts if "etcd" in host.groups]
        if not members:
            raise Refused(f"no host of the cluster {self.scope} is in the group etcd: add one.")
        problem: Failed | None = None
        for host in members:
            endpoint = f"https://127.0.0.1:{host[EtcdSettings].client_port}"
            command = (
                f"ETCDCTL_API=3 etcdctl --endpoints {endpoint} --cacert {TLS}/ca.crt --cert {TLS}/host.crt --key {TLS}/host.key "
                f"--dial-timeout 3s --command-timeout 10s {words}"
            )
            try:
                return remote.run(host, command, what=what, timeout_s=30)
            except Failed as error:
                problem = error
        assert problem is not None  # noqa: S101 - there was at least one member
        raise problem


def clusters(platform: Platform) -> dict[str, Cluster]:
    """All clusters of the inventory, by their names. Raises Refused when it has no PostgreSQL."""
    members: dict[str, list[PlatformHost]] = {}
    for host in platform.group("postgresql"):
        members.setdefault(host[PostgresqlSettings].cluster_name, []).append(host)
    if not members:
        raise Refused(f"{shown(platform.inventory)} has no host in the group postgresql: add one.")
    return {scope: Cluster(scope, tuple(hosts)) for scope, hosts in members.items()}


def of(platform: Platform, name: str | None = None) -> Cluster:
    """The cluster that the host called `name` belongs to; without a name the platform's own: the first that is no second region."""
    found = clusters(platform)
    if name is not None:
        host = platform.hosts.get(name)
        if host is None:
            raise Refused(f"{shown(platform.inventory)} has no host {name}: choose from {', '.join(platform.hosts)}.")
        if "postgresql" not in host.groups:
            raise Refused(f"{name} is not in the group postgresql and has no database: choose from {_database_hosts(platform)}.")
        return found[host[PostgresqlSettings].cluster_name]
    own = [cluster for cluster in found.values() if not all("region2" in host.groups for host in cluster.hosts)]
    return (own or list(found.values()))[0]


def parse(text: str) -> View:
    """Patroni's answer to GET /cluster. Raises ValueError when it is none."""
    content = json.loads(text)
    if not isinstance(content, dict) or "members" not in content:
        raise ValueError("Patroni's answer has no members")
    members = tuple(
        Member(
            name=str(member["name"]),
            role=str(member.get("role", "")),
            state=str(member.get("state", "")),
            timeline=member.get("timeline"),
            lag=member["lag"] if isinstance(member.get("lag"), int) else None,
        )
        for member in content["members"]
    )
    return View(members, bool(content.get("pause")))


def url(host: PlatformHost) -> str:
    """The address of Patroni's API on `host`."""
    return f"https://{host[HostSettings].address}:{host[PostgresqlSettings].patroni_port}"


def data_directory(host: PlatformHost) -> str:
    """Where PostgreSQL's data is on `host`."""
    settings = host[PostgresqlSettings]
    return f"/var/lib/postgresql/{settings.version}/{settings.cluster_name}"


def reachable(host: PlatformHost) -> bool:
    """Whether `host` answers over SSH."""
    try:
        remote.ask(host, "true", timeout_s=20)
    except Unreachable:
        return False
    return True


def _database_hosts(platform: Platform) -> str:
    return ", ".join(host.name for host in platform.group("postgresql"))
