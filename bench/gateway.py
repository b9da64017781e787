"""What a gateway costs, and what it saves: `.venv/bin/python bench/gateway.py [-i INVENTORY] [--switchovers N]`.

Asks the lab as the login samurai_agent: on the leader's host the same statement directly, through HAProxy and through PgBouncer, by turns,
so that a busy machine slows all of them alike, and what a connection costs each way; from this computer what 1,000 clients get, and, with
--switchovers, how long a client waits in each planned switchover. Writes nothing to tables.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import psycopg  # noqa: E402 - the project has to be found first

from deploys.lib.pki import Authority  # noqa: E402
from deploys.lib.secrets import SecretStore  # noqa: E402
from deploys.lib.settings import GatewaySettings, Platform, PlatformHost, PostgresqlSettings, load  # noqa: E402

LOGIN = "samurai_agent"
CLIENTS = 1000
PAUSE_S = 8.0
"""Between two switchovers: the old leader has to be a standby again."""


@dataclass(frozen=True)
class Lab:
    """The inventory's gateways and members, and how one asks them."""

    platform: Platform
    authority: Path
    password: str

    @property
    def gateways(self) -> list[PlatformHost]:
        return self.platform.group("gateway")

    @property
    def settings(self) -> GatewaySettings:
        return self.gateways[0][GatewaySettings]

    @property
    def members(self) -> list[PlatformHost]:
        name = self.settings.cluster_name
        return [host for host in self.platform.group("postgresql") if host[PostgresqlSettings].cluster_name == name]

    def parameters(self, host: str, port: int, **more: Any) -> dict[str, Any]:
        return {
            "host": host, "port": port, "dbname": "phoenix", "user": LOGIN, "password": self.password, "sslmode": "verify-full",
            "sslrootcert": str(self.authority), "connect_timeout": 40, **more,
        }  # fmt: skip

    def ssh(self, host: PlatformHost) -> list[str]:
        data = host.data
        options = {"IdentityFile": data["ssh_key"], "UserKnownHostsFile": data["ssh_known_hosts_file"], "BatchMode": "yes"}
        words = [word for option, value in options.items() for word in ("-o", f"{option}={value}")]
        return ["ssh", *words, f"{data['ssh_user']}@{data['ssh_hostname']}"]

    def run(self, host: PlatformHost, script: str) -> str:
        return subprocess.run([*self.ssh(host), script], capture_output=True, text=True, check=True).stdout

    def cluster(self) -> list[dict[str, Any]]:
        """Members as Patroni tells them."""
        config = "patronictl -c /etc/patroni/config.yml list --format json"
        return list(json.loads(self.run(self.members[0], config)))

    def leader(self) -> PlatformHost:
        name = next(one["Member"] for one in self.cluster() if one["Role"] == "Leader")
        return self.platform.hosts[name]


@contextmanager
def tunnel(lab: Lab, host: PlatformHost, port: int) -> Iterator[int]:
    """A port of this computer that leads to `port` on the host's loopback, over SSH."""
    local = 23_000 + port % 1000
    command = lab.ssh(host)
    process = subprocess.Popen([command[0], "-N", "-L", f"127.0.0.1:{local}:127.0.0.1:{port}", *command[1:]])
    try:
        time.sleep(1.5)
        yield local
    finally:
        process.terminate()
        process.wait()


def row(name: str, times: list[float], unit: float = 1000) -> None:
    """One line of a table, in ms unless `unit` says otherwise."""
    values = sorted(value * unit for value in times)
    p95 = statistics.quantiles(values, n=20)[-1] if len(values) > 1 else values[0]
    print(f"{name:44}{values[0]:9.2f}{statistics.median(values):9.2f}{p95:9.2f}{values[-1]:9.2f}")


def head(title: str) -> None:
    print(f"\n{title:44}{'min':>9}{'median':>9}{'p95':>9}{'max':>9}")


def timed(what: Callable[[], object]) -> float:
    started = time.perf_counter()
    what()
    return time.perf_counter() - started


