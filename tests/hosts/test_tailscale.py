"""The tailnet, asked from its members: addresses, what the policy allows and denies, what is closed, and what a fault costs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from testinfra.host import Host

from deploys.lib import tailnet
from deploys.lib.secrets import SecretStore
from deploys.lib.settings import HostSettings, Platform, PlatformHost

On = Callable[[str], Host]
PORT = 18081


def address(member: PlatformHost) -> str:
    """The declared one."""
    return tailnet.address(member.__getitem__)


def connects(host: Host, to: str, port: int) -> bool:
    """Whether a TCP connection is made within three seconds; what is dropped runs into the time-out."""
    return bool(host.run(f"timeout 3 bash -c '</dev/tcp/{to}/{port}'").rc == 0)


def wait(condition: Callable[[], object], *, seconds: float) -> float:
    """Seconds until the condition is true."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not so within {seconds} s"
        time.sleep(0.5)
    return time.monotonic() - began


@pytest.fixture(scope="module")
def members(platform: Platform) -> list[PlatformHost]:
    found = platform.group("tailscale")
    if not found:
        pytest.skip("no host is in a tailnet")
    return found


def status(host: Host) -> Any:
    """What tailscale says."""
    return json.loads(host.check_output("tailscale status --json"))


def test_every_host_has_its_declared_address_and_its_tags(members: list[PlatformHost], on: On) -> None:
    for member in members:
        own = status(on(member.name))["Self"]
        assert own["TailscaleIPs"][0] == address(member)
        assert sorted(own["Tags"]) == tailnet.tags(member.name, member.groups)
        assert "KeyExpiry" not in own


def test_the_hosts_reach_each_other_directly(members: list[PlatformHost], on: On) -> None:
    for member in members[1:]:
        assert "via DERP" not in on(members[0].name).check_output(f"tailscale ping --c 5 {address(member)} | tail -1")


def test_names_are_resolved_as_before(members: list[PlatformHost], on: On) -> None:
    assert "100.100.100.100" not in on(members[0].name).file("/etc/resolv.conf").content_string


def test_no_key_and_no_state_lies_about(members: list[PlatformHost], on: On) -> None:
    for member in members:
        host = on(member.name)
        assert not host.file("/run/phoenix-tailscale.key").exists
        assert host.file("/var/lib/tailscale/tailscaled.state").mode == 0o600
        assert "tskey" not in host.check_output("journalctl -u tailscaled --no-pager | grep -i 'auth-\\?key\\|tskey' || true")


def test_tailscaled_has_no_rights_but_the_networks(members: list[PlatformHost], on: On) -> None:
    host = on(members[0].name)
    pid = host.check_output("systemctl show -p MainPID --value tailscaled")
    assert host.check_output(f"stat -c %U /proc/{pid}") == "phoenix-tailscale"
    assert host.check_output(f"awk '/^CapBnd/ {{print $2}}' /proc/{pid}/status") == "0000000000003000"


@pytest.fixture
def listener(members: list[PlatformHost], on: On) -> Iterator[str]:
    """Something on the last host that listens on every address, at a port that its firewall opens to the tailnet and no rule names."""
    host = on(members[-1].name)
    host.check_output(f"systemd-run --quiet --unit=phoenix-test-tailnet python3 -m http.server {PORT} --bind 0.0.0.0")
    rule = f"nft insert rule inet phoenix input iifname tailscale0 tcp dport {PORT} accept"
    host.check_output(rule)
    host.check_output(f"for i in $(seq 50); do curl -s -o /dev/null 127.0.0.1:{PORT} && exit 0; sleep 0.1; done; exit 1")
    yield address(members[-1])
    host.run("systemctl stop phoenix-test-tailnet; systemctl restart phoenix-firewall")


