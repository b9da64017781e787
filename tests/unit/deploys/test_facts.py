"""Facts: their commands run in this computer's shell, their answers compared with what Python sees of the same things."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

from deploys.lib import facts


def shell(command: str, **environment: str) -> list[str]:
    """The lines that pyinfra hands to a fact."""
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, env={**os.environ, **environment})
    return done.stdout.splitlines()


def states(*paths: Path, **environment: str) -> dict[str, facts.PathState]:
    fact = facts.PathStates()
    return fact.process(shell(fact.command([str(path) for path in paths]), **environment))


def test_each_kind_of_path_is_told_with_owner_mode_and_digest(tmp_path: Path) -> None:
    file, empty, directory, link = tmp_path / "a 'file' | $(x)", tmp_path / "empty", tmp_path / "directory", tmp_path / "link"
    file.write_text("text")
    empty.touch()
    directory.mkdir()
    link.symlink_to(file)
    file.chmod(0o640)
    found = states(file, empty, directory, link, tmp_path / "missing")
    user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(file.stat().st_gid).gr_name
    assert found[str(file)] == facts.PathState("file", user, group, "640", hashlib.sha256(b"text").hexdigest())
    assert (found[str(empty)].kind, found[str(empty)].digest) == ("file", hashlib.sha256(b"").hexdigest())
    assert (found[str(directory)].kind, found[str(directory)].digest) == ("directory", "")
    assert found[str(link)].kind == "link"
    assert str(tmp_path / "missing") not in found


def test_a_hosts_language_changes_nothing(tmp_path: Path) -> None:
    """Whatever locale there is here: the fact asks for C itself."""
    (tmp_path / "file").touch()
    assert states(tmp_path / "file", LC_ALL="de_DE.UTF-8", LANGUAGE="de")[str(tmp_path / "file")].kind == "file"
    assert "LC_ALL=C stat" in facts.PathStates().command(["/"])
    assert "export LC_ALL=C; stat" in facts.Unit().command("ssh.service", ["/"])


def test_resources_are_this_computers() -> None:
    fact = facts.Resources()
    found = fact.process(shell(fact.command(), SSH_CONNECTION="192.0.2.7 50022 192.0.2.1 2222"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    assert abs(found.memory_mb - memory) <= 1
    assert found.cores == len(os.sched_getaffinity(0))
    assert abs(found.free_mb - shutil.disk_usage("/").free // 2**20) < 1024
    assert found.machine == os.uname().machine
    assert (found.client, found.ssh_port) == ("192.0.2.7", "2222")


def test_a_host_that_answers_almost_nothing_is_unknown_and_no_crash() -> None:
    found = facts.Resources().process(["memory 512", "cores", "machine sparc", "client", "ssh_port"])
    assert (found.debian, found.cores, found.free_mb, found.client) == ("an unknown system", 1, 0, "")


def test_no_session_over_ssh_gives_no_client() -> None:
    fact = facts.Resources()
    found = fact.process(shell(fact.command(), SSH_CONNECTION=""))
    assert (found.client, found.ssh_port) == ("", "")


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="not a Debian computer")
def test_installed_packages_have_versions_and_others_are_left_out() -> None:
    fact = facts.PackageVersions()
    found = fact.process(shell(fact.command(["dpkg", "no-such-package-here"])))
    assert found.keys() == {"dpkg"}
    assert found["dpkg"] == shell("dpkg-query -W -f='${Version}' dpkg")[0]


def test_packages_that_were_removed_but_for_their_configuration_are_not_installed() -> None:
    assert facts.PackageVersions().process(["kept 1.0 installed", "gone 1.0 config-files", "never  not-installed"]) == {"kept": "1.0"}


UNIT = [
    "LoadState=loaded",
    "ActiveState=active",
    "UnitFileState=enabled",
    "NeedDaemonReload=no",
    "InactiveExitTimestamp=Mon 2026-11-23 14:29:12.123456 UTC",
]


def test_a_running_unit() -> None:
    found = facts.Unit().process(
        [*UNIT, "container=yes", "reloaded 1795444200.5", "file 1795444152.25 /etc/a b.conf", "file 1.0 /dev/null"]
    )
    assert (found.load, found.active, found.enabled, found.needs_daemon_reload, found.in_container) == (
        "loaded",
        "active",
        "enabled",
        False,
        True,
    )
    assert found.started_at == 1795444152.123456
    assert found.reloaded_at == 1795444200.5
    assert found.changed_at == {"/etc/a b.conf": 1795444152.25}


def test_a_unit_that_does_not_exist_and_one_that_never_started() -> None:
    missing = facts.Unit().process(
        ["LoadState=not-found", "ActiveState=inactive", "UnitFileState=", "NeedDaemonReload=no", "InactiveExitTimestamp="]
    )
    assert (missing.load, missing.started_at, missing.reloaded_at, missing.changed_at) == ("not-found", 0.0, 0.0, {})
    assert facts.Unit().process(["NeedDaemonReload=yes", "InactiveExitTimestamp=n/a"]).needs_daemon_reload


def test_watched_files_are_told_by_their_time_also_through_links(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.touch()
    os.utime(file, (1_700_000_000.5, 1_700_000_000.5))
    link.symlink_to(file)
    fact = facts.Unit()
    found = fact.process(shell(fact.command("no-such-unit.service", [str(file), str(link), str(tmp_path / "missing")])))
    assert found.changed_at == {str(file): 1_700_000_000.5, str(link): 1_700_000_000.5}


@pytest.mark.parametrize(
    ("script", "says"), [("echo a; echo b", "a\nb"), ("exit 3", facts.FAILED), ("echo a; false", f"a\n{facts.FAILED}")]
)
def test_output_ends_with_a_mark_when_the_command_failed(script: str, says: str) -> None:
    fact = facts.Output()
    assert fact.process(shell(fact.command(script))) == says


@pytest.mark.parametrize(
    ("script", "value"),
    [("echo '{\"a\": 1}'", {"a": 1}), ("printf '[1,\\n2]'", [1, 2]), ("true", None), ("exit 1", None), ("echo oh", None)],
)
def test_json_is_none_when_there_is_none(script: str, value: object) -> None:
    fact = facts.Json()
    assert fact.process(shell(fact.command(script))) == value
