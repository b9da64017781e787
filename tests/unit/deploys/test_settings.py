"""Settings: read as pyinfra itself reads them, and every fault named by file, key, reason and next step."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploys.lib import settings
from deploys.lib.settings import GROUP_DATA, ROOT, EtcdSettings, HostSettings, PostgresqlSettings, SettingsError, load

Write = Callable[..., Path]

GOOD = {
    "ssh_hostname": "192.0.2.1",
    "host_address": "10.0.0.1",
    "host_operator_keys": ["ssh-ed25519 AAAA somebody@example.org"],
    "host_secrets_file": "inventory/site.secrets.yaml",
}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes an inventory with one host, in etcd and postgresql, with these further settings."""

    def inventory(**more: Any) -> Path:
        path = tmp_path / "site.py"
        path.write_text(f"_HOST = ('one', { ({**GOOD, **more})!r})\netcd = [_HOST]\npostgresql = [_HOST]\n")
        return path

    return inventory


def faults(path: Path) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        load(path)
    return str(refused.value).splitlines()


def as_pyinfra_reads(path: Path) -> dict[str, dict[str, Any]]:
    """Host name to data, by pyinfra's own command line (a process of its own: it patches sockets)."""
    command = [sys.executable, "-m", "pyinfra", str(path), "debug-inventory", "--json", "--group-data", str(GROUP_DATA)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return {host["name"]: host for host in json.loads(done.stdout)}


@pytest.mark.parametrize("name", ["lab.py", "production.example.py"])
def test_hosts_groups_and_data_are_those_that_pyinfra_sees(name: str) -> None:
    path = ROOT / "inventory" / name
    platform, pyinfra = load(path), as_pyinfra_reads(path)
    assert platform.hosts.keys() == pyinfra.keys()
    for host, seen in pyinfra.items():
        assert platform.hosts[host].data == seen["data"]
        assert platform.hosts[host].groups == set(seen["groups"]) - {"all"}


def test_precedence_is_pyinfras_host_then_later_group_then_earlier_group_then_all(tmp_path: Path) -> None:
    path = tmp_path / "site.py"
    path.write_text(
        f"_HOST = ('one', { ({**GOOD, 'host_journal_max_mb': 101})!r})\n"
        "import os as host_not_data\n"
        "postgresql = ([_HOST], {'postgresql_port': 6001, 'etcd_client_port': 6002, 'host_timezone': 'Asia/Tokyo', "
        "'host_journal_max_mb': 102})\n"
        "etcd = (['one'], {'postgresql_port': 6003, 'host_min_free_mb': 103})\n"
        "alpha = (['one'], {'host_min_free_mb': 104, 'etcd_peer_port': 6004})\n"
    )
    host, seen = load(path).hosts["one"], as_pyinfra_reads(path)["one"]
    assert host.data == seen["data"]
    assert host[HostSettings].journal_max_mb == 101
    assert host[HostSettings].min_free_mb == 104
    assert host[HostSettings].timezone == "Asia/Tokyo"


def test_settings_come_typed_with_the_group_files_defaults(write: Write) -> None:
    host = load(write(postgresql_version=17)).hosts["one"]
    assert host.groups == {"etcd", "postgresql", "site"}
    assert host[PostgresqlSettings].version == 17
    assert host[EtcdSettings].client_port == 2379
    assert host[HostSettings].memory_mb is None
    assert load(write()).secrets_file == ROOT / "inventory" / "site.secrets.yaml"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"postgresql_version": 15}, "postgresql_version is 15, refused: input should be 16, 17 or 18."),
        ({"postgresql_version": "16"}, "postgresql_version is '16', refused:"),
        ({"postgresql_port": 70000}, "postgresql_port is 70000, refused: input should be less than or equal to 65535."),
        ({"postgresql_prot": 5432}, "postgresql_prot is not a setting: did you mean postgresql_port?"),
        ({"etcd_zzz": 1}, "etcd_zzz is not a setting: remove it; etcd has cluster_name, client_port, peer_port, lost."),
        ({"mongo_port": 6379}, "mongo_port belongs to no service: known prefixes are host, etcd,"),
        ({"host_address": "vps1"}, "host_address is 'vps1', refused:"),
        ({"host_address": "fd7a::11"}, "host_address is 'fd7a::11', refused:"),
        ({"host_ssh_networks": ["10.0.0.1/24"]}, "host_ssh_networks.0 is '10.0.0.1/24', refused: 10.0.0.1/24 has host bits set."),
        ({"host_ssh_networks": []}, "host_ssh_networks is [], refused:"),
        ({"host_timezone": "UTC; reboot"}, "host_timezone is 'UTC; reboot', refused:"),
        ({"host_operator": "root me"}, "host_operator is 'root me', refused:"),
        ({"postgresql_cluster_name": "../x"}, "postgresql_cluster_name is '../x', refused:"),
        ({"postgresql_wal_keep_gb": 0.0}, "postgresql_wal_keep_gb is 0.0, refused:"),
        (
            {"postgresql_loop_wait_s": 15},
            "postgresql is refused: loop_wait_s + 2 * retry_timeout_s must not exceed failover_ttl_s: raise that, or lower these.",
        ),
        (
            {
                "host_apt_sources": {
                    "x y": {"uris": ["u"], "suites": ["s"], "components": ["c"], "key_url": "k", "key_fingerprint": "A" * 40}
                }
            },
            "host_apt_sources.x y",
        ),
        (
            {"host_apt_sources": {"x": {"uris": ["u"], "suites": ["s"], "components": ["c"], "key_url": "k", "key_fingerprint": "0xABC"}}},
            "host_apt_sources.x.key_fingerprint is '0xABC', refused:",
        ),
    ],
)
def test_a_bad_setting_is_named_with_its_host_reason_and_remedy(write: Write, more: dict[str, Any], says: str) -> None:
    path = write(**more)
    (fault,) = faults(path)
    assert says in fault
    assert fault.startswith(f"{path}: host one: ")
    assert fault.endswith((".", "?"))


