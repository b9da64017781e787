"""The database cluster as its witnesses see it: each member's own PostgreSQL, Patroni, and every etcd, asked inside the machines."""

from __future__ import annotations

import json
import shlex
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg.conninfo import make_conninfo

from deploys.lib import region2
from deploys.lib.pki import CERTIFICATE_SECRET
from deploys.lib.secrets import SecretStore
from deploys.lib.settings import EtcdSettings, HostSettings, Platform, PlatformHost, PostgresqlSettings, WorldSettings
from ops import lifecycle
from ops.errors import Refused
from tests.drills import network
from tests.drills.machines import DrillError, Machine, Relay, wait_for_none

TLS = "--cacert /etc/phoenix/tls/ca.crt --cert /etc/phoenix/tls/host.crt --key /etc/phoenix/tls/host.key"
WRITER = "architect"
DATABASE = "phoenix"

# Nothing waits longer for one member: frozen ones are asked as well.
_ASK_S = 3

_STATE = """
SELECT json_build_object(
    'leads', NOT pg_is_in_recovery(),
    'standbys', coalesce((SELECT json_agg(json_build_object('name', application_name, 'state', state, 'sync', sync_state))
        FROM pg_stat_replication), '[]'),
    'timeline', (SELECT timeline_id FROM pg_control_checkpoint()))
"""


