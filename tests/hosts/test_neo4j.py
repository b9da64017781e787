"""Neo4j with the knowledge graph, asked by clients of this computer, as programs would, and compared with PostgreSQL by psql."""

from __future__ import annotations

import json
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from neo4j import GraphDatabase
from neo4j.exceptions import AuthError, ClientError, DriverError, Neo4jError
from phoenix_stream.neo4j_driver import connect as connected
from testinfra.host import Host

from deploys.lib.secrets import SecretStore
from deploys.lib.settings import Neo4jSettings, Platform, PlatformHost
from tests.hosts.conftest import CA, Prometheus
from tests.waiting import EVENT_S, wait_until

On = Callable[[str], Host]
Ask = Callable[[str], list[list[Any]]]
KEEPER = "/usr/local/lib/phoenix/graph_keeper.py"
SPEC = {("Agent", "id"), ("Persona", "id"), ("Company", "id"), ("Task", "id")}
"""Nodes whose id has to be unique by the spec."""


@pytest.fixture(scope="module")
def member(platform: Platform) -> PlatformHost:
    found = platform.group("neo4j")
    if not found:
        pytest.skip("this inventory has no neo4j")
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


@pytest.fixture(scope="module")
def password(secrets: SecretStore) -> str:
    return secrets.get("neo4j/neo4j")


@pytest.fixture(scope="module")
def uri(member: PlatformHost) -> str:
    return f"bolt://{member.data['host_address']}:{member[Neo4jSettings].port}"


@pytest.fixture
def driver(uri: str, password: str, authority: Path) -> Iterator[Any]:
    with connected(uri=uri, user="neo4j", password=password, ca=str(authority)) as made:
        yield made


@pytest.fixture
def ask(driver: Any) -> Ask:
    """`ask("RETURN 1")`: the rows of an answer."""
    # Without bookmarks: after a restore the server has fewer transactions than an earlier answer told of.
    return lambda cypher: [record.values() for record in driver.execute_query(cypher, bookmark_manager_=None).records]


@pytest.fixture
def probe(psql: Callable[..., str]) -> Iterator[str]:
    """The codename of an agent that the test may make; gone afterwards."""
    name = f"graph probe {uuid.uuid4()}"
    yield name
    psql("DELETE FROM phoenix.agents WHERE codename LIKE 'graph probe %'")


def pid(server: Host) -> str:
    return str(server.check_output("systemctl show -p MainPID --value neo4j.service"))


def answers(driver: Any) -> bool:
    try:
        driver.verify_connectivity()
    except (DriverError, Neo4jError, OSError):
        return False
    return True


def test_the_unit_is_confined_and_runs_as_its_own_user(server: Host) -> None:
    assert server.check_output(f"ps -o user= -p {pid(server)}") == "neo4j"
    for unit, most in (("neo4j", 2.5), ("phoenix-graph-metrics", 2.0), ("phoenix-graph-parity", 2.0)):
        said = server.check_output(f"systemd-analyze security --no-pager {unit}.service | grep 'Overall exposure'")
        assert float(said.split(":")[1].split()[0]) <= most, said


def test_only_bolt_over_tls_is_spoken(server: Host, member: PlatformHost, uri: str, password: str) -> None:
    address = member.data["host_address"], member[Neo4jSettings].port
    with socket.create_connection(address, timeout=5) as plain:
        # A client's first words by Bolt's own protocol.
        plain.sendall(bytes.fromhex("6060b017") + bytes.fromhex("00000405") + bytes(12))
        with suppress(ConnectionResetError):
            assert plain.recv(4) != bytes.fromhex("00000405")
    with GraphDatabase.driver(uri, auth=("neo4j", password), telemetry_disabled=True) as made, pytest.raises((DriverError, Neo4jError)):
        made.verify_connectivity()
    listening = server.check_output(f"ss -Hltnp | grep 'pid={pid(server)},'").splitlines()
    assert [line.split()[3].removeprefix("[::ffff:").replace("]:", ":") for line in listening] == [f"{address[0]}:{address[1]}"]


def test_http_is_closed(server: Host) -> None:
    listening = {line.rpartition(":")[2] for line in server.check_output("ss -Hltn | awk '{print $4}'").splitlines()}
    assert not listening & {"7474", "7473"}


