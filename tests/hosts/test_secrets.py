"""Where the platform's secrets lie: every host is searched once for all of them, in its files, its journal and its processes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from deploys.lib.secrets import SecretStore
from deploys.lib.settings import Platform
from tests.hosts.conftest import Tell

PUBLIC = {"tls/ca.crt", "kafka/cluster-id"}
SHORTEST = 16
"""Characters; what is shorter is no secret but its number, and would be found everywhere."""

GROUPS: Mapping[str, frozenset[str]] = {
    secret: frozenset(groups.split())
    for secret, groups in {
        "backup/cipher": "backup drill",
        "backup/retention-key": "drill world",
        "backup/retention-secret": "drill world",
        "backup/s3-key": "backup world",
        "backup/s3-secret": "backup world",
        "kafka/admin": "kafka",
        "kafka/agent": "kafka",
        "kafka/broker": "kafka",
        "kafka/connect": "kafka connect",
        "kafka/monitor": "kafka",
        "kafka/worker": "kafka stream",
        "n8n/encryption-key": "n8n",
        "n8n/enrichment-key": "n8n world",
        "n8n/hubspot-token": "n8n world",
        "n8n/owner-password-hash": "n8n",
        "neo4j/neo4j": "neo4j stream",
        "postgresql/architect": "postgresql",
        "postgresql/connect": "connect",
        "postgresql/drill": "drill",
        "postgresql/graph": "neo4j",
        "postgresql/monitor": "postgresql redis",
        "postgresql/n8n": "n8n",
        "postgresql/n8n_flows": "n8n",
        "postgresql/pgbouncer": "gateway",
        "postgresql/replicator": "postgresql",
        "postgresql/rewind": "postgresql",
        "postgresql/stream": "stream",
        "postgresql/subscriber": "region2",
        "redis/admin": "redis",
        "redis/monitor": "redis",
        "redis/worker": "redis stream",
        "world/s3-root-key": "world",
        "world/s3-root-secret": "world",
    }.items()
}
"""The groups on whose hosts a secret may lie. One that is not named lies on no host, like the authority's key and all passwords of
clients."""

SEARCH = r"""
umask 077; wanted=$(mktemp); trap 'rm -f "$wanted"' EXIT; cat >"$wanted"; export LC_ALL=C
grep -roFf "$wanted" --exclude="${wanted##*/}" %s /etc /opt /usr/local /root /home /run /srv /var/lib /var/log /tmp 2>/dev/null
journalctl -q --no-pager -o cat | grep -oFf "$wanted" | sort -u | sed 's/^/the journal:/'
cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\0' '\n' | grep -oFf "$wanted" | sort -u | sed 's/^/a process:/'
true
"""
DATA = ("node_modules", ".cache", "postgresql", "etcd", "phoenix-classes", "apt", "dpkg", "journal")
"""Names of folders that are not searched: what packages brought, and what servers keep in forms of their own."""

Lying = Mapping[str, Mapping[str, set[str]]]


def needle(value: str) -> str:
    """What is searched for: the last line of a value that is no label of its encoding, which no two keys share."""
    return [line.strip() for line in value.splitlines() if line.strip() and not line.startswith("-----")][-1]


@pytest.fixture(scope="module")
def lying(tell: Tell, platform: Platform, secrets: SecretStore) -> Lying:
    """The secrets found in each place of each host: a file's path, `the journal`, or `a process`, by its arguments or its environment."""
    needles = {needle(secrets.get(name)): name for name in secrets.names() if name not in PUBLIC}
    needles = {value: name for value, name in needles.items() if len(value) >= SHORTEST}
    script = SEARCH % " ".join(f"--exclude-dir={name}" for name in DATA)

    def search(host: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        for line in tell(host, script, "".join(f"{value}\n" for value in needles)).stdout.splitlines():
            place, _, value = line.partition(":")
            found[place].add(needles[value])
        return found

    with ThreadPoolExecutor() as pool:
        return dict(zip(platform.hosts, pool.map(search, platform.hosts), strict=True))


def test_a_secret_lies_only_on_hosts_that_need_it(lying: Lying, platform: Platform) -> None:
    """A gateway, for example, has the look-up's password and no client's, and who makes backups may not delete them."""
    astray = [
        f"{secret} on {host}: {place}"
        for host, places in lying.items()
        for place, found in places.items()
        for secret in found
        if not GROUPS.get(secret, frozenset()) & platform.hosts[host].groups
    ]
    assert astray == []


def test_the_search_finds_what_is_there(lying: Lying, platform: Platform) -> None:
    found = {(host, secret) for host, places in lying.items() for here in places.values() for secret in here}
    for secret in ("postgresql/monitor", "kafka/worker", "n8n/encryption-key", "backup/retention-secret"):
        hosts = {name for name, host in platform.hosts.items() if GROUPS[secret] & host.groups}
        assert {host for host, one in found if one == secret} == hosts, secret


def test_a_file_with_a_secret_is_for_its_reader_alone(lying: Lying, tell: Tell) -> None:
    for host, places in lying.items():
        paths = [place for place in places if place.startswith("/")]
        open_to_all = tell(host, "xargs -d '\\n' -I{} find {} -perm /007", "".join(f"{path}\n" for path in paths)).stdout.split()
        assert open_to_all == [], f"{host}: everybody reads {open_to_all}"


def test_no_secret_is_in_a_journal_an_argument_or_an_environment(lying: Lying, platform: Platform) -> None:
    """Of the platform: services that are somebody else's take their own as they do."""
    ours = {host: places for host, places in lying.items() if "world" not in platform.hosts[host].groups}
    assert {host: places[where] for host, places in ours.items() for where in ("the journal", "a process") if where in places} == {}