@dataclass(frozen=True)
class Cluster:
    """The members of the platform's cluster, the machines that hold its etcd, and all machines of the lab."""

    platform: Platform
    members: tuple[Machine, ...]
    etcd: tuple[Machine, ...]
    machines: tuple[Machine, ...]
    postgresql: PostgresqlSettings

    @classmethod
    def of(cls, platform: Platform) -> Cluster:
        """The cluster of the first host of group `postgresql`. Raises Refused for hosts that are no machines of the lab."""
        lifecycle.lab_machines(platform)
        relay = _relay(platform)

        def made(host: PlatformHost) -> Machine:
            return Machine(host.name, host[HostSettings].address, _underlay(host), relay if "tailscale" in host.groups else None)

        hosts = platform.group("postgresql")
        settings = hosts[0][PostgresqlSettings]
        members = [host for host in hosts if host[PostgresqlSettings].cluster_name == settings.cluster_name]
        return cls(
            platform,
            tuple(map(made, members)),
            tuple(map(made, platform.group("etcd"))),
            tuple(map(made, platform.hosts.values())),
            settings,
        )

    @property
    def data(self) -> str:
        """The data directory on every member."""
        return f"/var/lib/postgresql/{self.postgresql.version}/{self.postgresql.cluster_name}"

    @property
    def etcd_ports(self) -> tuple[int, int]:
        """Where etcd's members listen: for clients, and for each other."""
        settings = self.platform.hosts[self.etcd[0].name][EtcdSettings]
        return settings.client_port, settings.peer_port

    def machine(self, name: str) -> Machine:
        """The machine called `name`."""
        return next(machine for machine in self.machines if machine.name == name)

    def others(self, machine: Machine) -> tuple[Machine, ...]:
        """All machines of the lab but this one."""
        return tuple(other for other in self.machines if other != machine)

    def standbys(self, leader: Machine) -> tuple[Machine, ...]:
        """The members but `leader`."""
        return tuple(member for member in self.members if member != leader)

    def psql(self, member: Machine, sql: str, *, database: str = DATABASE, timeout_s: float = 20) -> str:
        """What `member`'s own server answers the superuser over its socket: unaligned, no headings. Raises DrillError."""
        command = f"timeout {timeout_s} runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -p {self.postgresql.port} -d {database} -f -"
        return member.run(command, stdin=sql, timeout_s=timeout_s + 2)

    def state(self, member: Machine) -> dict[str, Any] | None:
        """What the member's server says of itself; None when it gives no answer."""
        try:
            answer = self.psql(member, _STATE, database="postgres", timeout_s=_ASK_S)
            return dict(json.loads(answer)) if answer else None
        except DrillError:
            return None

    def leads(self, member: Machine) -> bool:
        """Whether the member's server takes writes, by its own account."""
        try:
            return self.psql(member, "SELECT pg_is_in_recovery()", database="postgres", timeout_s=_ASK_S) == "f"
        except DrillError:
            return False

    def leader(self) -> Machine:
        """The one member that takes writes. Raises DrillError for none and for several."""
        found = [member for member, leads in zip(self.members, _at_once(self.leads, self.members), strict=True) if leads]
        if len(found) != 1:
            raise DrillError(f"{len(found)} members take writes ({', '.join(member.name for member in found) or 'none'}), one must")
        return found[0]

    def patroni(self, member: Machine, path: str = "cluster", *options: str, timeout_s: float = _ASK_S) -> str:
        """The body of what Patroni on `member` answers, empty for no answer. `options` are curl's."""
        url = f"https://{member.address}:{self.postgresql.patroni_port}/{path}"
        command = f"curl -s --max-time {timeout_s} {TLS} {shlex.join(options)} {url}"
        return member.run(command, check=False, timeout_s=timeout_s + 2)

    def etcd_leader(self) -> Machine:
        """The machine whose member leads etcd, by its own account. Raises DrillError for none."""
        for machine in self.etcd:
            status = self._ask_etcd(machine, "status", {})
            if status["leader"] == status["header"]["member_id"]:
                return machine
        raise DrillError("no member of etcd leads")

    def lead_etcd(self, machine: Machine) -> None:
        """The member on `machine` leads etcd from now on. Raises DrillError."""
        number = self._ask_etcd(machine, "status", {})["header"]["member_id"]
        self._ask_etcd(self.etcd_leader(), "transfer-leadership", {"targetID": number})

    def _ask_etcd(self, machine: Machine, what: str, body: dict[str, str]) -> dict[str, Any]:
        url = f"https://127.0.0.1:{self.etcd_ports[0]}/v3/maintenance/{what}"
        data = shlex.quote(json.dumps(body))
        return dict(
            json.loads(machine.run(f"curl -s --fail-with-body --max-time {_ASK_S} {TLS} --data {data} {url}", timeout_s=_ASK_S + 2))
        )

    def problems(self) -> list[str]:
        """What keeps the cluster from being whole: one leader, all others streaming synchronously and with every logical slot that a
        failover needs, every etcd healthy, no cable cut."""
        found = ["a cable is cut"] if network.is_cut() else []
        if down := [machine.name for machine in self.machines if not machine.runs()]:
            return [*found, f"{', '.join(down)} off"]
        states = dict(zip(self.members, _at_once(self.state, self.members), strict=True))
        found += [f"{member.name}: PostgreSQL gives no answer" for member, state in states.items() if state is None]
        leaders = [member for member, state in states.items() if state and state["leads"]]
        if len(leaders) != 1:
            return [*found, f"{len(leaders)} members lead"]
        (leader,) = leaders
        state = states[leader] or {}
        streams = {row["name"]: (row["state"], row["sync"]) for row in state["standbys"]}
        for standby in self.standbys(leader):
            stream = streams.get(standby.name)
            if stream is None or stream[0] != "streaming" or stream[1] not in ("sync", "quorum"):
                found.append(f"{standby.name}: replication is {' '.join(stream) if stream else 'missing'}")
            found += self._slot_problems(standby)
        return found + self._patroni_problems(leader) + self._etcd_problems()

    def wait_whole(self, seconds: float = 120) -> float:
        """Seconds that it took until nothing is in `problems`. Raises DrillError naming them."""
        return wait_for_none(self.problems, seconds=seconds, what="the cluster is whole")

    def _slot_problems(self, standby: Machine) -> list[str]:
        """A leader that is struck before its slots are on the standby takes them along, and who reads them has to begin anew."""
        if not (names := region2.failover_slots(self.platform)):
            return []
        try:
            slots = json.loads(self.psql(standby, region2.slots_ready(names), database="postgres", timeout_s=_ASK_S))
        except DrillError:
            return [f"{standby.name}: PostgreSQL gives no answer"]
        return [f"{standby.name}: slot {slot['slot']} {slot['why']}" for slot in slots if not slot["ready"]]

    def _patroni_problems(self, leader: Machine) -> list[str]:
        try:
            view = json.loads(self.patroni(leader))
        except ValueError:
            return [f"{leader.name}: Patroni gives no answer"]
        roles = {row["name"]: (row["role"], row["state"]) for row in view["members"]}
        good = {"leader": ("running",), "sync_standby": ("streaming", "running"), "quorum_standby": ("streaming", "running")}
        found = []
        for member in self.members:
            role, state = roles.get(member.name, ("absent", "unknown"))
            if state not in good.get(role, ()) or (role == "leader") != (member == leader):
                found.append(f"{member.name}: Patroni has it as {role}, {state}")
        return found

    def _etcd_problems(self) -> list[str]:
        def healthy(machine: Machine) -> bool:
            port = self.platform.hosts[machine.name][EtcdSettings].client_port
            health = f"curl -s --max-time {_ASK_S} {TLS} https://{machine.address}:{port}/health"
            return '"true"' in machine.run(health, check=False, timeout_s=_ASK_S + 2)

        answers = zip(self.etcd, _at_once(healthy, self.etcd), strict=True)
        return [f"{machine.name}: etcd is not healthy" for machine, ok in answers if not ok]


