"""The firewall, asked from outside: what may be reached, what may not, and that other tables are left alone."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from testinfra.host import Host

from deploys.firewall import CONNECTIONS_PER_CLIENT
from deploys.lib.services import services
from deploys.lib.settings import HostSettings, Platform

ANSWER_S = 1.0
PATRONI = 8008


def reachable(address: str, port: int) -> bool:
    """Whether a TCP connection from here is accepted; dropped packets run into the time-out."""
    try:
        socket.create_connection((address, port), timeout=ANSWER_S).close()
    except OSError:
        return False
    return True


@pytest.fixture
def listener(vps1: Host) -> Iterator[int]:
    """A service that nobody declared, on a port of vps1."""
    port = 18080
    vps1.check_output(f"systemd-run --quiet --unit=phoenix-test-listener python3 -m http.server {port} --bind 0.0.0.0")
    vps1.check_output(f"for i in $(seq 50); do curl -s -o /dev/null 127.0.0.1:{port} && exit 0; sleep 0.1; done; exit 1")
    yield port
    vps1.run("systemctl stop phoenix-test-listener")


@pytest.mark.changes
def test_an_undeclared_service_cannot_be_reached(platform: Platform, listener: int) -> None:
    assert not reachable(platform.hosts["vps1"][HostSettings].address, listener)


def test_declared_services_can_be_reached(platform: Platform) -> None:
    declared = [service for service in services(platform) if service.port]
    assert declared
    assert [service.url for service in declared if not reachable(service.address, service.port)] == []


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
    allowed = {service.port for service in services(platform) if service.host == "vps1"} | {2380}  # etcd's members among themselves
    listening = vps1.check_output("ss -Hltn | awk '{print $4}'").splitlines()
    outside = {int(entry.rpartition(":")[2]) for entry in listening if not entry.startswith(("127.", "[::1]"))}
    assert outside <= allowed, f"also listening: {sorted(outside - allowed)}"


def hold(address: str, port: int, count: int) -> list[socket.socket]:
    """Up to `count` connections that say nothing; ends when two in a row are not accepted."""
    held: list[socket.socket] = []
    missed = 0
    while len(held) < count and missed < 2:
        try:
            held.append(socket.create_connection((address, port), timeout=ANSWER_S))
            missed = 0
        except OSError:
            missed += 1
    return held


@pytest.mark.parametrize("port", [PATRONI, 9187, 9188])
def test_one_peer_without_a_secret_cannot_fill_a_service(platform: Platform, vps1: Host, port: int) -> None:
    address = platform.hosts["vps1"][HostSettings].address
    held = hold(address, port, CONNECTIONS_PER_CLIENT + 10)
    try:
        # Patroni lets go of who says nothing, so that there the limit may never be reached.
        assert port == PATRONI or CONNECTIONS_PER_CLIENT // 2 < len(held) <= CONNECTIONS_PER_CLIENT
        # To others it still answers.
        own = "--cacert /etc/phoenix/tls/ca.crt --cert /etc/phoenix/tls/host.crt --key /etc/phoenix/tls/host.key"
        url = f"https://{address}:{port}/{'health' if port == PATRONI else 'metrics'}"
        assert vps1.check_output(f"curl -s -m 10 -o /dev/null -w '%{{http_code}}' {own} {url}") == "200"
    finally:
        for connection in held:
            connection.close()