def latency(lab: Lab, count: int) -> None:
    """The same statement on each way, asked on the leader's host itself, where HAProxy's port is."""
    program = r"""
import json, sys, time
import psycopg2
ways, count = json.load(sys.stdin)
open_ = {name: psycopg2.connect(**parameters) for name, parameters in ways.items()}
for connection in open_.values():
    connection.autocommit = True
times = {name: [] for name in ways}
for _ in range(count):
    for name, connection in open_.items():
        cursor = connection.cursor()
        started = time.perf_counter()
        cursor.execute("SELECT 1")
        times[name].append(time.perf_counter() - started)
connecting = {name: [] for name in ways}
for _ in range(count // 10):
    for name, parameters in ways.items():
        started = time.perf_counter()
        connection = psycopg2.connect(**parameters)
        connection.cursor().execute("SELECT 1")
        connecting[name].append(time.perf_counter() - started)
        connection.close()
print(json.dumps([times, connecting]))
"""
    leader = lab.leader()
    here = {"host": "127.0.0.1", "sslrootcert": "/etc/phoenix/tls/ca.crt"}
    port = leader[PostgresqlSettings].port
    ways = {
        name: {**lab.parameters("", number), **here}
        for name, number in (("direct", port), ("HAProxy", lab.settings.writer_port), ("PgBouncer and HAProxy", lab.settings.port))
    }
    command, question = [*lab.ssh(leader), f"python3 -c {shlex.quote(program)}"], json.dumps([ways, count])
    done = subprocess.run(command, input=question, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    times, connecting = json.loads(done.stdout)
    head(f"SELECT 1 on {leader.name}, {count} each, ms")
    for name, values in times.items():
        row(name, values)
    head("connect, SELECT 1, ms")
    for name, values in connecting.items():
        row(name, values)
    direct = statistics.median(times["direct"])
    for name in list(ways)[1:]:
        median = statistics.median(times[name])
        print(f"{name}: {median / direct:.2f} times direct, {(median - direct) * 1e6:.0f} µs more")


async def crowd(lab: Lab, rounds: int) -> None:
    """1,000 clients of one address at one gateway: all open, then all asking at once, `rounds` times."""
    login = lab.parameters(lab.gateways[0].data["host_address"], lab.settings.port)
    opening = asyncio.Semaphore(25)
    took: list[float] = []

    async def opened() -> psycopg.AsyncConnection[Any]:
        async with opening:
            return await psycopg.AsyncConnection.connect(**login, autocommit=True)

    async def asked(client: psycopg.AsyncConnection[Any]) -> None:
        started = time.perf_counter()
        await client.execute("SELECT 1")
        took.append(time.perf_counter() - started)

    started = time.perf_counter()
    clients = await asyncio.gather(*(opened() for _ in range(CLIENTS)))
    opened_in = time.perf_counter() - started
    started = time.perf_counter()
    for _ in range(rounds):
        await asyncio.gather(*(asked(client) for client in clients))
    asked_in = time.perf_counter() - started
    cursor = await clients[0].execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", [LOGIN])
    sessions = await cursor.fetchone()
    await asyncio.gather(*(client.close() for client in clients))
    head(f"{CLIENTS} clients ask at once, {rounds} times, ms")
    row("one answer", took)
    count = sessions[0] if sessions else 0
    print(f"opened in {opened_in:.1f} s; {rounds * CLIENTS / asked_in:.0f} statements/s; {count} sessions of the database")


@dataclass
class Client:
    """Asks all the time, and keeps what it saw. It holds its connection for as long as it can, then connects anew with the same string."""

    parameters: dict[str, Any]
    answers: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    stop: Event = field(default_factory=Event)
    stopped: float = 0.0

    def run(self) -> None:
        connection: psycopg.Connection[Any] | None = None
        while not self.stop.is_set():
            try:
                if connection is None or connection.closed:
                    connection = psycopg.connect(**self.parameters, autocommit=True)
                connection.execute("SELECT pg_current_xact_id()")  # refused by a standby
                self.answers.append(time.monotonic())
                time.sleep(0.02)
            except psycopg.Error as error:
                self.errors[str(error).strip().splitlines()[0][-90:]] += 1
                if connection is not None and connection.closed:
                    connection = None
                time.sleep(0.05)
        self.stopped = time.monotonic()

    def pause(self, since: float) -> float:
        """The longest time without an answer after `since`."""
        times = [since, *(one for one in self.answers if one >= since), self.stopped]
        return max(later - earlier for earlier, later in pairwise(times))


def switchovers(lab: Lab, count: int) -> None:
    """Planned switchovers under a client at each gateway, and one that connects directly with target_session_attrs."""
    hosts = {gateway.name: gateway.data["host_address"] for gateway in lab.gateways}
    addresses = ",".join(one.data["host_address"] for one in lab.members)
    direct = lab.parameters(addresses, lab.members[0][PostgresqlSettings].port, target_session_attrs="read-write", connect_timeout=2)
    pauses: dict[str, list[float]] = {}
    errors: dict[str, list[int]] = {}
    seen: Counter[str] = Counter()
    for _ in range(count):
        clients = {f"through {name}": Client(lab.parameters(address, lab.settings.port)) for name, address in hosts.items()}
        clients["directly, target_session_attrs"] = Client(direct)
        threads = [Thread(target=client.run, daemon=True) for client in clients.values()]
        for thread in threads:
            thread.start()
        time.sleep(1)
        leader, began = lab.leader(), time.monotonic()
        lab.run(leader, f"patronictl -c /etc/patroni/config.yml switchover {lab.settings.cluster_name} --leader {leader.name} --force")
        time.sleep(PAUSE_S)
        for client, thread in zip(clients.values(), threads, strict=True):
            client.stop.set()
            thread.join()
        for name, client in clients.items():
            pauses.setdefault(name, []).append(client.pause(began))
            errors.setdefault(name, []).append(sum(client.errors.values()))
            seen.update({f"{name}: {error}": number for error, number in client.errors.items()})
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with suppress(subprocess.CalledProcessError, ValueError):
                if any(one["Role"] in ("Sync Standby", "Replica") and one["State"] in ("streaming", "running") for one in lab.cluster()):
                    break
            time.sleep(1)
    head(f"longest pause in each of {count} switchovers, s")
    for name, values in pauses.items():
        row(name, values, unit=1)
    for name, numbers in errors.items():
        print(f"{name}: errors in each: {numbers}")
    for error, number in seen.most_common(12):
        print(f"  {number:4}  {error}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-i", "--inventory", type=Path, default=ROOT / "inventory" / "lab.py")
    parser.add_argument("-n", "--count", type=int, default=1000, help="statements on each way")
    parser.add_argument("--rounds", type=int, default=10, help="times that the crowd asks; 0 leaves it out")
    parser.add_argument("--switchovers", type=int, default=0)
    given = parser.parse_args()
    platform = load(given.inventory.resolve())
    secrets = SecretStore.load(platform.secrets_file)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * CLIENTS), hard))
    with tempfile.NamedTemporaryFile("w", suffix=".crt") as authority:
        authority.write(Authority.of(secrets).certificate)
        authority.flush()
        lab = Lab(platform, Path(authority.name), secrets.get(f"postgresql/{LOGIN}"))
        if given.count:
            latency(lab, given.count)
        if given.rounds:
            asyncio.run(crowd(lab, given.rounds))
        if given.switchovers:
            switchovers(lab, given.switchovers)


if __name__ == "__main__":
    main()