@pytest.mark.changes
def test_the_policy_lets_through_what_it_names_and_nothing_else(members: list[PlatformHost], on: On, listener: str) -> None:
    watcher = next(member for member in members if member is not members[0])
    node = 9100
    source = on(members[0].name)
    if "monitoring" not in members[0].groups:
        assert not connects(source, address(watcher), node), "only the watchers may ask an exporter"
    assert not connects(source, listener, PORT), "no rule names this port, though the firewall lets it pass"


def test_monitoring_reaches_the_exporters(members: list[PlatformHost], on: On) -> None:
    watchers = [member for member in members if "monitoring" in member.groups]
    for watcher in watchers:
        assert all(connects(on(watcher.name), address(member), 9100) for member in members if member is not watcher)


def test_an_address_of_the_tailnet_is_believed_on_its_interface_only(members: list[PlatformHost], on: On) -> None:
    rules = on(members[0].name).check_output("nft list chain inet phoenix input")
    assert 'iifname != "tailscale0" ip saddr 100.64.0.0/10' in rules
    # tailscaled's own chains are beside ours.
    assert "ts-input" in on(members[0].name).check_output("nft list tables; nft list ruleset")


def test_the_store_has_every_identity(members: list[PlatformHost], secrets: SecretStore) -> None:
    assert {f"tailscale/{member.name}-identity" for member in members} <= set(secrets.names())


@pytest.mark.changes
def test_a_restart_of_tailscaled_breaks_no_connection(members: list[PlatformHost], on: On) -> None:
    one, other = members[0], members[-1]
    ssh = "tcp_established"
    host = on(one.name)
    host.check_output("systemctl restart tailscaled")
    took = wait(lambda: host.run(f"tailscale ping --c 1 --timeout 1s {address(other)}").rc == 0, seconds=20)
    assert took < 20, ssh
    assert address(one) in host.check_output("ip -4 -o address show dev lo")


@pytest.mark.changes
def test_without_the_control_server_the_hosts_go_on(members: list[PlatformHost], on: On, world: Host) -> None:
    host, other = on(members[0].name), members[-1]
    world.check_output("systemctl stop phoenix-headscale")
    try:
        time.sleep(3)
        assert host.run(f"tailscale ping --c 3 {address(other)}").rc == 0
        wait(lambda: not status(host)["Self"]["Online"], seconds=30)
        text = "/var/lib/prometheus/node-exporter/phoenix-tailnet.prom"
        wait(lambda: "phoenix_tailscale_control_connected 0" in host.file(text).content_string, seconds=30)
    finally:
        world.check_output("systemctl start phoenix-headscale")
    wait(lambda: status(host)["Self"]["Online"], seconds=60)


@pytest.mark.changes
@pytest.mark.slow
def test_a_bare_host_is_who_it_was(members: list[PlatformHost], on: On, phoenix: Callable[..., Any]) -> None:
    """State gone and tailscaled stopped, as on a new machine: the deploy brings it back with no new key, at its address."""
    member = members[-1]
    host = on(member.name)
    before = status(host)["Self"]
    host.check_output("systemctl stop tailscaled && rm -rf /var/lib/tailscale/*")
    done = phoenix("deploy", "--json", member.name)
    assert done.returncode == 0, done.stderr
    after = status(host)["Self"]
    assert (after["ID"], after["PublicKey"], after["TailscaleIPs"]) == (before["ID"], before["PublicKey"], before["TailscaleIPs"])


def test_no_service_answers_at_the_underlay_address(members: list[PlatformHost], platform: Platform, on: On, world: Host) -> None:
    """Where services are for the tailnet alone."""
    for member in members:
        underlay = str(member.data["ssh_hostname"])
        if any(network != tailnet.NETWORK for network in member[HostSettings].service_networks):
            pytest.skip("services are open to another network as well")
        listening = on(member.name).check_output("ss -Hltn | awk '{print $4}' | sed 's/.*://' | sort -un").split()
        reached = [port for port in listening if port != "22" and connects(world, underlay, int(port))]
        assert reached == [], f"{member.name} answers {underlay} on {reached}"
