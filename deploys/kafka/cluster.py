"""The cluster that the inventory describes: its members, their numbers, and how many copies of everything there are."""

from __future__ import annotations

import re
import zlib

from pyinfra.api import Host

from deploys.lib import hosts
from deploys.lib.settings import KafkaSettings, SettingsError, of

MAX_COPIES = 3


def members() -> list[Host]:
    """Hosts of group kafka, sorted by name. The first begins the cluster, and is the one through which its content is managed."""
    return hosts.members("kafka")


def node_id(name: str, chosen: int | None) -> int:
    """The number of a host called `name`: the chosen one, the one that the name ends with (vps2: 2), or one made of the name.

    It is written on the node's disk and must outlive changes of the address and of the inventory's order.
    """
    if chosen is not None:
        return chosen
    if number := re.search(r"[1-9]\d{0,3}$", name):
        return int(number[0])
    return 10_000 + zlib.crc32(name.encode()) % 1_000_000


def node_ids() -> dict[str, int]:
    """The number of each member by its name. Raises SettingsError when two have the same."""
    found: dict[str, int] = {}
    for member in members():
        number = node_id(str(member.name), of(member, KafkaSettings).node_id)
        if number in found.values():
            raise SettingsError(f"host {member.name}: two hosts of group kafka would have node number {number}: set kafka_node_id for one.")
        found[str(member.name)] = number
    return found


def copies(brokers: int) -> int:
    """Replicas of each partition in a cluster of so many brokers."""
    return min(MAX_COPIES, brokers)


def in_sync(brokers: int) -> int:
    """Replicas that have to have a record before it counts as written: one may be away where there are three."""
    return max(1, copies(brokers) - 1)


def bootstrap() -> str:
    """Where clients find the cluster: `address:port` of every member, with commas."""
    return ",".join(f"{hosts.address(member)}:{of(member, KafkaSettings).client_port}" for member in members())


def controllers() -> str:
    """Where brokers and new members find the controllers."""
    return ",".join(f"{hosts.address(member)}:{of(member, KafkaSettings).controller_port}" for member in members())