def test_a_client_that_checks_another_authority_goes_away(uri: str, password: str) -> None:
    with GraphDatabase.driver(uri, auth=("neo4j", password), encrypted=True, telemetry_disabled=True) as made, pytest.raises(DriverError):
        made.verify_connectivity()


def test_nobody_comes_in_with_another_password(uri: str, authority: Path) -> None:
    for wrong in ("neo4j", "wrong"):
        with connected(uri=uri, user="neo4j", password=wrong, ca=str(authority)) as made, pytest.raises(AuthError):
            made.verify_connectivity()
    anonymous = GraphDatabase.driver(uri.replace("bolt://", "bolt+ssc://"), telemetry_disabled=True)
    with anonymous as made, pytest.raises((AuthError, ClientError)):
        made.verify_connectivity()


def test_files_with_passwords_are_roots(server: Host) -> None:
    for name in ("neo4j.password", "graph.password"):
        file = server.file(f"/etc/phoenix-graph/{name}")
        assert (file.user, file.mode) == ("root", 0o600)


def test_the_constraints_of_the_spec_are_there(ask: Ask, psql: Callable[..., str]) -> None:
    found = {
        (labels[0], properties[0])
        for kind, labels, properties in ask("SHOW CONSTRAINTS YIELD type, labelsOrTypes, properties")
        if "UNIQUENESS" in kind
    }
    assert found >= SPEC
    assert ask("SHOW INDEXES YIELD name, state WHERE state <> 'ONLINE' RETURN name") == []
    assert int(psql("SELECT count(*) FROM phoenix.schema_version WHERE version LIKE '8.4.%'")) >= 3