def test_every_fault_of_every_host_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "site.py"
    bad = {**GOOD, "etcd_client_port": 0, "postgresql_prot": 1}
    path.write_text(f"etcd = [('one', {bad!r}), ('two', { ({**GOOD, 'host_operator': 7})!r})]\npostgresql = ['one', 'two']\n")
    found = faults(path)
    assert len(found) == 3
    assert [("one" in fault, key in fault) for fault, key in zip(found, ["etcd_client_port", "postgresql_prot"], strict=False)] == [
        (True, True)
    ] * 2
    assert "host two: host_operator is 7" in found[2]


def test_a_missing_setting_says_where_to_set_it(tmp_path: Path) -> None:
    path = tmp_path / "site.py"
    path.write_text(f"etcd = [('one', { ({key: value for key, value in GOOD.items() if key != 'host_address'})!r})]\n")
    (fault,) = faults(path)
    assert fault == f"{path}: host one: host_address is missing: set it in inventory/group_data/ or for the host in {path}."


def test_the_file_that_sets_a_key_is_named_not_one_that_sets_a_longer_key(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`host_operator` is a group's, `host_operator_keys` the inventory's."""
    group_data = tmp_path / "group_data"
    group_data.mkdir()
    for file in GROUP_DATA.glob("*.py"):
        (group_data / file.name).write_text(file.read_text().replace('host_operator = "ops"', 'host_operator = "not good"'))
    monkeypatch.setattr(settings, "GROUP_DATA", group_data)
    (fault,) = faults(write())
    assert fault.startswith(f"{group_data}/all.py: host one: host_operator is 'not good', refused:")


def test_postgresql_without_etcd_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.py"
    path.write_text(f"postgresql = [('one', {GOOD!r})]\n")
    assert faults(path) == [f"{path}: group postgresql has hosts and group etcd has none, where Patroni keeps who leads: add one."]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("etcd = []\n", "names no host"),
        ("etcd = [\n", "cannot be read (SyntaxError"),
        ("import nothing_of_that_name\n", "cannot be read (ModuleNotFoundError"),
    ],
)
def test_an_inventory_that_cannot_be_used_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "site.py"
    path.write_text(text)
    (fault,) = faults(path)
    assert fault.startswith(str(path))
    assert says in fault


def test_an_inventory_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path / "nowhere.py")
    assert "does not exist: choose an inventory with -i (there are: inventory/lab.py, inventory/production.example.py" in fault
