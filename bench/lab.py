"""How the benches of the whole platform begin: the cluster of an inventory, and the ways into it from this computer."""

from __future__ import annotations

import argparse
from pathlib import Path

from ops import inventory
from ops.errors import Refused
from tests.drills.cluster import Cluster, Ways


def reach(parser: argparse.ArgumentParser, described: Path, scratch: Path, entrance: str | None = None) -> tuple[Cluster, list[str]]:
    """The cluster of the inventory `described`, and a connection string for each way in by `entrance` (Ways.through). `scratch` is a
    private directory. Where there is no such way the program ends, with the reason in a sentence."""
    try:
        cluster = Cluster.of(inventory.made(described.resolve()))
        return cluster, Ways(cluster, scratch).through(entrance)
    except Refused as error:
        parser.exit(Refused.exit_code, f"{error}\n")