def test_the_graph_is_what_postgresql_says(phoenix: Callable[..., Any], psql: Callable[..., str], ask: Ask) -> None:
    done = phoenix("graph", "check", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert (said["ok"], said["differences"]) == (True, 0)
    # By another way than the check's own.
    for label, table in (("Company", "food_companies"), ("Product", "food_products")):
        assert ask(f"MATCH (n:{label}) RETURN count(n)")[0][0] == int(psql(f"SELECT count(*) FROM phoenix.{table}"))


def test_it_is_measured_and_compared_again_and_again(server: Host, prometheus: Prometheus, member: PlatformHost) -> None:
    server.check_output("systemctl start phoenix-graph-parity.service")
    name = f'{{host="{member.name}"}}'
    assert prometheus.value(f"phoenix_neo4j_up{name}") == 1
    assert prometheus.value(f"time() - phoenix_neo4j_checked_timestamp_seconds{name}") < 180
    assert prometheus.value(f"time() - phoenix_graph_checked_timestamp_seconds{name}") < 2 * member[Neo4jSettings].parity_every_s + 60
    wait_until(lambda: prometheus.value(f"sum(phoenix_graph_differences{name})") == 0, 30, "the graph differs in nothing", every_s=0.3)


@pytest.mark.changes
def test_a_change_in_postgresql_comes_to_the_graph(psql: Callable[..., str], driver: Any, probe: str) -> None:
    def held() -> list[Any]:
        asked = (
            "MATCH (a:Agent {codename: $name}) OPTIONAL MATCH (a)-[w:WORKING_ON]->(t:Task) "
            "OPTIONAL MATCH (:Agent)-[d:DELEGATES_TO]->(a) RETURN a.id, a.role, t.status, w.started IS NOT NULL, d IS NOT NULL"
        )
        return [list(record.values()) for record in driver.execute_query(asked, name=probe).records]

    agent = psql(
        f"INSERT INTO phoenix.agents (codename, team, role, consciousness_vector) VALUES ('{probe}', 'iota', 'scout', '{{}}') RETURNING id"
    )
    started = time.monotonic()
    wait_until(lambda: held() == [[agent, "scout", None, False, False]], EVENT_S, "the agent is in the graph")
    took = time.monotonic() - started
    task = psql("INSERT INTO phoenix.tasks (title) VALUES ('graph probe') RETURNING id")
    try:
        psql(f"UPDATE phoenix.agents SET role = 'lead', current_task = '{task}' WHERE id = '{agent}'")
        wait_until(lambda: held() == [[agent, "lead", "open", True, False]], EVENT_S, "so is its task")
    finally:
        psql(f"DELETE FROM phoenix.tasks WHERE id = '{task}'")
    wait_until(lambda: held() == [[agent, "lead", None, False, False]], EVENT_S, "the task is gone")
    psql(f"DELETE FROM phoenix.agents WHERE id = '{agent}'")
    wait_until(lambda: held() == [], EVENT_S, "the agent is gone")
    print(f"visible after {took:.2f} s")


@pytest.mark.changes
def test_what_somebody_wrote_is_named_and_one_command_undoes_it(
    psql: Callable[..., str], driver: Any, probe: str, phoenix: Callable[..., Any]
) -> None:
    agent = psql(
        f"INSERT INTO phoenix.agents (codename, team, role, consciousness_vector) VALUES ('{probe}', 'iota', 'scout', '{{}}') RETURNING id"
    )
    found = "MATCH (a:Agent {id: $id}) RETURN count(a) AS n"
    wait_until(lambda: driver.execute_query(found, id=agent).records[0]["n"] == 1, EVENT_S, "the agent is in the graph")
    driver.execute_query("MATCH (a:Agent {id: $id}) SET a.role = 'king' CREATE (:Intruder {name: 'by hand'})", id=agent)
    checked = phoenix("graph", "check", "--json")
    assert checked.returncode == 3, checked.stdout + checked.stderr
    said = json.loads(checked.stdout)
    assert (said["differences"], said["unknown"]) == (2, 1)
    assert agent in said["first"][0]
    assert phoenix("graph", "rebuild", "--yes").returncode == 0
    assert phoenix("graph", "check").returncode == 0
    assert driver.execute_query("MATCH (n:Intruder) RETURN count(n) AS n").records[0]["n"] == 0
    assert driver.execute_query("MATCH (a:Agent {id: $id}) RETURN a.role AS role", id=agent).records[0]["role"] == "scout"


@pytest.mark.changes
def test_killed_it_is_back_with_its_data(server: Host, driver: Any, ask: Ask, phoenix: Callable[..., Any]) -> None:
    before, nodes = pid(server), ask("MATCH (n:Company) RETURN count(n)")
    server.check_output(f"kill -9 {before}")
    started = time.monotonic()
    wait_until(lambda: pid(server) not in (before, "0") and answers(driver), 90, "Neo4j answers again")
    took = time.monotonic() - started
    assert ask("MATCH (n:Company) RETURN count(n)") == nodes
    assert phoenix("graph", "check").returncode == 0
    print(f"back after {took:.1f} s")


@pytest.mark.changes
@pytest.mark.slow
def test_a_dump_is_offsite_and_comes_back(server: Host, member: PlatformHost, ask: Ask, phoenix: Callable[..., Any]) -> None:
    if "backup" not in member.groups:
        pytest.skip(f"{member.name} is not in group backup: no dumps are taken there")
    before = set(json.loads(server.check_output(f"{KEEPER} backups")))
    server.check_output("systemctl start phoenix-graph-backup.service")
    (name,) = set(json.loads(server.check_output(f"{KEEPER} backups"))) - before
    last = json.loads(server.file("/var/lib/phoenix-graph-backup/last.json").content_string)
    assert (last["name"], last["bytes"] > 0) == (name, True)
    assert server.check_output(f"pgbackrest repo-get --raw {name} | head -c 8") == "Salted__", "it lies there encrypted"
    assert phoenix("graph", "check").returncode == 0
    companies = ask("MATCH (n:Company) RETURN count(n)")
    ask("MATCH (n:Company) DETACH DELETE n")
    assert ask("MATCH (n:Company) RETURN count(n)") == [[0]]
    restored = json.loads(server.check_output(f"{KEEPER} restore {name}"))
    assert (restored["ok"], restored["name"]) == (True, name)
    assert ask("MATCH (n:Company) RETURN count(n)") == companies
    # What happened since the dump comes by the rebuild.
    assert phoenix("graph", "rebuild", "--yes").returncode == 0
    assert phoenix("graph", "check").returncode == 0
