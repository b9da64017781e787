"""Gateways: one address for the writer and the readers, asked by clients of this computer with psycopg and curl, as programs would."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import secrets as random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from testinfra.host import Host

from deploys.lib.secrets import SecretStore
from deploys.lib.settings import GatewaySettings, Platform, PlatformHost, PostgresqlSettings
from tests.hosts.conftest import CA, CURL
from tests.waiting import wait_until

On = Callable[[str], Host]
Connect = Callable[..., psycopg.Connection[Any]]
CLIENTS = 1000


@pytest.fixture(scope="module")
def gateways(platform: Platform) -> list[PlatformHost]:
    found = platform.group("gateway")
    if not found:
        pytest.skip("this inventory has no gateway")
    return found


@pytest.fixture(scope="module")
def members(platform: Platform, gateways: list[PlatformHost]) -> list[PlatformHost]:
    """Members of the cluster that the gateways serve."""
    name = gateways[0][GatewaySettings].cluster_name
    return [host for host in platform.group("postgresql") if host[PostgresqlSettings].cluster_name == name]


@pytest.fixture(scope="module")
def authority(on: On, gateways: list[PlatformHost], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The platform's certificate, as a client keeps it."""
    path = tmp_path_factory.mktemp("tls") / "ca.crt"
    path.write_text(on(gateways[0].name).file(CA).content_string)
    return path


@pytest.fixture(scope="module")
def doors(gateways: list[PlatformHost], ssh_config: Path) -> Iterator[dict[str, int]]:
    """A local port that leads to each gateway, by its address: this computer need not be in the tailnet."""
    ports: dict[str, int] = {}
    tunnels = []
    for gateway in gateways:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = ports[gateway.data["host_address"]] = free.getsockname()[1]
        there = f"127.0.0.1:{port}:{gateway.data['host_address']}:{gateway[GatewaySettings].port}"
        options = ["-o", "ControlPath=none", "-o", "ExitOnForwardFailure=yes", "-N", "-L", there]
        tunnels.append(subprocess.Popen(["ssh", "-F", str(ssh_config), *options, gateway.name]))
    wait_until(lambda: all(_open(port) for port in ports.values()), 20, "the tunnels are open")
    yield ports
    for tunnel in tunnels:
        tunnel.terminate()
        tunnel.wait()


def _open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def parameters(gateways: list[PlatformHost], authority: Path, secrets: SecretStore, doors: dict[str, int]) -> Callable[..., dict[str, Any]]:
    """`parameters("architect", "phoenix_ro")`: what such a client connects with; all gateways are named, as docs/connect.md says."""

    def made(user: str, database: str = "phoenix", **more: Any) -> dict[str, Any]:
        hosts = more.pop("host", None) or ",".join(one.data["host_address"] for one in gateways)
        return {
            "host": hosts,  # what the certificate is checked against; the tunnels are where it goes
            "hostaddr": ",".join("127.0.0.1" for _ in hosts.split(",")),
            "port": ",".join(str(doors[one]) for one in hosts.split(",")),
            "dbname": database,
            "user": user,
            "password": secrets.get(f"postgresql/{user}"),
            "sslmode": "verify-full",
            "sslrootcert": str(authority),
            "connect_timeout": 40,
            **more,
        }

    return made


@pytest.fixture
def connect(parameters: Callable[..., dict[str, Any]]) -> Iterator[Connect]:
    """Connections that end with the test."""
    opened: list[psycopg.Connection[Any]] = []

    def made(user: str, database: str = "phoenix", **more: Any) -> psycopg.Connection[Any]:
        opened.append(psycopg.connect(**parameters(user, database, **more), autocommit=True))
        return opened[-1]

    yield made
    for connection in opened:
        connection.close()


def ask(connection: psycopg.Connection[Any], sql: str, *values: object) -> Any:
    row = connection.execute(sql.encode(), values or None).fetchone()
    return row[0] if row else None


def superuser(host: Host, sql: str) -> str:
    """What the superuser is answered on the host itself: the witness beside the gateway."""
    done = host.run("cd / && runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d phoenix -c %s", sql)
    assert done.succeeded, done.stderr
    return str(done.stdout.strip())


