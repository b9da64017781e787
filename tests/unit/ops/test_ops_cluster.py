"""A cluster as Patroni tells it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploys.lib.settings import Platform, load
from ops import cluster
from ops.errors import Refused
from tests.unit.ops.test_ops_rebuild import SITE

ANSWER = {
    "members": [
        {"name": "one", "role": "leader", "state": "running", "timeline": 3},
        {"name": "two", "role": "sync_standby", "state": "streaming", "timeline": 3, "lag": 0},
        {"name": "six", "role": "replica", "state": "creating replica", "lag": "unknown"},
    ],
    "scope": "phoenix",
    "pause": True,
}


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    path = tmp_path / "site.py"
    path.write_text(SITE.format(secrets=tmp_path / "secrets.yaml"))
    return load(path)


def test_members_with_what_is_known_of_them() -> None:
    view = cluster.parse(json.dumps(ANSWER))
    assert view.leader is not None
    assert view.leader.name == "one"
    two, six = view.member("two"), view.member("six")
    assert two is not None and two.synchronous and two.lag == 0
    assert six is not None and not six.synchronous and six.lag is None and six.timeline is None
    assert view.member("nine") is None
    assert view.paused


def test_a_standby_that_does_not_stream_is_not_synchronous() -> None:
    stopped = {"members": [{"name": "two", "role": "sync_standby", "state": "stopped"}]}
    assert not cluster.parse(json.dumps(stopped)).members[0].synchronous


@pytest.mark.parametrize("text", ["", "no", "[]", '{"error": 1}'])
def test_another_answer_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        cluster.parse(text)


def test_hosts_of_one_name_are_one_cluster(platform: Platform) -> None:
    assert {scope: found.names for scope, found in cluster.clusters(platform).items()} == {"phoenix": ["one", "two"], "far": ["far"]}
    assert cluster.of(platform).scope == "phoenix"
    assert cluster.of(platform, "far").scope == "far"


def test_a_host_without_a_database_is_refused_by_name(platform: Platform) -> None:
    with pytest.raises(Refused, match="watch is not in the group postgresql and has no database: choose from one, two, far"):
        cluster.of(platform, "watch")
    with pytest.raises(Refused, match="has no host nine"):
        cluster.of(platform, "nine")
