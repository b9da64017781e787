"""What a rebuild would do, decided from what the hosts are: nothing is asked here, and nothing touched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deploys.lib.settings import Platform, load
from ops import rebuild
from ops.errors import Refused
from ops.rebuild import Found

SITE = """
def _host(name, address, **more):
    return (name, {{
        "ssh_hostname": address, "ssh_user": "root", "host_address": address, "host_secrets_file": "{secrets}",
        "host_operator_keys": ["ssh-ed25519 AAAA... somebody@example.org"], **more,
    }})

_ONE, _TWO = _host("one", "10.1.1.1"), _host("two", "10.1.1.2")
_FAR = _host("far", "10.1.1.3", postgresql_cluster_name="far")
_WATCH = _host("watch", "10.1.1.4", monitoring_receivers=[
    {{"name": "us", "severities": ["critical"], "webhook": {{"url": "http://10.1.1.9/"}}}}])
etcd = [_ONE, _TWO, _FAR]
postgresql = [_ONE, _TWO, _FAR]
monitoring = [_WATCH]
"""

BARE, GONE = Found(reachable=True), Found(reachable=False)
WELL = Found(reachable=True, data=True, etcd=True, etcd_serves=True)
NO_MAJORITY = replace(WELL, etcd_serves=False)
WATCH = Found(reachable=True)


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    path = tmp_path / "site.py"
    path.write_text(SITE.format(secrets=tmp_path / "secrets.yaml"))
    return load(path)


def plan(platform: Platform, host: str, kind: rebuild.Kind, **found: Found) -> rebuild.Plan:
    return rebuild._plan(platform, platform.hosts[host], kind, {**found, "watch": WATCH})


def test_a_bare_member_is_deployed_with_all_others_and_nothing_is_destroyed(platform: Platform) -> None:
    found = plan(platform, "two", "member", one=WELL, two=BARE, far=WELL)
    assert found.destroys == found.etcd_lost == found.etcd_anew == found.left_out == ()
    assert found.deploys == ("one", "two", "far", "watch")


def test_data_that_is_there_is_named_before_it_goes(platform: Platform) -> None:
    found = plan(platform, "two", "member", one=WELL, two=WELL, far=WELL)
    assert found.destroys == ("The database in /var/lib/postgresql/16/phoenix on two is removed.",)


def test_who_cannot_be_reached_is_left_out(platform: Platform) -> None:
    found = plan(platform, "two", "member", one=WELL, two=BARE, far=GONE)
    assert found.left_out == ("far",)
    assert "far" not in found.deploys


def test_when_all_are_gone_the_first_begins_alone_and_the_others_wait(platform: Platform) -> None:
    for others in (GONE, BARE):
        found = plan(platform, "one", "everything", one=BARE, two=others, far=others)
        assert found.deploys == ("one", "watch")
        assert found.etcd_lost == ("two", "far")
        assert found.etcd_anew == ()
    found = plan(platform, "two", "member", one=WELL, two=BARE, far=BARE)
    assert found.deploys == ("one", "two", "watch"), "far waits for a rebuild of its own"


def test_a_member_of_etcd_without_its_majority_begins_anew_and_that_is_asked(platform: Platform) -> None:
    found = plan(platform, "one", "everything", one=BARE, two=GONE, far=NO_MAJORITY)
    assert found.etcd_anew == ("far",)
    assert found.etcd_lost == ("two",)
    assert found.deploys == ("one", "far", "watch")
    assert any("lost its majority" in sentence for sentence in found.destroys)


def test_as_long_as_etcd_serves_it_is_left_alone(platform: Platform) -> None:
    found = plan(platform, "one", "everything", one=BARE, two=replace(BARE, etcd=True, etcd_serves=True), far=WELL)
    assert found.etcd_anew == found.etcd_lost == ()


def test_the_only_copy_is_not_thrown_away(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    states = {"one": WELL, "two": BARE, "far": WELL, "watch": WATCH}
    monkeypatch.setattr(rebuild, "look", lambda host: states[host.name])
    with pytest.raises(Refused, match="one has the only copy of phoenix that can be reached"):
        rebuild.prepare(platform, platform.hosts["one"])
    states["one"] = BARE
    with pytest.raises(Refused, match=r"no member of phoenix has data, and one is not in the group backup"):
        rebuild.prepare(platform, platform.hosts["one"])
    states["one"] = GONE
    with pytest.raises(Refused, match=r"one cannot be reached over SSH: bring a bare Debian machine up at 10\.1\.1\.1"):
        rebuild.prepare(platform, platform.hosts["one"])
