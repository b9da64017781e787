"""The present host and its peers, seen from a deploy."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path

from pyinfra import host, inventory
from pyinfra.api import Host
from pyinfra.api.exceptions import NoGroupError

from deploys.lib.facts import HostFacts, Resources
from deploys.lib.secrets import SecretStore
from deploys.lib.settings import ROOT, HostSettings, S, of


def settings(model: type[S]) -> S:
    """Checked settings of the present host."""
    return of(host, model)


def members(group: str) -> list[Host]:
    """Hosts of a group, sorted by name; none when the inventory has no such group."""
    try:
        return sorted(inventory.get_group(group), key=lambda member: str(member.name))
    except NoGroupError:
        return []


def address(member: Host) -> str:
    """The address at which the other hosts reach `member`."""
    return of(member, HostSettings).address


def resources() -> HostFacts:
    """What the present host has to offer, asked once in a run: services are sized by it again and again."""
    return _resources(inventory.get_host(str(host.name)))


def secrets() -> SecretStore:
    """The inventory's secrets."""
    return _load(ROOT / settings(HostSettings).secrets_file)


def secret(name: str) -> Callable[[], str]:
    """Content of a file, or value of a template, that is the secret `name`: read when the operation runs, and only then."""
    return lambda: secrets().get(name)


@cache
def _resources(member: Host) -> HostFacts:
    found: HostFacts = member.get_fact(Resources)
    return found


@lru_cache
def _load(path: Path) -> SecretStore:
    return SecretStore.load(path)