def cluster(on: On, member: PlatformHost) -> dict[str, str]:
    """Role of each running member by name, as Patroni tells it."""
    url = f"https://{member.data['host_address']}:{member[PostgresqlSettings].patroni_port}/cluster"
    found = json.loads(on(member.name).check_output(f"{CURL} {url}"))["members"]
    return {one["name"]: one["role"] for one in found if one["state"] in ("running", "streaming")}


def leader(on: On, members: list[PlatformHost]) -> str:
    return next(name for name, role in cluster(on, members[0]).items() if role == "leader")


def standbys(on: On, members: list[PlatformHost]) -> set[str]:
    return {name for name, role in cluster(on, members[0]).items() if role in ("replica", "sync_standby")}


def test_every_gateway_leads_writes_to_the_leader(
    on: On, gateways: list[PlatformHost], members: list[PlatformHost], connect: Connect
) -> None:
    leading = next(one for one in members if one.name == leader(on, members))
    for gateway in gateways:
        writer = connect("architect", host=gateway.data["host_address"])
        assert ask(writer, "SELECT pg_is_in_recovery()") is False
        assert ask(writer, "SELECT pg_current_xact_id()::text::bigint") > 0, "a standby gives no transaction number"
        assert ask(writer, "SELECT host(inet_server_addr())") in (leading.data["host_address"], "127.0.0.1")
        assert ask(writer, "SHOW search_path") == "phoenix, public"


def test_every_gateway_leads_readers_to_a_standby(
    on: On, gateways: list[PlatformHost], members: list[PlatformHost], connect: Connect
) -> None:
    """Also soon after a failover, when readers were with the leader for want of a standby."""
    streaming = {one.data["host_address"] for one in members if one.name in standbys(on, members)}
    for gateway in gateways:
        reader = connect("public_api", "phoenix_ro", host=gateway.data["host_address"])
        wait_until(
            lambda reader=reader: ask(reader, "SELECT pg_is_in_recovery()") is bool(streaming),
            90,
            "the leader serves readers when there is no standby, and only then",
            every_s=1,
        )
        if streaming:
            assert ask(reader, "SELECT host(inet_server_addr())") in streaming


