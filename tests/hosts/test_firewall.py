"""The firewall, asked from the other hosts: what may be reached, what may not, and that other tables are left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from testinfra.host import Host

from deploys.firewall import CONNECTIONS_PER_CLIENT
from deploys.lib.services import services
from deploys.lib.settings import HostSettings, Platform, PlatformHost
from tests.hosts.conftest import CURL

On = Callable[[str], Host]
ANSWER_S = 2
PATRONI = 8008


def reachable(host: Host, address: str, port: int) -> bool:
    """Whether a TCP connection from `host` is accepted; dropped packets run into the time-out."""
    return bool(host.run(f"timeout {ANSWER_S} bash -c '</dev/tcp/{address}/{port}'").rc == 0)


def all_reachable(host: Host, there: Iterable[tuple[str, int]]) -> set[tuple[str, int]]:
    """Those of the addresses and ports at which a TCP connection from `host` is accepted; all are tried at once."""
    tries = " ".join(
        f"{{ timeout {ANSWER_S} bash -c '</dev/tcp/{address}/{port}' 2>/dev/null && echo {address} {port}; }} &" for address, port in there
    )
    return {(line.split()[0], int(line.split()[1])) for line in host.check_output(f"{tries} wait").splitlines()}


def reached_by(on: On, hosts: Iterable[PlatformHost], there: Iterable[tuple[str, int]]) -> dict[str, set[tuple[str, int]]]:
    """Of each host, by its name, which of the addresses and ports accept it; what is closed costs all of them ANSWER_S together."""
    with ThreadPoolExecutor() as pool:
        return dict(pool.map(lambda host: (host.name, all_reachable(on(host.name), there)), hosts))


def others(platform: Platform, name: str) -> list[PlatformHost]:
    """The hosts that may come to the services of `name`."""
    return [host for host in platform.hosts.values() if host.name != name and "world" not in host.groups]


@pytest.fixture
def listener(vps1: Host) -> Iterator[int]:
    """A service that nobody declared, on a port of vps1."""
    port = 18080
    vps1.check_output(f"systemd-run --quiet --unit=phoenix-test-listener python3 -m http.server {port} --bind 0.0.0.0")
    vps1.check_output(f"for i in $(seq 50); do curl -s -o /dev/null 127.0.0.1:{port} && exit 0; sleep 0.1; done; exit 1")
    yield port
    vps1.run("systemctl stop phoenix-test-listener")


@pytest.mark.changes
def test_an_undeclared_service_cannot_be_reached(platform: Platform, on: On, listener: int) -> None:
    vps1 = platform.hosts["vps1"]
    addresses = {vps1[HostSettings].address, str(vps1.data["ssh_hostname"])}
    assert not any(reachable(on(other.name), address, listener) for other in others(platform, "vps1") for address in addresses)


def test_declared_services_can_be_reached(platform: Platform, on: On) -> None:
    """Each by some host: which ones may come is the tailnet's policy, and only the watcher itself may ask what runs beside it. SSH is for
    the operators, whom this very test is one of."""
    declared = {(service.address, service.port): service.host for service in services(platform) if service.port and service.name != "ssh"}
    assert declared
    ours = [host for host in platform.hosts.values() if "world" not in host.groups]
    reached = reached_by(on, ours, declared)
    inside = {there for there in declared if there[0] in {host[HostSettings].address for host in ours}}
    assert set(declared) - set().union(*reached.values()) == set()
    # Most of them by another host: what a host reaches only on itself would not have crossed any firewall.
    assert (
        len({there for there in inside if any(there in found for name, found in reached.items() if name != declared[there])})
        > len(inside) / 2
    )


@pytest.mark.changes
def test_the_table_of_another_survives_a_reload(vps1: Host) -> None:
    vps1.check_output("nft add table inet somebody_else")
    try:
        vps1.check_output("systemctl restart phoenix-firewall")
        assert "table inet somebody_else" in vps1.check_output("nft list tables")
        assert "table inet phoenix" in vps1.check_output("nft list tables")
    finally:
        vps1.run("nft delete table inet somebody_else")


def test_nothing_listens_beyond_what_is_declared(vps1: Host, platform: Platform) -> None:
    allowed = {service.port for service in services(platform) if service.host == "vps1"} | {
        2380,
        9094,
    }  # members of etcd and Kafka among themselves
    # tailscaled listens for its like at the tailnet address, on a port of its own choice that the firewall does not open.
    listening = vps1.check_output("ss -Hltnp | grep -v tailscaled | awk '{print $4}'").splitlines()
    outside = {int(entry.rpartition(":")[2]) for entry in listening if not entry.startswith(("127.", "[::1]", "[::ffff:127."))}
    assert outside <= allowed, f"also listening: {sorted(outside - allowed)}"


HOLD = """
import socket, sys, time
held, missed = [], 0
while len(held) < int(sys.argv[3]) and missed < 2:
    try:
        held.append(socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1))
        missed = 0
    except OSError:
        missed += 1
print(len(held), flush=True)
time.sleep(30)
"""
"""Holds connections that say nothing, up to a count; ends when two in a row are not accepted."""


def test_one_peer_without_a_secret_cannot_fill_a_service(platform: Platform, on: On, vps1: Host) -> None:
    address, ports = platform.hosts["vps1"][HostSettings].address, (PATRONI, 9187, 9188)
    let_in = reached_by(on, others(platform, "vps1"), [(address, port) for port in ports])
    holders = {port: on(next(name for name, reached in let_in.items() if (address, port) in reached)) for port in ports}
    for port, peer in holders.items():
        unit = f"--unit=phoenix-test-hold-{port}"
        peer.check_output(f"systemd-run --quiet --collect {unit} python3 -c %s {address} {port} {CONNECTIONS_PER_CLIENT + 10}", HOLD)
    try:
        for port, peer in holders.items():
            said = f"journalctl -o cat -u phoenix-test-hold-{port} -n 1 | grep -x '[0-9]*'"
            held = int(peer.check_output(f"for i in $(seq 100); do {said} && exit 0; sleep 0.2; done"))
            # Patroni lets go of who says nothing, so that there the limit may never be reached.
            assert port == PATRONI or CONNECTIONS_PER_CLIENT // 2 < held <= CONNECTIONS_PER_CLIENT
            # To others it still answers.
            url = f"https://{address}:{port}/{'health' if port == PATRONI else 'metrics'}"
            assert vps1.check_output(f"{CURL} -o /dev/null -w '%{{http_code}}' {url}") == "200"
    finally:
        for port, peer in holders.items():
            peer.run(f"systemctl stop phoenix-test-hold-{port}")