class Ways:
    """How clients get in: conninfos for a writer outside, checked by TLS against the platform's authority.

    The authority's certificate is written to `directory`, which the caller keeps private: the conninfos hold the password.
    """

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        store = SecretStore.load(cluster.platform.secrets_file)
        self._cluster = cluster
        self._authority = directory / "ca.crt"
        self._authority.write_text(store.get(CERTIFICATE_SECRET), encoding="utf-8")
        self._password = store.get(f"postgresql/{WRITER}")

    def to(self, machine: Machine, port: int | None = None) -> str:
        """The conninfo that leads to `machine`: to its PostgreSQL, or what listens on `port`."""
        return make_conninfo(
            host=machine.address,
            hostaddr=machine.address,
            port=port or self._cluster.postgresql.port,
            dbname=DATABASE,
            user=WRITER,
            password=self._password,
            sslmode="verify-full",
            sslrootcert=str(self._authority),
            application_name="drill",
        )

    def through(self, entrance: str | None = None) -> list[str]:
        """All ways of an entrance: `gateway` (the default where the inventory has one) or `direct`. Raises Refused."""
        gateways = self._cluster.platform.group("gateway")
        if entrance == "gateway" and not gateways:
            raise Refused("the inventory has no host in group gateway: use --through direct.")
        return self.direct() if entrance == "direct" or not gateways else self.gateways()

    def gateways(self) -> list[str]:
        """To the pool of each gateway host, which knows who leads."""
        return [
            self.to(self._cluster.machine(host.name), int(host.data["gateway_port"])) for host in self._cluster.platform.group("gateway")
        ]

    def direct(self) -> list[str]:
        """To each member's PostgreSQL; one that is a standby refuses the write, and the writer goes on to the next."""
        return [self.to(member) for member in self._cluster.members]


def _underlay(host: PlatformHost) -> str:
    return str(host.data["ssh_hostname"])


def _relay(platform: Platform) -> Relay | None:
    """The world relays what the machines of a tailnet cannot send straight."""
    world = platform.group("world")
    return Relay(_underlay(world[0]), world[0][WorldSettings].headscale_port) if world else None


def _at_once(ask: Any, machines: tuple[Machine, ...]) -> list[Any]:
    with ThreadPoolExecutor(max_workers=max(1, len(machines))) as pool:
        return list(pool.map(ask, machines))
