"""Redis with the agents' hormone levels, asked by clients of this computer, as programs would, and by redis-cli as the operator."""

from __future__ import annotations

import hashlib
import json
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from testinfra.host import Host

from deploys.lib.secrets import SecretStore
from deploys.lib.settings import Platform, PlatformHost, RedisSettings
from tests.hosts.conftest import CA, CURL, Prometheus
from tests.waiting import wait_until

On = Callable[[str], Host]
Connect = Callable[..., Any]
USERS = ("admin", "worker", "agent", "monitor")


@pytest.fixture(scope="module")
def member(platform: Platform) -> PlatformHost:
    found = platform.group("redis")
    if not found:
        pytest.skip("this inventory has no redis")
    return found[0]


@pytest.fixture(scope="module")
def server(on: On, member: PlatformHost) -> Host:
    return on(member.name)


@pytest.fixture(scope="module")
def authority(server: Host, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The platform's certificate, as a client keeps it."""
    path = tmp_path_factory.mktemp("tls") / "ca.crt"
    path.write_text(server.file(CA).content_string)
    return path


@pytest.fixture
def connect(member: PlatformHost, authority: Path, secrets: SecretStore) -> Iterator[Connect]:
    """`connect("agent")`: a client that ends with the test."""
    opened: list[Any] = []

    def made(user: str, **more: Any) -> Any:
        options: dict[str, Any] = {
            "host": member.data["host_address"],
            "port": member[RedisSettings].port,
            "username": user,
            "password": secrets.get(f"redis/{user}") if user in USERS else None,
            "ssl": True,
            "ssl_ca_certs": str(authority),
            "decode_responses": True,
            "socket_timeout": 5,
            "retry": Retry(NoBackoff(), 0),
        }
        opened.append(redis.Redis(**(options | more)))
        return opened[-1]

    yield made
    for client in opened:
        client.close()


@pytest.fixture
def admin(connect: Connect) -> Any:
    return connect("admin")


def pid(server: Host) -> str:
    return str(server.check_output("systemctl show -p MainPID --value redis-server.service"))


def refused(client: Any, *command: str) -> bool:
    """Whether the user lacks the right, and not only the key."""
    with pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command)
    return True


def test_only_tls_is_spoken(member: PlatformHost) -> None:
    address = (member.data["host_address"], member[RedisSettings].port)
    with socket.create_connection(address, timeout=5) as plain:
        plain.sendall(b"PING\r\n")
        with suppress(ConnectionResetError):
            assert b"PONG" not in plain.recv(100)
    with pytest.raises(redis.ConnectionError):
        redis.Redis(host=address[0], port=address[1], socket_timeout=5, retry=Retry(NoBackoff(), 0)).ping()


def test_a_client_that_checks_another_authority_goes_away(connect: Connect, tmp_path: Path) -> None:
    with pytest.raises(redis.ConnectionError, match="certificate verify failed"):
        connect("agent", ssl_ca_certs=None).ping()


def test_nobody_comes_in_without_a_password(connect: Connect) -> None:
    with pytest.raises(redis.exceptions.AuthenticationError):
        connect("agent", password="wrong").ping()
    with pytest.raises(redis.exceptions.AuthenticationError):
        connect("default", password="").ping()
    anonymous = connect("default", username=None, password=None)
    with pytest.raises(redis.exceptions.AuthenticationError, match="authenticat"):
        anonymous.ping()


def test_agents_read_levels_and_nothing_else(connect: Connect) -> None:
    agent = connect("agent")
    assert agent.ping()
    assert agent.hgetall("hormone:{00000000-0000-4000-8000-000000000000}") == {}
    assert refused(agent, "HSET", "hormone:{00000000-0000-4000-8000-000000000000}", "dopamine", "9")
    assert refused(agent, "DEL", "hormone:{00000000-0000-4000-8000-000000000000}")
    assert refused(agent, "HGETALL", "another")
    for command in (
        ["KEYS", "*"],
        ["FLUSHALL"],
        ["CONFIG", "GET", "*"],
        ["ACL", "LIST"],
        ["EVAL", "return 1", "0"],
        ["INFO"],
        ["CLIENT", "LIST"],
    ):
        assert refused(agent, *command)


def test_the_worker_writes_levels_and_has_no_other_power(connect: Connect) -> None:
    worker = connect("worker")
    for command in (["FLUSHALL"], ["CONFIG", "SET", "maxmemory", "1"], ["SHUTDOWN"], ["ACL", "LIST"], ["SAVE"]):
        assert refused(worker, *command)
    assert refused(worker, "HSET", "another", "a", "1")


def test_the_monitor_sees_figures_and_no_key(connect: Connect) -> None:
    monitor = connect("monitor")
    assert monitor.info("memory")["maxmemory"] > 0
    for command in (["HGETALL", "hormone:{x}"], ["SCAN", "0"], ["CONFIG", "GET", "*"], ["MONITOR"], ["CLIENT", "LIST"]):
        assert refused(monitor, *command)


def test_the_server_s_file_of_users_has_digests(server: Host, secrets: SecretStore) -> None:
    users = server.file("/etc/redis/users.acl")
    assert (users.user, users.group, users.mode) == ("root", "redis", 0o640)
    text, passwords = users.content_string, [secrets.get(f"redis/{user}") for user in USERS]
    assert all(hashlib.sha256(one.encode()).hexdigest() in text and one not in text for one in passwords)


