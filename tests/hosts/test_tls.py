"""TLS: who has no certificate of ours gets no answer, and certificates renew by a deploy."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from testinfra.host import Host

from deploys.lib.pki import HOST_DAYS, Authority
from deploys.lib.secrets import SecretStore
from deploys.lib.services import Service, services
from deploys.lib.settings import HostSettings, Platform, RedisSettings
from tests.hosts.conftest import CA, CERTIFICATE, KEY

OPEN = ("patroni", "headscale", "n8n", "upstreams")
"""What answers to anybody who may reach it: who leads, the control server of the tailnet, which hosts ask before they have a certificate,
n8n's pages for people, and the APIs of others, which want keys."""


def guarded(platform: Platform) -> list[Service]:
    """Everything that answers only to a certificate of ours. Patroni tells anybody who leads; its own test says more."""
    return [service for service in services(platform) if service.scheme == "https" and service.name not in OPEN]


def test_without_a_client_certificate_there_is_no_answer(platform: Platform, on: Callable[[str], Host]) -> None:
    """Asked on the service's own host, where neither firewall nor tailnet stand in between."""
    assert len(guarded(platform)) >= 6
    for service in guarded(platform):
        answer = on(service.host).run(f"curl -s --max-time 5 --cacert {CA} https://{service.address}:{service.port}/metrics")
        assert answer.rc != 0, service.url
        assert answer.stdout == "", service.url


def test_patroni_tells_anybody_who_leads_but_obeys_only_certificates(platform: Platform, leader: Callable[[], Host]) -> None:
    host = leader()
    url = f"https://{platform.hosts[host.check_output('hostname')][HostSettings].address}:8008"
    curl = f"curl -s -o /dev/null -w '%{{http_code}}' --max-time 5 --cacert {CA}"
    assert host.run(f"{curl} {url}/primary").stdout == "200"
    assert host.run(f"{curl} -X POST -d '{{}}' {url}/restart").stdout in ("000", "403")


def test_certificate_is_of_our_authority_and_for_this_host(on: Callable[[str], Host], platform: Platform) -> None:
    for service in [*guarded(platform), *(one for one in services(platform) if one.name == "patroni")]:
        seen = on(service.host).run(
            f"cd /etc/phoenix/tls && openssl s_client -connect {service.address}:{service.port} -verify_ip {service.address} "
            "-CAfile ca.crt -cert host.crt -key host.key -verify_return_error -brief </dev/null 2>&1"
        )
        assert "Verification: OK" in seen.stdout, service.url


def test_key_is_readable_for_root_and_its_group_only(vps1: Host) -> None:
    key = vps1.file("/etc/phoenix/tls/host.key")
    assert (key.user, key.group, key.mode) == ("root", "phoenix-tls", 0o640)


@pytest.mark.changes
def test_an_old_certificate_is_renewed_and_taken_over(
    vps1: Host, platform: Platform, secrets: SecretStore, phoenix: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """As on the 61st of its 90 days: a deploy replaces it, PostgreSQL and Redis serve the new one without a restart."""
    member = platform.hosts["vps1"]
    address = member[HostSettings].address
    request = vps1.check_output("openssl req -new -key /etc/phoenix/tls/host.key -subj /CN=vps1")
    names = ["vps1", address, "localhost", "127.0.0.1"]
    old = Authority.of(secrets).sign(request, name="vps1", alternatives=names, days=HOST_DAYS - 61)
    vps1.check_output("printf '%%s' %s >/etc/phoenix/tls/host.crt", old)
    servers = {"postgresql": "-starttls postgres -connect 127.0.0.1:5432"}
    if "redis" in member.groups:
        servers["redis"] = f"-connect {address}:{member[RedisSettings].port}"
    running = (
        "runuser -u postgres -- psql -XAtqc 'SELECT pg_postmaster_start_time()'; systemctl show -P MainPID redis-server.service 2>/dev/null"
    )
    before = vps1.check_output(running)

    deployed = phoenix("deploy", "vps1")

    assert deployed.returncode == 0, deployed.stderr
    for name, where in servers.items():
        served = f"openssl s_client {where} -cert {CERTIFICATE} -key {KEY} </dev/null 2>/dev/null"
        still = f"{served} | openssl x509 -noout -checkend {(HOST_DAYS - 2) * 86400} && echo good"
        assert "good" in vps1.check_output(still), name
    assert vps1.check_output(running) == before
