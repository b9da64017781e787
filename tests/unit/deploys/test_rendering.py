"""What lands on a host for Patroni and the firewall, rendered through pyinfra on this computer and read by other parsers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyinfra.api import Config, Inventory, State
from pyinfra.context import ctx_host, ctx_inventory, ctx_state

from deploys import firewall
from deploys.lib import hosts
from deploys.lib.operations import template
from deploys.lib.secrets import SecretStore
from deploys.lib.settings import ROOT, HostSettings, PostgresqlSettings, load
from deploys.postgresql import patroni

MEMBERS = {"@local": "10.66.0.11", "vps2": "10.66.0.12", "vps3": "10.66.0.13"}
PASSWORDS = {"postgresql/replicator": "rep\"li'cator: {x} #", "postgresql/rewind": "re\\wind<&>"}


@dataclass
class Site:
    """A cluster of the lab's settings, of which this computer is the first member."""

    state: State
    inventory: Inventory


def site(tmp_path: Path, members: dict[str, str], groups: dict[str, list[str]], **more: Any) -> Site:
    lab = load(ROOT / "inventory" / "lab.py").hosts
    watching = {key: value for key, value in lab["vps3"].data.items() if key.startswith("monitoring_")}
    data = {**lab["world"].data, **watching, **lab["vps1"].data, "host_secrets_file": str(tmp_path / "secrets.yaml"), **more}
    described = [(name, {**data, "host_address": address}) for name, address in members.items()]
    made = Inventory((described, {}), **{group: (names, {}) for group, names in groups.items()})
    return Site(State(made, Config()), made)


