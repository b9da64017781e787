"""The hosts of an inventory, over SSH: `PHOENIX_INVENTORY` names it, the lab's by default.

Tests marked `changes` break things on purpose or deploy; `phoenix verify` leaves them out, `make test` runs them on the lab.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

from deploys.lib import region2
from deploys.lib.secrets import SecretStore
from deploys.lib.settings import ROOT, HostSettings, MonitoringSettings, Platform, PlatformHost, load

CA, CERTIFICATE, KEY = (f"/etc/phoenix/tls/{name}" for name in ("ca.crt", "host.crt", "host.key"))
IS_LEADER = "cd / && runuser -u postgres -- psql -XAtqc 'SELECT pg_is_in_recovery()'"
LEADER_S = 60
Tell = Callable[[str, str, str], subprocess.CompletedProcess[str]]
CURL = f"curl -s --max-time 10 --cacert {CA} --cert {CERTIFICATE} --key {KEY}"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "changes: breaks something on a host, or deploys; not run by phoenix verify")
    config.addinivalue_line("markers", "slow: waits for something that takes its time; not run by phoenix up")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What only reads comes first: it judges the hosts as the deploy left them."""
    items.sort(key=lambda item: item.get_closest_marker("changes") is not None)


@pytest.fixture(scope="session")
def platform() -> Platform:
    return load(Path(os.environ.get("PHOENIX_INVENTORY", ROOT / "inventory" / "lab.py")).resolve())


@pytest.fixture(scope="session")
def ssh_config(platform: Platform) -> Iterator[Path]:
    """An OpenSSH configuration of the inventory's hosts that keeps one connection each, for this run alone."""
    # Not pytest's own directory: the path of a socket may have 108 characters.
    directory = Path(tempfile.mkdtemp(prefix="phoenix-"))
    options = {
        "ssh_hostname": "HostName",
        "ssh_user": "User",
        "ssh_port": "Port",
        "ssh_key": "IdentityFile",
        "ssh_known_hosts_file": "UserKnownHostsFile",
        "ssh_strict_host_key_checking": "StrictHostKeyChecking",
    }
    path = directory / "config"
    blocks = [
        f"Host {name}\n" + "".join(f"  {option} {host.data[key]}\n" for key, option in options.items() if host.data.get(key))
        for name, host in platform.hosts.items()
    ]
    shared = ["BatchMode yes", "ControlMaster auto", f"ControlPath {directory}/%C", "ControlPersist 60"]
    path.write_text("\n".join([*blocks, "Host *", *shared, ""]))
    yield path
    for name in platform.hosts:
        subprocess.run(["ssh", "-F", str(path), "-O", "exit", name], capture_output=True, check=False)
    shutil.rmtree(directory, ignore_errors=True)  # the last connections remove their sockets meanwhile


@pytest.fixture(scope="session")
def on(ssh_config: Path) -> Callable[[str], Host]:
    """`on("vps1")` is that host, as root."""
    return lambda name: testinfra.get_host(f"ssh://{name}", ssh_config=str(ssh_config), sudo=False)


