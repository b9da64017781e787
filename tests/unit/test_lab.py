"""The parts of the lab that need no machine: its table, its network, what it writes and which commands it builds."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest

import lab
from lab import base, cgroup, disk, host, leftovers, mirror, network, nspawn, ssh
from lab.__main__ import main
from lab.config import Lab, Paths
from lab.machines import MACHINES, Machine

VPS1 = MACHINES[0]


@pytest.fixture
def other(tmp_path: Path) -> Lab:
    """A lab beside the real one: own directories, network and bridge."""
    return Lab.from_environment(
        {
            "PHOENIX_LAB_STATE": str(tmp_path / "state"),
            "PHOENIX_CACHE": str(tmp_path / "cache"),
            "PHOENIX_LAB_NETWORK": "10.99.0.0/24",
            "PHOENIX_LAB_BRIDGE": "other0",
        }
    )


# --- the table and the environment


def test_every_machine_has_its_own_name_and_an_address_inside_the_network() -> None:
    standard = Lab()
    addresses = [ipaddress.IPv4Address(machine.address) for machine in MACHINES]
    assert len({machine.name for machine in MACHINES}) == len(set(addresses)) == len(MACHINES)
    assert all(address in standard.network and str(address) != standard.gateway for address in addresses)


def test_addresses_and_names_that_others_rely_on_stay() -> None:
    table = {machine.name: machine.address for machine in MACHINES}
    assert (table["vps1"], table["world"]) == ("10.66.0.11", "10.66.0.20")
    assert Lab.from_environment({}) == Lab()
    assert Lab().paths.ssh_config == Path("/var/lib/phoenix-lab/ssh/config")
    assert (Lab().gateway, Lab().bridge, Lab().table) == ("10.66.0.1", "phoenix0", "phoenix_lab")


def test_the_hosts_end_of_every_cable_fits_the_kernels_limit(other: Lab) -> None:
    for some in (Lab(), other):
        assert all(len(network.cable(some, machine.name)) <= 15 for machine in some.machines)


def test_two_labs_share_nothing(other: Lab) -> None:
    assert other.address(VPS1) == "10.99.0.11"
    assert (other.tailnet_address(VPS1), Lab().tailnet_address(VPS1)) == ("100.99.0.11", "100.66.0.11")
    assert other.table != Lab().table
    assert other.nspawn_name("vps1") != Lab().nspawn_name("vps1")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PHOENIX_LAB_STATE", "/"),
        ("PHOENIX_LAB_STATE", "/var"),
        ("PHOENIX_LAB_STATE", "relative/path"),
        ("PHOENIX_CACHE", "cache"),
        ("PHOENIX_LAB_NETWORK", "10.1.0.0/33"),
        ("PHOENIX_LAB_NETWORK", "10.1.0.0/16"),
        ("PHOENIX_LAB_BRIDGE", "far-too-long-name"),
        ("PHOENIX_LAB_BRIDGE", "a b"),
    ],
)
def test_a_bad_environment_is_refused_with_its_name_and_value(variable: str, value: str) -> None:
    with pytest.raises(lab.LabRefused, match=f"^{variable}={value}"):
        Lab.from_environment({variable: value})


def test_an_unknown_machine_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(lab.LabRefused, match=r"vps9.*vps1, vps2, vps3, world"):
        Lab().select(["vps1", "vps9"])


def test_the_command_line_answers_refusals_with_code_2_and_one_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["up", "vps9"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("lab: vps9: ")


def test_paths_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOENIX_LAB_STATE", "/srv/elsewhere/lab")
    assert lab.paths.ssh_key == Path("/srv/elsewhere/lab/ssh/id_ed25519")


# --- SSH


def test_paramiko_reads_the_client_configuration(other: Lab) -> None:
    config = paramiko.SSHConfig.from_text(ssh.client_config(other))
    found = config.lookup("world")
    assert found["hostname"] == "10.99.0.20"
    assert found["user"] == "root"
    assert found["identityfile"] == [str(other.paths.ssh_key)]
    assert found["stricthostkeychecking"] == "yes"
    assert config.lookup("elsewhere") == {"hostname": "elsewhere"}


def test_openssh_reads_the_client_configuration(other: Lab, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(ssh.client_config(other))
    said = subprocess.run(["ssh", "-G", "-F", str(file), "vps1"], capture_output=True, text=True, check=True).stdout
    options = dict(line.split(" ", 1) for line in said.splitlines() if " " in line)
    assert options["hostname"] == "10.99.0.11"
    assert options["controlmaster"] == "auto"
    assert options["controlpath"].startswith(f"{other.paths.ssh_dir}/cm-")
    assert options["passwordauthentication"] == "no"
    assert options["stricthostkeychecking"] in ("true", "yes")


def test_the_control_path_fits_a_unix_socket() -> None:
    # OpenSSH appends a dot and 16 characters while it opens the socket; the kernel takes 107.
    assert len(str(Lab().paths.ssh_dir / ("cm-" + "0" * 40))) + 17 <= 107


def test_keys_are_made_once_are_private_and_known_hosts_names_every_machine(other: Lab) -> None:
    ssh.ensure_keys(other)
    first = other.paths.ssh_key.read_text()
    ssh.ensure_keys(other)
    assert other.paths.ssh_key.read_text() == first
    assert other.paths.ssh_key.stat().st_mode & 0o077 == 0
    assert other.paths.ssh_dir.stat().st_mode & 0o077 == 0
    known = paramiko.HostKeys(str(other.paths.known_hosts))
    for machine in other.machines:
        key = known[other.address(machine)]["ssh-ed25519"]
        assert key == known[machine.name]["ssh-ed25519"]
        assert key.get_base64() in other.paths.host_key(machine.name).with_suffix(".pub").read_text()


def test_a_key_left_without_its_other_half_is_made_again(other: Lab) -> None:
    ssh.ensure_keys(other)
    other.paths.ssh_key.with_suffix(".pub").unlink()
    ssh.ensure_keys(other)
    derived = subprocess.run(["ssh-keygen", "-y", "-f", str(other.paths.ssh_key)], capture_output=True, text=True, check=True).stdout
    assert other.paths.ssh_key.with_suffix(".pub").read_text().split()[:2] == derived.split()[:2]


def test_a_new_disk_gets_a_new_host_key(other: Lab) -> None:
    ssh.ensure_keys(other)
    before = other.paths.known_hosts.read_text()
    ssh.forget_host_key(other, VPS1)
    ssh.ensure_keys(other)
    changed = set(other.paths.known_hosts.read_text().splitlines()) - set(before.splitlines())
    assert [line.split(",")[0] for line in changed] == ["vps1"]


@pytest.mark.parametrize(
    ("words", "sent"),
    [([], []), (["df -h | tail -1"], ["df -h | tail -1"]), (["ls", "-l", "/a b"], ["ls -l '/a b'"])],
)
def test_remote_commands_arrive_as_they_were_meant(words: list[str], sent: list[str]) -> None:
    assert ssh.command(Lab(), "vps1", words) == ["ssh", "-F", "/var/lib/phoenix-lab/ssh/config", "vps1", *sent]


# --- machines as processes and control groups


def test_a_machine_is_started_from_its_own_disk_on_the_labs_bridge(other: Lab) -> None:
    argv = nspawn.command(other, VPS1)
    assert argv[0] == "systemd-nspawn"
    assert f"--directory={other.paths.root('vps1')}" in argv
    assert "--network-bridge=other0" in argv
    assert "--hostname=vps1" in argv


def test_machines_that_do_not_run_are_not_found(other: Lab) -> None:
    assert nspawn.find(other) == {}


HYBRID = """\
32 24 0:28 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
33 32 0:29 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw
34 32 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
35 32 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
36 32 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
37 32 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
"""


def test_all_layouts_of_control_groups_are_understood() -> None:
    found = {str(one.path): cgroup.ceilings(one, VPS1) for one in cgroup.parse_mounts(HYBRID)}
    memory = str(VPS1.memory_mb * 1024 * 1024)
    assert found == {
        "/sys/fs/cgroup/unified": {"memory.max": memory, "cpu.max": "200000 100000"},
        "/sys/fs/cgroup/systemd": {},
        "/sys/fs/cgroup/cpu,cpuacct": {"cpu.cfs_quota_us": "200000"},
        "/sys/fs/cgroup/memory": {"memory.limit_in_bytes": memory},
    }


@pytest.mark.parametrize(
    ("available", "wanted", "turn", "cores"),
    [([0, 1], 2, 0, []), ([0, 1], 4, 1, []), ([0, 1, 2, 3], 2, 0, [0, 1]), ([0, 1, 2, 3], 2, 1, [2, 3]), ([0, 2, 4], 2, 1, [0, 4])],
)
def test_cores_are_dealt_in_turn(available: list[int], wanted: int, turn: int, cores: list[int]) -> None:
    assert cgroup.choose_cores(available, wanted, turn) == cores


# --- disks and the cache


def _disk(some: Lab, name: str) -> Path:
    root = some.paths.root(name)
    (root / "etc").mkdir(parents=True)
    (root / "etc/hosts").write_text("127.0.0.1\tlocalhost\n10.1.1.1\tmine world # kept\n")
    (root / "var/cache/apt/archives/partial").mkdir(parents=True)
    return root


def test_machines_learn_each_others_names_and_keep_what_others_wrote(other: Lab) -> None:
    root = _disk(other, "vps1")
    disk.introduce(other, VPS1)
    disk.introduce(other, VPS1)
    others = "10.99.0.12\tvps2\n10.99.0.13\tvps3\n"
    assert (root / "etc/hosts").read_text() == f"127.0.0.1\tlocalhost\n10.1.1.1\tmine world # kept\n10.99.0.11\tvps1\n{others}"


def test_a_new_line_in_the_table_is_told_to_machines_that_exist(other: Lab) -> None:
    root = _disk(other, "vps1")
    disk.introduce(replace(other, machines=(*other.machines, Machine("vps9", "10.66.0.19", 1024, 1))), VPS1)
    assert "10.99.0.19\tvps9\n" in (root / "etc/hosts").read_text()


def test_writing_into_a_machine_does_not_follow_its_links_to_this_computer(other: Lab, tmp_path: Path) -> None:
    root = _disk(other, "vps1")
    mine = tmp_path / "mine"
    mine.write_text("untouched")
    (root / "etc/resolv.conf").symlink_to(mine)
    disk.configure(other, VPS1, 1400, "nameserver 192.0.2.53\n")
    assert mine.read_text() == "untouched"
    assert (root / "etc/resolv.conf").read_text() == "nameserver 192.0.2.53\n"


def test_downloads_are_harvested_once_and_unfinished_ones_are_not(other: Lab) -> None:
    root = _disk(other, "vps1")
    archives = root / "var/cache/apt/archives"
    (archives / "a_1_all.deb").write_text("a")
    (archives / "empty_1_all.deb").touch()
    (archives / "lock").write_text("x")
    (archives / "partial/b_1_all.deb").write_text("b")
    assert disk.harvest(other, "vps1") == 1
    assert disk.harvest(other, "vps1") == 0
    assert [file.name for file in (other.paths.cache / "apt/archives").iterdir()] == ["a_1_all.deb"]


def test_the_cache_survives_the_removal_of_the_machine(other: Lab) -> None:
    root = _disk(other, "vps1")
    (root / "var/cache/apt/archives/a_1_all.deb").write_text("a")
    disk.harvest(other, "vps1")
    disk.discard(other, "vps1")
    assert not root.exists()
    disk.remove_discarded(other, "vps1")
    assert list(other.paths.machine("vps1").iterdir()) == []
    assert (other.paths.cache / "apt/archives/a_1_all.deb").read_text() == "a"


def test_what_nobody_used_for_a_month_leaves_the_cache(other: Lab) -> None:
    archives = other.paths.cache / "apt/archives"
    archives.mkdir(parents=True)
    old = [archives / "old_1_all.deb", other.paths.cache / "base-trixie-0123.tar.zst"]
    kept = [archives / "new_1_all.deb", other.paths.cache / "base-trixie-4567.tar.zst", other.paths.cache / "somebody-elses"]
    for file in (*old, *kept, archives / ".half_1_all.deb.part"):
        file.touch()
    for file in (*old, kept[2]):
        os.utime(file, (0, 0))
    disk.prune(other)
    assert sorted(file for file in other.paths.cache.rglob("*") if file.is_file()) == sorted(kept)


def test_the_machines_sources_name_suite_key_and_mirror() -> None:
    sources = [mirror.Source("http://localhost:3142/debian", "trixie", ("main",))]
    assert mirror.parse_deb822(disk.debian_sources(sources, "10.66.0.1")) == [
        mirror.Source("http://10.66.0.1:3142/debian", "trixie", ("main",))
    ]


def test_another_recipe_is_another_base_system(tmp_path: Path) -> None:
    source = mirror.Source("http://mirror.example/debian", "trixie", ("main",))
    first = base.archive_path(tmp_path, [source], "", [])
    assert base.archive_path(tmp_path, [source], "", []) == first
    assert base.archive_path(tmp_path, [source], "", ["a certificate"]) != first
    assert base.archive_path(tmp_path, [replace(source, uri="http://else.example/debian")], "", []) != first


def test_only_authorities_that_debian_does_not_ship_are_passed_on(tmp_path: Path) -> None:
    def pem(body: str) -> str:
        return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"

    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (shipped / "one.crt").write_text(pem("AAAA\r\nBBBB"))
    bundle = tmp_path / "bundle.crt"
    bundle.write_text(pem("AAAA\nBBBB") + pem("CCCC") + pem("CCCC"))
    assert base.local_authorities(bundle, shipped) == [pem("CCCC")]


# --- leftovers and preconditions


def test_stale_mounts_are_found_also_with_blanks_in_their_names() -> None:
    mountinfo = (
        "25 1 0:22 / /proc rw - proc proc rw\n"
        "90 1 0:50 / /srv/lab/machines/vps1/root/proc rw - proc proc rw\n"
        "91 1 0:51 / /srv/lab/with\\040blank rw - tmpfs tmpfs rw\n"
        "92 1 0:52 / /srv/laboratory rw - tmpfs tmpfs rw\n"
    )
    assert leftovers.mounts_below(Path("/srv/lab"), mountinfo) == ["/srv/lab/machines/vps1/root/proc", "/srv/lab/with blank"]


def test_processes_of_a_killed_run_are_ended_and_no_others(tmp_path: Path) -> None:
    ours, others = tmp_path / "root.part", tmp_path / "elsewhere"
    ours.mkdir()
    others.mkdir()
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(sleep, cwd=ours) as mine, subprocess.Popen(sleep, cwd=others) as theirs:
        leftovers.end_processes(ours)
        assert mine.wait(timeout=5) == -9
        assert theirs.poll() is None
        theirs.kill()


def test_a_second_run_at_the_same_time_is_refused(other: Lab) -> None:
    program = (
        "import json, sys; from lab import host; from lab.config import Lab\n"
        "try:\n    with host.only_one(Lab.from_environment(json.loads(sys.argv[1]))): print('entered')\n"
        "except Exception as error: print(error); sys.exit(error.exit_code)\n"
    )
    env = {"PHOENIX_LAB_STATE": str(other.paths.state)}
    argv = [sys.executable, "-c", program, json.dumps(env)]
    try:
        with host.only_one(other):
            second = subprocess.run(argv, capture_output=True, text=True, check=False)
    except PermissionError:
        pytest.skip("the lock is the superuser's")
    assert second.returncode == 2
    assert "making or removing machines" in second.stdout
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "entered\n"


def test_too_small_a_disk_is_refused_before_anything_is_made(other: Lab) -> None:
    with pytest.raises(lab.LabRefused, match=r"GiB free, 2000000 GiB needed"):
        host.require_space(other, 1_000_000)
    assert not other.paths.state.exists()


def test_paths_of_the_state_are_all_inside_it() -> None:
    paths = Paths(Path("/s/t"), Path("/c/d"))
    for inside in (paths.ssh_key, paths.known_hosts, paths.ssh_config, paths.secrets, paths.root("x"), paths.console("x")):
        assert inside.is_relative_to(paths.state)