@pytest.fixture
def entered(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Inside a deploy on the first member; parametrised by groups and further settings."""
    groups, more = getattr(request, "param", (None, {}))
    store = SecretStore.create(tmp_path / "secrets.yaml", recipients=[])
    for name, value in PASSWORDS.items():
        store.set(name, value)
    made = site(tmp_path, MEMBERS, groups or {"etcd": [*MEMBERS], "postgresql": [*MEMBERS]}, **more)
    host = made.inventory.get_host("@local")
    with ctx_state.use(made.state), ctx_inventory.use(made.inventory), ctx_host.use(host):
        host.connect()
        yield more


def rendered() -> dict[str, Any]:
    settings = hosts.settings(PostgresqlSettings)
    return dict(yaml.safe_load(template("postgresql/patroni.yml.j2", **patroni._values(settings))()))


def test_patronis_configuration_is_yaml_and_keeps_what_passwords_are_made_of(entered: dict[str, Any]) -> None:
    config = rendered()
    authentication = config["postgresql"]["authentication"]
    assert authentication["replication"]["password"] == PASSWORDS["postgresql/replicator"]
    assert authentication["rewind"]["password"] == PASSWORDS["postgresql/rewind"]
    assert "password" not in authentication["superuser"]
    assert config["etcd3"]["hosts"] == [f"{address}:2379" for address in MEMBERS.values()]
    assert config["postgresql"]["connect_address"] == "10.66.0.11:5432"
    assert config["bootstrap"]["dcs"]["ttl"] >= config["bootstrap"]["dcs"]["loop_wait"] + 2 * config["bootstrap"]["dcs"]["retry_timeout"]


SECOND_REGION = (
    {"etcd": [*MEMBERS], "postgresql": ["@local", "vps2"], "region2": ["vps3"]},
    {"region2_source": "phoenix", "region2_tables": {"agents": []}},
)


@pytest.mark.parametrize("entered", [SECOND_REGION], indirect=True)
def test_a_second_region_gets_in_and_is_never_ahead_of_a_standby(entered: dict[str, Any]) -> None:
    config = rendered()
    lines = config["postgresql"]["pg_hba"]
    allowed, refused = "hostssl phoenix subscriber 10.66.0.13/32 scram-sha-256", "hostssl all subscriber 0.0.0.0/0 reject"
    anybody = next(line for line in lines if line.startswith("hostssl all all"))
    assert lines.index(allowed) < lines.index(refused) < lines.index(anybody)
    assert config["postgresql"]["parameters"]["synchronized_standby_slots"] == "vps2"
    assert config["bootstrap"]["dcs"]["ignore_slots"] == [{"type": "logical", "plugin": "pgoutput"}]
    assert "slots" not in config["bootstrap"]["dcs"]


@pytest.mark.parametrize("entered", [(SECOND_REGION[0], {**SECOND_REGION[1], "postgresql_version": 16})], indirect=True)
def test_before_17_patroni_carries_the_slot(entered: dict[str, Any]) -> None:
    config = rendered()
    assert config["bootstrap"]["dcs"]["slots"] == {"region2": {"type": "logical", "database": "phoenix", "plugin": "pgoutput"}}
    assert "synchronized_standby_slots" not in config["postgresql"]["parameters"]


def test_without_a_second_region_its_login_gets_in_from_nowhere(entered: dict[str, Any]) -> None:
    config = rendered()
    assert [line for line in config["postgresql"]["pg_hba"] if "subscriber" in line] == [
        "local all subscriber reject",
        "hostssl all subscriber 0.0.0.0/0 reject",
    ]
    assert config["postgresql"]["parameters"]["synchronized_standby_slots"] == ""


def test_each_parameter_is_in_one_place(entered: dict[str, Any]) -> None:
    config = rendered()
    local, shared = config["postgresql"]["parameters"], config["bootstrap"]["dcs"]["postgresql"]["parameters"]
    assert not local.keys() & shared.keys()
    assert shared.keys() == set(patroni.SHARED)
    assert local["cron.use_background_workers"] is True
    assert local["shared_preload_libraries"] == "timescaledb,pg_cron,pgaudit,pg_stat_statements"
    assert local["log_parameter_max_length"] == 0
    # Else a COPY into a hypertable ends the server (TimescaleDB issue 7667).
    assert (local["pgaudit.log"], local["log_statement"]) == ("none", "ddl")


def test_access_rules_are_in_the_order_that_keeps_the_superuser_local(entered: dict[str, Any]) -> None:
    rules = [rule.split() for rule in rendered()["postgresql"]["pg_hba"]]
    assert rules[0] == ["local", "all", "postgres", "peer"]
    # Over the network everything is encrypted, and authenticated by SCRAM or refused; nothing is trusted.
    assert all(rule[0] == "hostssl" for rule in rules if rule[0] != "local")
    assert {rule[-1] for rule in rules} == {"peer", "scram-sha-256", "reject"}
    assert {tuple(rule[:3]) for rule in rules if rule[-1] == "peer"} == {("local", "all", "postgres"), ("local", "replication", "postgres")}
    reject = rules.index(["hostssl", "all", "postgres", "0.0.0.0/0", "reject"])
    first_for_all = next(index for index, rule in enumerate(rules) if rule[:3] == ["hostssl", "all", "all"])
    assert reject < first_for_all
    replication = {rule[3] for rule in rules if rule[:3] == ["hostssl", "replication", "replicator"]}
    assert replication == {"127.0.0.1/32", *(f"{address}/32" for address in MEMBERS.values())}
    assert {rule[3] for rule in rules if rule[2] == "rewind"} == {f"{address}/32" for address in MEMBERS.values()}


@pytest.mark.parametrize(
    ("entered", "newer"),
    [((None, {"postgresql_version": version}), newer) for version, newer in ((16, False), (17, True), (18, True))],
    indirect=["entered"],
)
def test_a_version_gets_only_parameters_that_it_knows(entered: dict[str, Any], newer: bool) -> None:
    config = rendered()
    assert ("sync_replication_slots" in config["postgresql"]["parameters"]) is newer
    version = entered["postgresql_version"]
    assert config["postgresql"]["bin_dir"] == f"/usr/lib/postgresql/{version}/bin"
    assert f"postgresql-{version}" in patroni.packages()


@pytest.mark.parametrize("entered", [(None, {"postgresql_parameters": {"work_mem": "64MB", "max_connections": 300}})], indirect=True)
def test_a_parameter_of_the_inventory_wins_and_goes_where_it_belongs(entered: dict[str, Any]) -> None:
    config = rendered()
    assert config["postgresql"]["parameters"]["work_mem"] == "64MB"
    assert config["bootstrap"]["dcs"]["postgresql"]["parameters"]["max_connections"] == 300


SERVED = {
    "etcd": {2379, 2380, 9100},
    "postgresql": {5432, 8008, 9100, 9187, 9188},
    "monitoring": {9090, 9093, 9100},
    "world": {9000, 9099},
    "redis": {6379, 9100, 9121},
    "nothing_of_ours": {9100},
}


@pytest.mark.parametrize(("entered", "group"), [(({group: ["@local"]}, {}), group) for group in SERVED], indirect=["entered"])
def test_a_host_opens_the_ports_of_its_groups_and_no_others(entered: dict[str, Any], group: str) -> None:
    assert set(firewall.ports()) == SERVED[group]


NETWORKS = {"host_ssh_networks": ["192.0.2.0/24", "2001:db8::/32"], "host_service_networks": ["10.66.0.0/24", "fd7a:115c::/48"]}


@pytest.mark.parametrize("way_in", ["", "192.0.2.1"])
@pytest.mark.parametrize("entered", [(None, NETWORKS)], indirect=True)
def test_nftables_takes_the_rules_and_drops_by_default(entered: dict[str, Any], way_in: str, tmp_path: Path) -> None:
    rules = tmp_path / "firewall.nft"
    rules.write_text(
        template(
            "base/firewall.nft.j2",
            cfg=hosts.settings(HostSettings),
            limits=firewall.per_client(),
            udp=[41641],
            tailnet="100.64.0.0/10",
            way_in=way_in,
        )()
    )
    text = rules.read_text()
    assert "type filter hook input priority filter; policy drop;" in text
    assert "ip saddr 192.0.2.0/24 tcp dport 22 accept" in text
    assert "ip6 saddr 2001:db8::/32 tcp dport 22 accept" in text
    assert "ip6 saddr fd7a:115c::/48 tcp dport { 2379, 2380, 5432," in text
    assert "ip saddr 10.66.0.0/24 tcp dport 8008 ct state new add @ip_8008 { ip saddr ct count over 50 } drop" in text
    assert 'iifname != "tailscale0" ip saddr 100.64.0.0/10 drop' in text
    assert "udp dport { 41641 } accept" in text
    assert ('ip saddr 192.0.2.1 oifname "tailscale0" accept' in text) is bool(way_in)
    assert ("masquerade" in text) is bool(way_in)
    assert "flush ruleset" not in text  # other tables are other people's
    if (nft := shutil.which("nft", path="/usr/sbin:/usr/bin")) is None:
        pytest.skip("nft is not installed here")
    done = subprocess.run([nft, "-c", "-f", str(rules)], capture_output=True, text=True, check=False)
    if "Operation not permitted" in done.stderr:
        pytest.skip("only root may ask nft")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("present", "wanted", "differing"),
    [
        ({"ttl": 20, "pause": True}, {"ttl": 20}, []),
        ({"ttl": 30}, {"ttl": 20}, ["ttl"]),
        ({}, {"ttl": 20}, ["ttl"]),
        ({"postgresql": {"parameters": {"a": 1, "b": 2}, "use_slots": True}}, {"postgresql": {"parameters": {"a": 1}}}, []),
        ({"postgresql": {"parameters": {"a": 1}}}, {"postgresql": {"parameters": {"a": 2}}, "ttl": 20}, ["postgresql", "ttl"]),
        ({"postgresql": None}, {"postgresql": {"parameters": {"a": 1}}}, ["postgresql"]),
        ({"postgresql": [1]}, {"postgresql": {}}, ["postgresql"]),
    ],
)
def test_the_shared_configuration_may_hold_more_and_must_hold_what_is_wanted(present: Any, wanted: Any, differing: list[str]) -> None:
    assert patroni._differences(present, wanted) == differing
    assert patroni._contains(present, wanted) is (differing == [])


def test_what_a_timer_starts_at_each_reload_of_systemd_is_never_started_too_often() -> None:
    """With OnActiveSec a timer starts its service anew after each daemon-reload; six in ten seconds, and systemd calls it failed."""
    timers = [path for path in (ROOT / "templates").rglob("*.timer.j2") if "OnActiveSec=" in path.read_text()]
    assert timers
    services = [path.with_name(path.name.replace(".timer.", ".service.")) for path in timers]
    assert [path.name for path in services if "\nStartLimitIntervalSec=0\n" not in path.read_text()] == []
