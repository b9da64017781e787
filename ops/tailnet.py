"""tailnet: the policy of the private network as the inventory has it, for whoever gives it to the control server."""

from __future__ import annotations

import argparse

from deploys.lib import tailnet
from ops import inventory
from ops.errors import DONE, Refused
from ops.terminal import Terminal


def arguments(verb: str, parser: argparse.ArgumentParser) -> None:
    """The verb takes none."""


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Print the policy."""
    platform = inventory.read(options.inventory)
    hosts = platform.group(tailnet.EVERY_HOST)
    if not hosts:
        raise Refused(f"{options.inventory.name} has no host in group tailscale: add one (docs/tailscale.md).")
    members = [tailnet.Member(host.name, host.groups, host.__getitem__) for host in hosts]
    text = tailnet.policy(members, pools=True)
    terminal.result({"policy": text, "tags": {member.name: tailnet.tags(member.name, member.groups) for member in members}})
    for line in text.splitlines():
        terminal.line(line)
    return DONE
