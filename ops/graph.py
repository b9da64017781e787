"""graph: the knowledge graph in Neo4j made equal to PostgreSQL, or compared with it, while both go on working (docs/graph.md)."""

from __future__ import annotations

import argparse
import json
from typing import Any

from deploys.lib.settings import PlatformHost
from ops import inventory, remote
from ops.errors import DONE, DRIFT, Failed, Refused
from ops.terminal import Terminal, seconds

ACTIONS = ("check", "rebuild")
KEEPER = "/usr/local/lib/phoenix/graph_keeper.py"
"""services/graph_keeper.py on Neo4j's host: the graph does not travel through this computer."""
TIMEOUT_S = 3600.0
NAMED = 10
"""Differences that are named; a hundred are with --json."""


def arguments(verb: str, parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("action", choices=ACTIONS, metavar="check|rebuild", help="compare (exit 3 when something differs), or make equal")
    parser.add_argument("--yes", action="store_true", help="rebuild: do not ask")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Do it for the Neo4j of the inventory."""
    platform = inventory.made(options.inventory)
    if not platform.group("neo4j"):
        raise Refused("the inventory has no host in the group neo4j: add one and deploy.")
    target = platform.group("neo4j")[0]
    if options.action == "check":
        return check(target, terminal)
    if not options.yes:
        terminal.confirm(f"This removes from the graph on {target.name} whatever PostgreSQL does not have.")
    return rebuild(target, terminal)


def check(target: PlatformHost, terminal: Terminal) -> int:
    """Compare, and name what differs; exit code 3 then."""
    with terminal.working("Comparing"):
        found = asked(target, "check")
    terminal.result(found)
    if found["ok"]:
        terminal.line(
            f"The graph is what PostgreSQL says: {found['nodes']:,} nodes, {found['edges']:,} edges ({seconds(found['seconds'])}).", "green"
        )
        return DONE
    for one in found["first"][:NAMED]:
        terminal.line(one)
    more = found["differences"] - min(NAMED, len(found["first"]))
    terminal.line(
        f"{f'... and {more:,} more. ' if more > 0 else ''}Of {found['nodes'] + found['edges']:,} nodes and edges {found['differences']:,} "
        "differ: see that events arrive ('./phoenix status'), then './phoenix graph rebuild'.",
        "red",
    )
    return DRIFT


def rebuild(target: PlatformHost, terminal: Terminal) -> int:
    """Make the graph equal, and say what that took."""
    with terminal.working("Comparing and writing"):
        done = asked(target, "rebuild")
    terminal.result(done)
    terminal.line(
        f"{done['nodes']:,} nodes and {done['edges']:,} edges in {seconds(done['seconds'])}: {done['differences']:,} differed, "
        f"{done['written']:,} written.",
        "green",
    )
    return DONE


def asked(target: PlatformHost, what: str) -> dict[str, Any]:
    """The JSON that the keeper says. Raises Failed."""
    done = remote.ask(target, f"{KEEPER} {what}", timeout_s=TIMEOUT_S)
    try:
        said: dict[str, Any] = json.loads(done.out)
    except ValueError:
        raise Failed(f"the graph on {target.name} was not asked ({done.reason}): see './phoenix status'.") from None
    if "error" in said:
        raise Failed(f"the graph on {target.name}: {said['error'].rstrip('.')}: see './phoenix status' and './phoenix logs neo4j'.")
    return said
