"""The tailnet's policy, and what a host tells of the tailnet: from the groups and from tailscale's own words."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from deploys import tailscale
from deploys.lib import tailnet
from deploys.lib.settings import ROOT, load
from deploys.lib.tailnet import Member
from services import tailnet_metrics

PLATFORM = load(ROOT / "inventory" / "lab.py")
MEMBERS = [Member(host.name, host.groups, host.__getitem__) for host in PLATFORM.group("tailscale")]


def policy(*, pools: bool) -> Any:
    """The policy, read as JSON: without its comments and the commas that HuJSON lets stand."""
    text = re.sub(r"^\s*//.*$", "", tailnet.policy(MEMBERS, pools=pools), flags=re.MULTILINE)
    return json.loads(re.sub(r",(\s*[}\]])", r"\1", text))


def allowed(source: str, destination: str, port: int) -> bool:
    """Whether some rule lets a host of the lab reach the port of another."""
    tags = {member.name: set(tailnet.tags(member.name, member.groups)) for member in MEMBERS}
    wanted = {f"{tag}:{port}" for tag in tags[destination]}
    return any(tags[source] & set(rule["src"]) and wanted & set(rule["dst"]) for rule in policy(pools=False)["acls"])


@pytest.mark.parametrize(
    ("source", "destination", "port", "may"),
    [
        ("vps1", "vps2", 5432, True),
        ("vps2", "vps1", 8008, True),
        ("vps3", "vps1", 9100, True),
        ("vps1", "vps3", 9090, False),
        ("vps1", "vps2", 9100, False),
        ("vps1", "vps2", 22, False),
    ],
)
def test_a_host_reaches_what_its_groups_need_and_nothing_else(source: str, destination: str, port: int, may: bool) -> None:
    assert allowed(source, destination, port) is may


def test_an_operator_reaches_everything_and_gets_no_address_of_a_host() -> None:
    assert {"src": ["tag:phoenix-operator"], "dst": ["tag:phoenix-tailscale:*"], "action": "accept"} in policy(pools=False)["acls"]
    assert not any("operator" in target for attribute in policy(pools=True)["nodeAttrs"] for target in attribute["target"])


def test_every_tag_of_a_rule_has_an_owner() -> None:
    found = policy(pools=True)
    used = {source for rule in found["acls"] for source in rule["src"]}
    used |= {destination.rpartition(":")[0] for rule in found["acls"] for destination in rule["dst"]}
    used |= {tag for attribute in found["nodeAttrs"] for tag in attribute["target"]}
    assert used <= set(found["tagOwners"])


def test_the_vendors_policy_gives_every_host_its_declared_address() -> None:
    pools = {attribute["target"][0]: attribute["ipPool"] for attribute in policy(pools=True)["nodeAttrs"]}
    assert pools["tag:phoenix-host-vps2"] == ["100.66.0.12/32"]
    assert "nodeAttrs" not in policy(pools=False)


def state(node_key: str, *, other: str = "") -> bytes:
    profile = base64.b64encode(json.dumps({"Config": {"PrivateNodeKey": node_key}, "Name": other}).encode()).decode()
    return json.dumps({"_machinekey": "bQ==", "profile-1": profile, "_netmap": other}).encode()


def test_an_identity_is_its_keys_and_nothing_else_of_the_state() -> None:
    assert tailscale.keys(state("privkey:1", other="a")) == tailscale.keys(state("privkey:1", other="b"))
    assert tailscale.keys(state("privkey:1")) != tailscale.keys(state("privkey:2"))
    assert tailscale.keys(b"no JSON") == {}


PEER = {"HostName": "vps2", "Tags": ["tag:phoenix-host-vps2"], "Online": True, "Active": True, "Relay": "lab", "CurAddr": "192.0.2.2:41641"}
OWN = {"Online": True, "KeyExpiry": "2026-12-25T00:00:00Z"}


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ({}, "phoenix_tailscale_up 0"),
        ({"BackendState": "Running", "Self": OWN}, "phoenix_tailscale_up 1"),
        ({"BackendState": "Running", "Self": OWN}, "phoenix_tailscale_key_expiry_timestamp_seconds 1798156800"),
        ({"BackendState": "Running", "Self": {**OWN, "Online": False}}, "phoenix_tailscale_control_connected 0"),
        ({"BackendState": "NeedsLogin", "Self": OWN}, "phoenix_tailscale_control_connected 0"),
        ({"BackendState": "Running", "Self": OWN, "Peer": {"a": PEER}}, 'phoenix_tailscale_peer_up{peer="vps2"} 1'),
        ({"BackendState": "Running", "Self": OWN, "Peer": {"a": {**PEER, "Expired": True}}}, 'phoenix_tailscale_peer_up{peer="vps2"} 0'),
        ({"BackendState": "Running", "Self": OWN, "Peer": {"a": PEER}}, 'phoenix_tailscale_peer_relayed{peer="vps2"} 0'),
        ({"BackendState": "Running", "Self": OWN, "Peer": {"a": {**PEER, "CurAddr": ""}}}, 'phoenix_tailscale_peer_relayed{peer="vps2"} 1'),
    ],
)
def test_what_tailscale_says_becomes_metrics(status: dict[str, Any], line: str) -> None:
    text = tailnet_metrics.exposition(status, 5.0)
    assert line in text.splitlines()
    assert "phoenix_tailscale_checked_timestamp_seconds 5" in text.splitlines()


def test_a_client_that_went_home_is_no_fault() -> None:
    status = {"BackendState": "Running", "Self": OWN, "Peer": {"a": {**PEER, "Tags": ["tag:phoenix-client"], "Online": False}}}
    assert "peer_up" not in tailnet_metrics.exposition(status, 5.0)