def test_a_client_without_tls_is_refused(parameters: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(psycopg.OperationalError, match="SSL required"):
        psycopg.connect(**parameters("architect", sslmode="disable"))


def test_a_wrong_password_is_refused(parameters: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(psycopg.OperationalError, match=r"password authentication failed|SASL authentication failed"):
        psycopg.connect(**parameters("architect", password="a wrong one"))


@pytest.mark.parametrize("user", ["replicator", "rewind", "pgbouncer"])
def test_a_login_that_can_do_more_than_a_client_is_refused_with_its_true_password(
    parameters: Callable[..., dict[str, Any]], user: str
) -> None:
    for database in ("phoenix", "phoenix_ro", "pgbouncer"):
        with pytest.raises(psycopg.OperationalError, match=r"FATAL:  (no authentication method|no such user|not allowed|bouncer config)"):
            psycopg.connect(**parameters(user, database))


def test_the_superuser_and_the_console_are_not_reachable_from_outside(parameters: Callable[..., dict[str, Any]]) -> None:
    for user, database in (("postgres", "phoenix"), ("prometheus", "pgbouncer"), ("pgbouncer", "pgbouncer")):
        for password in ("", "postgres"):
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(**{**parameters("architect", database), "user": user, "password": password})


def test_a_superuser_is_not_found_by_the_look_up(on: On, members: list[PlatformHost]) -> None:
    """Also when somebody makes one of the logins that clients use a superuser; and nobody but PgBouncer may ask."""
    host = on(leader(on, members))
    found = "SELECT count(*) FROM gateway.login('{}');"
    sql = f"BEGIN; {found.format('architect')} ALTER ROLE architect SUPERUSER; {found.format('architect')} ROLLBACK;"
    assert superuser(host, sql + found.format("postgres") + found.format("replicator")).split() == ["1", "0", "0", "0"]
    for role in ("architect", "samurai_agent", "monitor", "public_api"):
        with pytest.raises(AssertionError, match="permission denied for schema gateway"):
            superuser(host, f"SET ROLE {role}; SELECT gateway.login('architect')")
    owner = "SELECT rolsuper, rolcanlogin FROM pg_roles JOIN pg_proc ON pg_roles.oid = proowner WHERE proname = 'login' AND prosecdef"
    assert superuser(host, owner) == "f|f"


def test_haproxy_listens_on_the_loopback_address_only(on: On, gateways: list[PlatformHost]) -> None:
    for gateway in gateways:
        settings = gateway[GatewaySettings]
        listening = on(gateway.name).check_output("ss -Hltn | awk '{print $4}'").split()
        for port in (settings.writer_port, settings.readers_port):
            assert [one for one in listening if one.endswith(f":{port}")] == [f"127.0.0.1:{port}"]
        assert sorted(one for one in listening if one.endswith(f":{settings.port}")) == [
            f"{gateway.data['host_address']}:{settings.port}",
            f"127.0.0.1:{settings.port}",
        ]


def test_metrics_want_a_certificate(on: On, gateways: list[PlatformHost]) -> None:
    for gateway in gateways:
        settings, address = gateway[GatewaySettings], gateway.data["host_address"]
        for port, metric in ((settings.metrics_port, "haproxy_backend_active_servers"), (settings.exporter_port, "pgbouncer_up 1")):
            url = f"https://{address}:{port}/metrics"
            assert metric in on(gateway.name).check_output(f"{CURL} {url}")
            assert on(gateway.name).run(f"curl -s --max-time 5 --cacert {CA} {url}").failed
            assert metric not in on(gateway.name).run(f"curl -s --max-time 5 http://{address}:{port}/metrics").stdout


def test_only_members_of_the_cluster_are_served(on: On, gateways: list[PlatformHost], members: list[PlatformHost]) -> None:
    for gateway in gateways:
        config = on(gateway.name).file("/etc/haproxy/haproxy.cfg").content_string
        assert set(re.findall(r"server \S+ ([\d.]+):", config)) == {one.data["host_address"] for one in members}


def test_both_run_as_users_of_their_own_without_capabilities(on: On, gateways: list[PlatformHost]) -> None:
    for gateway in gateways:
        for name in ("haproxy", "pgbouncer"):
            rows = on(gateway.name).check_output(f"ps -C {name} -o user=,pid=").splitlines()
            assert rows
            for user, pid in (row.split() for row in rows):
                assert user in (name, "haproxy+", "pgbounc+"), user
                status = on(gateway.name).file(f"/proc/{pid}/status").content_string
                assert re.search(r"^CapEff:\s+0+$", status, re.M) and re.search(r"^NoNewPrivs:\s+1$", status, re.M)


def test_prepared_statements_work_for_clients_that_share_sessions(connect: Connect) -> None:
    clients = [connect("samurai_agent", prepare_threshold=0) for _ in range(3)]
    for turn in range(3):
        for number, client in enumerate(clients):
            row = client.execute("SELECT %s::int + %s::int", [turn, number], prepare=True).fetchone()
            assert row == (turn + number,)


def test_what_one_client_sets_for_its_session_is_gone_before_the_next(connect: Connect, gateways: list[PlatformHost]) -> None:
    """An agent that claims an identity for the session instead of the transaction does not lend it to whoever comes next."""
    address = gateways[0].data["host_address"]
    first, second = connect("samurai_agent", host=address), connect("samurai_agent", host=address)
    shared = 0
    for turn in range(20):
        claim = f"claimed-{turn}"
        sets = "set_config('phoenix.agent_id', %s, false) a, set_config('phoenix.agent_token', %s, false) b"
        pid = ask(first, f"SELECT pg_backend_pid() FROM {sets}", claim, claim)
        row = second.execute(
            "SELECT pg_backend_pid(), current_setting('phoenix.agent_id', true), current_setting('phoenix.agent_token', true), "
            "phoenix.current_agent_id()"
        ).fetchone()
        assert row is not None
        assert not row[1] and not row[2] and row[3] is None
        shared += row[0] == pid
    assert shared, "the two never had the same session of the database, so nothing was shown"


@pytest.mark.slow
def test_a_thousand_clients_are_served_by_few_sessions(
    on: On, gateways: list[PlatformHost], members: list[PlatformHost], parameters: Callable[..., dict[str, Any]]
) -> None:
    """Of one address, at one gateway, all open at the same time; each of them asks, and writes down who answered."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 3 * CLIENTS)), hard))
    login = parameters("samurai_agent", host=gateways[0].data["host_address"])

    async def run() -> tuple[list[int], int]:
        opening = asyncio.Semaphore(25)

        async def opened() -> psycopg.AsyncConnection[Any]:
            async with opening:
                return await psycopg.AsyncConnection.connect(**login, autocommit=True)

        async def asked(client: psycopg.AsyncConnection[Any]) -> int:
            row = await (await client.execute("SELECT pg_backend_pid()")).fetchone()
            assert row is not None
            return int(row[0])

        clients = await asyncio.gather(*(opened() for _ in range(CLIENTS)))
        try:
            pids = [pid for _ in range(3) for pid in await asyncio.gather(*(asked(client) for client in clients))]
            here = await (await clients[0].execute("SELECT count(*) FROM pg_stat_activity WHERE usename = 'samurai_agent'")).fetchone()
            assert here is not None
            return pids, int(here[0])
        finally:
            for client in clients:
                with suppress(psycopg.Error):
                    await client.close()

    started = time.monotonic()
    pids, sessions = asyncio.run(asyncio.wait_for(run(), 180))
    assert len(pids) == 3 * CLIENTS
    limit = int(superuser(on(leader(on, members)), "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'samurai_agent'"))
    assert len(set(pids)) <= sessions <= limit // len(gateways)
    print(f"{CLIENTS} clients, {len(set(pids))} sessions, {time.monotonic() - started:.1f} s")


@pytest.mark.changes
def test_a_reload_of_haproxy_cuts_no_session(on: On, gateways: list[PlatformHost], connect: Connect) -> None:
    gateway = gateways[0]
    client = connect("architect", host=gateway.data["host_address"])
    with client.transaction():
        before = ask(client, "SELECT pg_backend_pid()")
        on(gateway.name).check_output("systemctl reload haproxy.service")
        time.sleep(3)
        assert ask(client, "SELECT pg_backend_pid()") == before
    assert ask(connect("architect", host=gateway.data["host_address"]), "SELECT pg_is_in_recovery()") is False


@pytest.mark.changes
def test_a_switchover_costs_an_open_session_a_pause_and_no_edit(on: On, members: list[PlatformHost], connect: Connect) -> None:
    """The client's session survives; at most the statement under way has to be tried again."""
    wait_until(lambda: standbys(on, members), 60, "there is a standby", every_s=0.5)
    client = connect("architect")
    table = f"phoenix.gateway_probe_{random.token_hex(4)}"
    client.execute(f"CREATE TABLE {table} (n int)".encode())
    idle = connect("architect")
    assert ask(idle, "SELECT 1") == 1
    try:
        before = leader(on, members)
        name = members[0][PostgresqlSettings].cluster_name
        on(members[0].name).check_output(f"patronictl -c /etc/patroni/config.yml switchover {name} --leader {before} --force")
        wait_until(lambda: leader_or_none(on, members) not in (None, before), 30, "another leads", every_s=0.5)
        assert ask(idle, "SELECT pg_is_in_recovery()") is False, "the session that was open before"
        again = connect("architect")
        again.execute(f"INSERT INTO {table} VALUES (1)".encode())
        assert superuser(on(leader(on, members)), f"SELECT count(*) FROM {table}") == "1"
    finally:
        connect("architect").execute(f"DROP TABLE {table}".encode())
        wait_until(lambda: standbys(on, members), 60, "there is a standby", every_s=0.5)


def leader_or_none(on: On, members: list[PlatformHost]) -> str | None:
    with suppress(StopIteration, KeyError):
        return leader(on, members)
    return None
