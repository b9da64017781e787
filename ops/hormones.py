"""hormones: the levels in Redis made equal to PostgreSQL's, or compared with them, while both go on working (docs/redis.md)."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from deploys.lib.pki import CERTIFICATE_SECRET
from deploys.lib.secrets import SecretError
from deploys.lib.settings import ROOT, Platform, PlatformHost, RedisSettings
from ops import inventory, pgconn
from ops.errors import DONE, DRIFT, Failed, Refused
from ops.options import count
from ops.terminal import Terminal, seconds

if TYPE_CHECKING:
    from phoenix_stream import hormones

ACTIONS = ("check", "rebuild")
NAMED = 10
"""Differences that are named; all are with --json."""


def arguments(verb: str, parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("action", choices=ACTIONS, metavar="check|rebuild", help="compare (exit 3 when something differs), or make equal")
    parser.add_argument(
        "--settle",
        type=count,
        metavar="S",
        help="check: seconds for which a level may be different before it counts (default: of the settings)",
    )


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Do it for the Redis of the inventory."""
    if options.settle is not None and options.action != "check":
        raise Refused("--settle belongs to check: leave it out.")
    platform = inventory.made(options.inventory)
    if not platform.group("redis"):
        raise Refused("the inventory has no host in the group redis: add one and deploy.")
    with stores(platform) as (client, database):
        if options.action == "rebuild":
            return rebuild(client, database, terminal)
        settle_s = platform.group("redis")[0][RedisSettings].parity_settle_s if options.settle is None else options.settle
        return check(client, database, terminal, settle_s=settle_s)


@contextmanager
def stores(platform: Platform) -> Iterator[tuple[Any, psycopg.Connection[Any]]]:
    """The first Redis of the inventory and the database, as clients. Raises Refused, and Failed when one of them gives up inside."""
    target = platform.group("redis")[0]
    try:
        with pgconn.connect(platform, "architect") as database, connect(platform, target, "worker") as client:
            yield client, database
    except psycopg.Error as error:
        raise Failed(f"PostgreSQL gave no levels ({str(error).strip().splitlines()[0].rstrip('.')}): see './phoenix status'.") from error


def rebuild(client: Any, database: psycopg.Connection[Any], terminal: Terminal) -> int:
    """Make Redis equal, and say what that took."""
    with terminal.working("Comparing and writing"):
        done = library().rebuild(client, database, said=lambda text: terminal.say(f"{text}.", "dim"))
    terminal.result({"ok": True, **vars(done), "seconds": round(done.seconds, 2)})
    later = f", {done.newer:,} had a later event meanwhile" if done.newer else ""
    terminal.line(
        f"{done.agents:,} agents in {seconds(done.seconds)}: {done.written:,} written, {done.same:,} were right{later}; "
        f"{done.retired:,} keys of agents that are gone removed.",
        "green",
    )
    return DONE


def check(client: Any, database: psycopg.Connection[Any], terminal: Terminal, *, settle_s: float) -> int:
    """Compare, and name what differs; exit code 3 then."""
    with terminal.working("Comparing"):
        found = library().check(client, database, settle_s=settle_s)
    terminal.result(
        {
            "ok": not found.differences,
            "agents": found.agents,
            "keys": found.keys,
            "differences": len(found.differences),
            "first": [_entry(one) for one in found.differences[:100]],
            "seconds": round(found.seconds, 2),
        }
    )
    if not found.differences:
        terminal.line(f"Redis says of all {found.agents:,} agents what PostgreSQL says ({seconds(found.seconds)}).", "green")
        return DONE
    for one in found.differences[:NAMED]:
        terminal.line(str(one))
    more = len(found.differences) - NAMED
    terminal.line(
        f"{f'... and {more:,} more. ' if more > 0 else ''}Of {found.agents:,} agents {len(found.differences):,} differ: see that events "
        "arrive ('./phoenix status'), then './phoenix hormones rebuild'.",
        "red",
    )
    return DRIFT


def _entry(one: hormones.Difference) -> dict[str, Any]:
    return {"agent": one.agent, "kind": one.kind, "redis": one.redis, "postgresql": one.postgresql}


@contextmanager
def connect(platform: Platform, target: PlatformHost, user: str) -> Iterator[Any]:
    """Redis on `target` as `user`, through an SSH tunnel, its certificate checked. Raises Refused without the password, Failed without
    an answer, here or inside the `with`."""
    import redis  # noqa: PLC0415 - refusals do without

    store = inventory.secrets(platform)
    try:
        password, authority = store.get(f"redis/{user}"), store.get(CERTIFICATE_SECRET)
    except SecretError as error:
        raise Refused(str(error)) from error
    with tempfile.TemporaryDirectory(prefix="phoenix-redis-") as scratch, pgconn.tunnel(target, port=target[RedisSettings].port) as port:
        certificate = Path(scratch) / "ca.crt"
        certificate.write_text(authority)
        client = redis.Redis(
            host="127.0.0.1",  # which the host's certificate names as well
            port=port,
            username=user,
            password=password,
            ssl=True,
            ssl_ca_certs=str(certificate),
            decode_responses=True,
            socket_timeout=30,
            socket_connect_timeout=10,
        )
        try:
            with client:
                yield client
        except redis.RedisError as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise Failed(f"Redis on {target.name} does not do it ({reason}): see './phoenix status' and './phoenix logs redis'.") from error


def library() -> Any:
    """services/phoenix_stream/hormones.py, which the stream worker has as well."""
    if str(ROOT / "services") not in sys.path:
        sys.path.append(str(ROOT / "services"))
    from phoenix_stream import hormones  # noqa: PLC0415 - only now where it is found

    return hormones