@pytest.fixture(scope="session")
def tell(ssh_config: Path) -> Tell:
    """`tell("vps1", script, text)`: the finished script there, as root, with `text` on its stdin, which no list of processes shows."""

    def run(name: str, script: str, text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["ssh", "-F", str(ssh_config), name, script], input=text, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def vps1(on: Callable[[str], Host]) -> Host:
    return on("vps1")


@pytest.fixture(scope="session")
def world(on: Callable[[str], Host], platform: Platform) -> Host:
    if "world" not in platform.hosts:
        pytest.skip("this inventory has no world: it is the lab's")
    return on("world")


@pytest.fixture(scope="session")
def secrets(platform: Platform) -> SecretStore:
    return SecretStore.load(platform.secrets_file)


@pytest.fixture(scope="session")
def leader(on: Callable[[str], Host], platform: Platform) -> Callable[[], Host]:
    """`leader()` is the host whose PostgreSQL takes the platform's writes now; while nobody does it waits, up to LEADER_S."""

    def find() -> Host:
        end = time.monotonic() + LEADER_S
        while True:
            for member in platform.group("postgresql"):
                if "region2" not in member.groups and on(member.name).run(f"{IS_LEADER} | grep -q f").succeeded:
                    return on(member.name)
            assert time.monotonic() < end, "nobody leads"
            time.sleep(0.3)

    return find


@pytest.fixture
def vps1_leads(on: Callable[[str], Host], platform: Platform) -> Iterator[None]:
    """vps1 leads, and does so again after the test."""
    slots = region2.failover_slots(platform)
    lead(on("vps1"), "vps1", slots)
    yield
    lead(on("vps1"), "vps1", slots)


def slots_ready(standby: Host, names: list[str]) -> bool:
    """Whether the standby, when it answers, could take over these logical slots of the leader."""
    if not names:
        return True
    asked = standby.run("cd / && runuser -u postgres -- psql -XAtq -d postgres -c %s", region2.slots_ready(names))
    return asked.succeeded and all(one["ready"] for one in json.loads(asked.stdout))


def lead(member: Host, name: str, slots: list[str]) -> None:
    """Let `member`, which is called `name`, lead the platform's cluster, with a synchronous standby and without the loss of a slot;
    waits for it up to two minutes."""
    patronictl = "patronictl -c /etc/patroni/config.yml"
    until = time.monotonic() + 120
    while True:
        roles = {one["Member"]: one["Role"] for one in json.loads(member.check_output(f"{patronictl} list -f json"))}
        if roles.get(name) == "Leader" and "Sync Standby" in roles.values():
            return
        if roles.get(name) == "Sync Standby" and slots_ready(member, slots):
            member.run(f"{patronictl} switchover phoenix --candidate {name} --force")
        assert time.monotonic() < until, f"{name} does not lead with a synchronous standby within 120 s: {roles}"
        time.sleep(1)


@pytest.fixture(scope="session")
def psql(leader: Callable[[], Host]) -> Callable[..., str]:
    """`psql("SELECT 1")`: what the leader's PostgreSQL answers the superuser, unaligned, without headings."""

    def ask(sql: str, *, database: str = "phoenix") -> str:
        command = leader().run(f"cd / && runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d {database} -c %s", sql)
        assert command.succeeded, command.stderr
        return command.stdout.strip()

    return ask


@pytest.fixture(scope="session")
def psql_as(leader: Callable[[], Host], tell: Tell, secrets: SecretStore) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`psql_as("monitor", "SELECT 1")`: the finished psql command as that login on the leader, over TCP and TLS with its password."""

    def ask(role: str, sql: str, *, database: str = "phoenix", sslmode: str = "verify-full") -> subprocess.CompletedProcess[str]:
        # psql finds the password in its environment, and the script in the rest of stdin.
        login = f"host=127.0.0.1 dbname={database} user={role} sslmode={sslmode} sslrootcert={CA}"
        script = f"read -r PGPASSWORD && export PGPASSWORD && exec psql -XAtq -v ON_ERROR_STOP=1 {shlex.quote(login)} -f -"
        return tell(leader().backend.get_hostname(), script, f"{secrets.get(f'postgresql/{role}')}\n{sql}\n")

    return ask


class Prometheus:
    """The platform's Prometheus, asked over its API from the host it runs on."""

    def __init__(self, host: Host, member: PlatformHost) -> None:
        self.host = host
        self.url = f"https://{member.data['host_address']}:{member[MonitoringSettings].prometheus_port}"
        self.alertmanager_url = f"https://{member.data['host_address']}:{member[MonitoringSettings].alertmanager_port}"

    def get(self, path: str) -> Any:
        """The `data` of an API answer."""
        answer = json.loads(self.host.check_output(f"{CURL} %s", self.url + path))
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query: [{"metric": {...}, "value": [time, text]}]."""
        command = self.host.run(f"{CURL} --data-urlencode %s {self.url}/api/v1/query", f"query={expression}")
        answer = json.loads(command.stdout)
        assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
        result = answer["data"]["result"]
        return (
            result
            if isinstance(result, list) and answer["data"]["resultType"] in ("vector", "matrix")
            else [{"metric": {}, "value": result}]
        )

    def value(self, expression: str) -> float:
        """The value of a query that gives exactly one sample."""
        (sample,) = self.query(expression)
        return float(sample["value"][1])


@pytest.fixture(scope="session")
def prometheus(on: Callable[[str], Host], platform: Platform) -> Prometheus:
    (member,) = platform.group("monitoring")
    return Prometheus(on(member.name), member)


@pytest.fixture
def received(world: Host, platform: Platform) -> Callable[[], list[dict[str, Any]]]:
    """Alerts that the receiver has got so far."""
    address = platform.hosts["world"][HostSettings].address
    return lambda: list(json.loads(world.check_output(f"curl -sf http://{address}:9099/alerts"))["alerts"])


@pytest.fixture(scope="session")
def phoenix(platform: Platform) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`phoenix("deploy", "--json")`: the finished command, on the tested inventory."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ops", "-i", str(platform.inventory), *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run
