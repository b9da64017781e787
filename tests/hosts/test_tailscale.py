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
EXPORTER = 9100
"""A port that the policy opens to the watchers and to nobody else."""
CLIENT = """
import http.client, ssl, time
context = ssl.create_default_context(cafile="/etc/phoenix/tls/ca.crt")
context.load_cert_chain("/etc/phoenix/tls/host.crt", "/etc/phoenix/tls/host.key")
there = http.client.HTTPSConnection("{address}", {port}, timeout=30, context=context)
there.connect()
one = there.sock
for _ in range(20):
    there.request("GET", "/")
    there.getresponse().read()
    print("asked", flush=True)
    time.sleep(0.5)
print("all asked, over one connection" if there.sock is one else "it had to connect again", flush=True)
"""


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
    """Something on the last host, at a port that its firewall opens to the tailnet and no rule of the policy names."""
    host = on(members[-1].name)
    to = address(members[-1])
    host.check_output(f"nft insert rule inet phoenix input iifname tailscale0 tcp dport {PORT} accept")
    host.check_output(f"systemd-run --quiet --collect --unit=phoenix-test-tailnet-{PORT} python3 -m http.server {PORT} --bind {to}")
    host.check_output(f"for i in $(seq 50); do curl -s -o /dev/null {to}:{PORT} && exit 0; sleep 0.1; done; exit 1")
    yield to
    host.run(f"systemctl stop phoenix-test-tailnet-{PORT}; systemctl restart phoenix-firewall")


@pytest.mark.changes
def test_the_policy_lets_through_what_it_names_and_nothing_else(members: list[PlatformHost], on: On, listener: str) -> None:
    exporter = address(members[0])
    watchers = {member.name for member in members if "monitoring" in member.groups}
    for member in members[1:]:
        assert connects(on(member.name), exporter, EXPORTER) == (member.name in watchers), f"from {member.name}"
    assert not connects(on(members[0].name), listener, PORT), "no rule names this port, though the firewall lets it pass"


def test_an_address_of_the_tailnet_is_believed_on_its_interface_only(members: list[PlatformHost], on: On) -> None:
    rules = on(members[0].name).check_output("nft list chain inet phoenix input")
    assert 'iifname != "tailscale0" ip saddr 100.64.0.0/10' in rules
    # tailscaled's own chains are beside ours.
    assert "ts-input" in on(members[0].name).check_output("nft list tables; nft list ruleset")


def test_the_store_has_every_identity(members: list[PlatformHost], secrets: SecretStore) -> None:
    assert {f"tailscale/{member.name}-identity" for member in members} <= set(secrets.names())


@pytest.mark.changes
def test_a_restart_of_tailscaled_breaks_no_connection(members: list[PlatformHost], on: On) -> None:
    watcher = next(member for member in members if "monitoring" in member.groups)
    host = on(watcher.name)
    # A client that says something every half a second, over one connection.
    program = CLIENT.format(address=address(members[0]), port=EXPORTER)
    host.check_output("systemd-run --quiet --collect --unit=phoenix-test-client python3 -c %s", program)
    wait(lambda: "asked" in host.check_output("journalctl -o cat -u phoenix-test-client -n 5").splitlines(), seconds=20)
    host.check_output("systemctl restart tailscaled")
    wait(lambda: host.run("systemctl is-active phoenix-test-client").stdout.strip() != "active", seconds=60)
    said = host.check_output("journalctl -o cat -u phoenix-test-client -n 5")
    assert "all asked, over one connection" in said
    assert address(watcher) in host.check_output("ip -4 -o address show dev lo")
    wait(lambda: status(host)["Self"]["Online"], seconds=60)
    assert "log.tailscale.com" not in host.check_output("journalctl -o cat -u tailscaled --since -60s"), "it tells nobody else of itself"


@pytest.mark.changes
def test_without_the_control_server_the_hosts_go_on(members: list[PlatformHost], on: On, world: Host) -> None:
    host, other = on(members[0].name), members[-1]
    for one in (host, on(other.name)):
        wait(lambda one=one: status(one)["Self"]["Online"], seconds=60)
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
    wait(lambda: status(host)["Self"]["Online"], seconds=60)
    before = status(host)["Self"]
    host.check_output("systemctl stop tailscaled && rm -rf /var/lib/tailscale/*")
    done = phoenix("deploy", "--json", member.name)
    assert done.returncode == 0, done.stderr
    after = status(host)["Self"]
    assert (after["ID"], after["PublicKey"], after["TailscaleIPs"]) == (before["ID"], before["PublicKey"], before["TailscaleIPs"])


def test_no_service_answers_at_the_underlay_address(members: list[PlatformHost], platform: Platform, on: On, world: Host) -> None:
    """Where services are for the tailnet alone."""
    if any(network != tailnet.NETWORK for member in members for network in member[HostSettings].service_networks):
        pytest.skip("services are open to another network as well")
    tries = []
    for member in members:
        listening = on(member.name).check_output("ss -Hltn | awk '{print $4}' | sed 's/.*://' | sort -un").split()
        assert len(listening) > 6
        tries += [f"{member.data['ssh_hostname']}/{port}" for port in listening if port != "22"]
    # All at once: what is closed costs the whole time-out.
    each = "timeout 3 bash -c '</dev/tcp/'$there 2>/dev/null && echo $there"
    assert world.check_output(f"for there in {' '.join(tries)}; do {{ {each}; }} & done; wait") == ""
