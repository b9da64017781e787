"""What lands on a gateway, rendered on this computer: who is served, who is let in, and that the pools fit into the database."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploys import tls
from deploys.gateway import cluster
from deploys.lib.operations import template
from deploys.lib.settings import ROOT, GatewaySettings, PostgresqlSettings, SettingsError, load
from deploys.postgresql.database import LOGIN_FUNCTION
from deploys.postgresql.roles import RESERVED_CONNECTIONS, ROLES, limited

LAB = load(ROOT / "inventory" / "lab.py")
VPS1 = LAB.hosts["vps1"]
SETTINGS = VPS1[GatewaySettings]
DATABASE = VPS1[PostgresqlSettings]


def pgbouncer_ini(pools: dict[str, object]) -> configparser.ConfigParser:
    text = template(
        "pgbouncer/pgbouncer.ini.j2",
        cfg=SETTINGS,
        listen="/l",
        access="/a",
        logins="/u",
        lookup=cluster.LOOKUP,
        console="prometheus",
        pools=pools,
        tls=tls,
    )()
    parser = configparser.ConfigParser(delimiters="=", interpolation=None, comment_prefixes=(";", "%"), strict=True)
    parser.read_string(text)
    return parser


@pytest.mark.parametrize("gateways", [1, 2, 3, 4])
@pytest.mark.parametrize("max_connections", [100, 200, 1000])
def test_pools_of_all_gateways_fit_into_the_database(max_connections: int, gateways: int) -> None:
    pools = cluster.sized(max_connections, gateways=gateways)
    for role in ROLES:
        limit = limited(role, max_connections).connections
        if role.name in pools and limit >= 0:
            assert gateways * pools[role.name].total <= limit, role.name
    assert gateways * sum(pool.total for pool in pools.values()) <= max_connections - RESERVED_CONNECTIONS


def test_too_few_connections_are_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"postgresql_max_connections is 20: .+ less than one for each of 3 gateways: raise it"):
        cluster.sized(20, gateways=3)


def test_the_database_looks_up_exactly_whom_the_gateway_lets_in() -> None:
    named = set(re.findall(r"'(\w+)'", LOGIN_FUNCTION))
    assert named == set(cluster.logins()) == {role.name for role in ROLES if role.gateway_share}
    for role in ROLES:
        if role.name in named:
            assert role.login and not role.replication
    assert not named & {"postgres", "replicator", "rewind", cluster.LOOKUP}


def test_pools_are_shared_by_transaction_and_leave_nothing_behind() -> None:
    pools = cluster.sized(DATABASE.max_connections, gateways=2)
    config = pgbouncer_ini(dict(pools))
    main = config["pgbouncer"]
    assert main["pool_mode"] == "transaction"
    assert main["server_reset_query_always"] == "1" and "RESET ALL" in main["server_reset_query"]
    assert int(main["max_prepared_statements"]) > 0
    assert int(main["max_client_conn"]) >= 2000
    assert main["client_tls_sslmode"] == "require" and main["server_tls_sslmode"] == "verify-full"
    assert "auth_dbname" not in main, "readers log in without the writer"
    assert float(main["server_connect_timeout"]) > SETTINGS.hold_s, "or PgBouncer gives up while HAProxy still holds its connection"
    assert float(main["query_wait_timeout"]) > SETTINGS.hold_s
    assert (
        config["users"]["samurai_agent"] == f"pool_size={pools['samurai_agent'].each} max_user_connections={pools['samurai_agent'].total}"
    )
    assert {name: re.search(r"port=(\d+)", value)[1] for name, value in config["databases"].items()} == {  # type: ignore[index]
        "phoenix": str(SETTINGS.writer_port),
        "phoenix_ro": str(SETTINGS.readers_port),
    }


def test_haproxy_asks_each_member_once_for_each_question_and_verifies_who_answers() -> None:
    members = {"vps1": "10.66.0.11", "vps2": "10.66.0.12"}
    text = template("haproxy/haproxy.cfg.j2", cfg=SETTINGS, address="10.66.0.11", database=DATABASE, members=members, tls=tls)()
    servers = [line.split() for line in text.splitlines() if line.strip().startswith("server ")]
    asked = [line for line in servers if "track" not in line]
    assert len(asked) == 2 * len(members), "Patroni takes few connections at a time"
    assert all(line[line.index("verifyhost") + 1] == line[1] for line in asked)
    assert [line[2:] for line in servers if "track" in line] == [
        [f"{address}:5432", "track", f"writer/{name}", "backup"] for name, address in members.items()
    ]
    binds = re.findall(r"bind (\S+)(.*)", text)
    assert [address for address, _ in binds if not address.startswith("127.0.0.1:")] == ["10.66.0.11:8405"]
    assert "verify required" in binds[-1][1]


def test_nobody_but_the_exporter_enters_the_console(tmp_path: Path) -> None:
    text = template("pgbouncer/access.conf.j2", console="prometheus", logins=cluster.logins(), networks=["127.0.0.1/32", "10.0.0.0/8"])()
    rules = [SimpleNamespace(words=line.split()) for line in text.splitlines() if line and not line.startswith("#")]
    assert rules[0].words == ["local", "pgbouncer", "prometheus", "peer"]
    assert rules[1].words == ["local", "all", "all", "reject"]
    for rule in rules[2:]:
        kind, databases, users, _, method = rule.words
        assert (kind, databases, method) == ("hostssl", "phoenix,phoenix_ro", "scram-sha-256")
        assert set(users.split(",")) == set(cluster.logins())