def test_memory_is_bounded_and_nothing_is_evicted(admin: Any, server: Host) -> None:
    has = admin.config_get("*")
    assert (has["maxmemory-policy"], has["appendonly"], has["appendfsync"], has["port"]) == ("noeviction", "yes", "everysec", "0")
    ceiling = int(server.check_output("systemctl show -p MemoryMax --value redis-server.service"))
    assert 2 * int(has["maxmemory"]) <= ceiling


def test_the_unit_is_confined(server: Host) -> None:
    for unit, most in (("redis-server.service", 2.0), ("phoenix-hormones.service", 2.0), ("prometheus-redis-exporter.service", 2.5)):
        said = server.check_output(f"systemd-analyze security --no-pager {unit} | grep 'Overall exposure'")
        assert float(said.split(":")[1].split()[0]) <= most, said
    assert server.check_output(f"ps -o user= -p {pid(server)}") == "redis"


def test_its_figures_are_for_who_has_a_certificate(server: Host, member: PlatformHost) -> None:
    url = f"https://{member.data['host_address']}:{member[RedisSettings].exporter_port}/metrics"
    assert "redis_up 1" in server.check_output(f"{CURL} {url}")
    assert not server.run(f"curl -sf --max-time 5 --cacert {CA} {url}").succeeded


def test_levels_are_compared_again_and_again(prometheus: Prometheus, member: PlatformHost) -> None:
    name = f'{{host="{member.name}"}}'
    age = prometheus.value(f"time() - phoenix_hormones_checked_timestamp_seconds{name}")
    assert age < 2 * member[RedisSettings].parity_every_s + 60
    assert prometheus.value(f"sum(phoenix_hormones_differences{name})") == 0


def test_levels_are_equal(phoenix: Callable[..., Any]) -> None:
    done = phoenix("hormones", "check", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["ok"] is True


@pytest.mark.changes
def test_lost_levels_are_named_and_one_command_brings_them_back(
    phoenix: Callable[..., Any], psql: Callable[..., str], admin: Any, connect: Connect
) -> None:
    levels = {"dopamine": 0.25, "oxytocin": 1.5, "adrenaline": 0.0, "cortisol": 0.3}
    psql("DELETE FROM phoenix.agents WHERE codename = 'redis probe'")  # of a run that was cut off
    agent = psql(
        "INSERT INTO phoenix.agents (codename, team, role, consciousness_vector, hormone_levels) "
        f"VALUES ('redis probe', 'iota', 'scout', '{{}}', '{json.dumps(levels)}') RETURNING id"
    )
    try:
        assert phoenix("hormones", "rebuild", "--json").returncode == 0
        admin.flushall()
        lost = phoenix("hormones", "check", "--settle", "0", "--json")
        assert lost.returncode == 3
        said = json.loads(lost.stdout)
        assert said["differences"] == said["agents"] == int(psql("SELECT count(*) FROM phoenix.agents WHERE decommissioned_at IS NULL"))
        assert f"{agent} missing" in phoenix("hormones", "check", "--settle", "0").stdout or said["agents"] > 10
        assert phoenix("hormones", "rebuild").returncode == 0
        assert phoenix("hormones", "check").returncode == 0
        held = connect("agent").hgetall(f"hormone:{{{agent}}}")
        assert {name: float(held[name]) for name in levels} == levels
    finally:
        psql(f"DELETE FROM phoenix.agents WHERE id = '{agent}'")
    assert phoenix("hormones", "rebuild").returncode == 0
    assert not admin.exists(f"hormone:{{{agent}}}")


@pytest.mark.changes
def test_killed_it_is_back_with_its_data_in_seconds(server: Host, admin: Any, phoenix: Callable[..., Any]) -> None:
    phoenix("hormones", "rebuild")
    # What a worker writes at once is a transaction in the log; Redis asks for somebody's rights when it reads one.
    probes = {f"probe:{uuid.uuid4()}": "here" for _ in range(2)}
    with admin.pipeline(transaction=True) as transaction:
        for key, value in probes.items():
            transaction.set(key, value, ex=300)
        transaction.execute()
    admin.execute_command("WAITAOF", "1", "0", "2000")
    before, keys = pid(server), admin.dbsize()
    server.check_output(f"kill -9 {before}")
    started = time.monotonic()
    wait_until(lambda: _answers(admin), 20, "Redis answers")
    took = time.monotonic() - started
    assert pid(server) != before and admin.dbsize() == keys
    assert admin.mget(list(probes)) == list(probes.values())
    admin.delete(*probes)
    assert phoenix("hormones", "check").returncode == 0
    print(f"back after {took:.1f} s with {keys} keys")
    assert took < 10


def _answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


@pytest.mark.changes
@pytest.mark.slow
def test_what_somebody_changed_is_named_and_undone_without_a_restart(
    member: PlatformHost, server: Host, admin: Any, phoenix: Callable[..., Any]
) -> None:
    before = pid(server)
    admin.execute_command("ACL", "SETUSER", "intruder", "on", "nopass", "~*", "+@all")
    admin.execute_command("ACL", "SETUSER", "agent", "+flushall")
    admin.config_set("maxmemory-policy", "allkeys-lru")
    found = phoenix("drift", member.name)
    assert found.returncode == 3
    assert "Redis runs with another maxmemory-policy" in found.stdout + found.stderr
    assert "Redis has other users or rules than users.acl" in found.stdout + found.stderr
    assert phoenix("deploy", member.name).returncode == 0
    assert admin.execute_command("ACL", "GETUSER", "intruder") is None
    assert "flushall" not in str(admin.execute_command("ACL", "LIST"))
    assert admin.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert pid(server) == before
