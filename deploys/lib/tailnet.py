"""Who may reach what in the tailnet: tags from the groups, rules from one table. Pure functions; `phoenix tailnet` prints what they give.

A host has a tag for each of its groups (`tag:phoenix-postgresql`) and one of its own (`tag:phoenix-host-vps1`), which gives it its address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from deploys.lib import streams
from deploys.lib.rendering import TEMPLATES, environment
from deploys.lib.settings import SERVICES, HostSettings, ServiceSettings, StreamSettings, TailscaleSettings

S = TypeVar("S", bound=ServiceSettings)

NETWORK = "100.64.0.0/10"
"""Addresses of tailnets, the vendor's and headscale's alike."""
EVERY_HOST = "tailscale"
"""The group that every host of the tailnet is in."""
CLIENTS = "clients"
"""Stands for `tailscale_clients` among those who may come."""


@dataclass(frozen=True)
class Flow:
    """The hosts of the groups `by` may reach `ports` (settings `<service>_<port>`) of the hosts of group `to`.

    A service or group that an inventory has no host for is no rule.
    """

    to: str
    ports: tuple[tuple[str, str], ...]
    by: tuple[str, ...]


_CHANGES = ("connect", "stream", "redis", "neo4j", "n8n")
FLOWS = (
    Flow("etcd", (("etcd", "client_port"),), ("etcd", "postgresql", "monitoring")),
    Flow("etcd", (("etcd", "peer_port"),), ("etcd",)),
    Flow("postgresql", (("postgresql", "port"),), ("postgresql", "gateway", "drill", *_CHANGES)),
    Flow("postgresql", (("postgresql", "patroni_port"),), ("postgresql", "gateway", "drill", "backup", "monitoring", *_CHANGES)),
    Flow("postgresql", (("exporter", "postgres_port"), ("exporter", "port")), ("monitoring",)),
    Flow("backup", (("backup", "tls_port"),), ("backup",)),
    Flow("gateway", (("gateway", "port"),), (CLIENTS, "postgresql", *_CHANGES)),
    Flow("gateway", (("gateway", "metrics_port"), ("gateway", "exporter_port")), ("monitoring",)),
    Flow("monitoring", (("monitoring", "prometheus_port"), ("monitoring", "alertmanager_port")), ("monitoring",)),
    Flow(EVERY_HOST, (("exporter", "node_port"),), ("monitoring",)),
    Flow("kafka", (("kafka", "client_port"),), (CLIENTS, "kafka", "connect", "stream")),
    Flow("kafka", (("kafka", "controller_port"),), ("kafka",)),
    Flow("kafka", (("kafka", "metrics_port"),), ("monitoring",)),
    Flow("connect", (("connect", "metrics_port"),), ("monitoring",)),
    Flow("stream", (("stream", "metrics_port"),), ("monitoring",)),
    Flow("redis", (("redis", "port"),), (CLIENTS, "stream")),
    Flow("redis", (("redis", "exporter_port"),), ("monitoring",)),
    Flow("neo4j", (("neo4j", "port"),), (CLIENTS, "stream")),
    Flow("n8n", (("n8n", "port"),), (CLIENTS, "monitoring")),
)


@dataclass(frozen=True)
class Member:
    """One host of the tailnet: its groups, and how its settings are had."""

    name: str
    groups: frozenset[str]
    settings: Callable[[type[ServiceSettings]], ServiceSettings]


def tag(group: str) -> str:
    """The tag of a group."""
    return f"tag:phoenix-{group}"


def tags(name: str, groups: Iterable[str]) -> list[str]:
    """The tags of a host, sorted."""
    return sorted({tag(group) for group in groups if group in SERVICES} | {tag(f"host-{name}")})


def address(settings: Callable[[type[ServiceSettings]], ServiceSettings]) -> str:
    """The address that a host has to have in the tailnet: the one at which the others reach it."""
    host = settings(HostSettings)
    assert isinstance(host, HostSettings)  # noqa: S101 - for the type checker
    return host.address


def rules(members: Sequence[Member]) -> list[tuple[list[str], list[str]]]:
    """Source and destination of every rule, in the policy's words: (["tag:phoenix-etcd"], ["tag:phoenix-etcd:2380"])."""
    found = []
    for flow in FLOWS:
        there = [member for member in members if flow.to in member.groups]
        by = _by(flow, members)
        ports = {port for member in there for service, name in flow.ports for port in _ports(member.settings(SERVICES[service]), name)}
        if ports and by:
            found.append((by, [f"{tag(flow.to)}:{port}" for port in sorted(ports)]))
    return found


def _ports(settings: ServiceSettings, name: str) -> set[int]:
    """The port of that name; of the stream workers, each has one of its own."""
    return set(streams.ports(settings).values()) if isinstance(settings, StreamSettings) else {getattr(settings, name)}


def _by(flow: Flow, members: Sequence[Member]) -> list[str]:
    found = [tag(group) for group in flow.by if any(group in member.groups for member in members)]
    return sorted(set(found) | set(_shared(members).clients if CLIENTS in flow.by else []))


def _shared(members: Sequence[Member]) -> TailscaleSettings:
    """What the whole tailnet has in common is read from its first host."""
    first = members[0].settings(TailscaleSettings)
    assert isinstance(first, TailscaleSettings)  # noqa: S101 - for the type checker
    return first


def policy(members: Sequence[Member], *, pools: bool) -> str:
    """The policy file of the tailnet (HuJSON). With `pools` it also gives every host its address, as the vendor's policy can."""
    shared = _shared(members)
    outsiders = [one for one in (*shared.clients, *shared.operators) if one.startswith("tag:")]
    return (
        environment(TEMPLATES)
        .get_template("tailscale/policy.hujson.j2")
        .render(
            tags=sorted({one for member in members for one in tags(member.name, member.groups)} | set(outsiders)),
            rules=rules(members),
            operators=shared.operators,
            every_host=tag(EVERY_HOST),
            pools={tag(f"host-{member.name}"): address(member.settings) for member in members} if pools else {},
        )
    )
