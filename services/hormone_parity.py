#!/usr/bin/python3 -sE
"""Compares the hormone levels in Redis with PostgreSQL's, for Prometheus, and removes the keys of agents that are gone.

phoenix-hormones.timer runs it. It repairs no level: what differs for longer than an event takes is a fault that somebody has to know of,
and `phoenix hormones rebuild` mends it. A store that does not answer has alerts of its own; then nothing is written, and the age of the
last comparison tells. Passwords are credentials of the unit.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import redis
from phoenix_stream import hormones

KINDS = ("missing", "differs", "gone", "future")
NAMED = 10
"""Differences that the journal names."""


def main(config: Path, metrics: Path) -> int:
    """One comparison. The exit code is 0 also when a store does not answer: nothing is wrong with this program then."""
    settings = json.loads(config.read_text(encoding="utf-8"))
    try:
        with postgresql(settings) as database, cache(settings) as client:
            found = hormones.check(client, database, settle_s=settings["settle_s"], remove_gone=True)
    except (psycopg.Error, redis.RedisError, OSError) as error:
        print(f"could not compare: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 0
    for difference in found.differences[:NAMED]:
        print(difference)
    if len(found.differences) > NAMED:
        print(f"and {len(found.differences) - NAMED} more: ./phoenix hormones check, ./phoenix hormones rebuild")
    new = metrics.with_suffix(".new")
    new.write_text(exposition(found, now=time.time()), encoding="utf-8")
    new.replace(metrics)
    return 0


def postgresql(settings: dict[str, Any]) -> psycopg.Connection[Any]:
    """The server that leads, as `monitor`, which may only read."""
    return psycopg.connect(
        host=",".join(settings["postgresql"]["hosts"]),
        port=settings["postgresql"]["port"],
        dbname="phoenix",
        user="monitor",
        password=credential("postgresql"),
        sslmode="verify-full",
        sslrootcert=settings["ca"],
        target_session_attrs="primary",
        connect_timeout=5,
        application_name="phoenix-hormones",
        autocommit=True,
    )


def cache(settings: dict[str, Any]) -> Any:
    """Redis as `worker`, which removes the keys of agents that are gone."""
    return redis.Redis(
        host="127.0.0.1",
        port=settings["redis"]["port"],
        username="worker",
        password=credential("redis"),
        ssl=True,
        ssl_ca_certs=settings["ca"],
        decode_responses=True,
        socket_timeout=10,
        socket_connect_timeout=5,
    )


def credential(name: str) -> str:
    """A password that systemd gave the unit."""
    return (Path(os.environ["CREDENTIALS_DIRECTORY"]) / name).read_text(encoding="utf-8").strip()


def exposition(found: hormones.Parity, *, now: float) -> str:
    """What the node exporter reads."""
    kinds = {kind: sum(one.kind == kind for one in found.differences) for kind in KINDS}
    lines = [
        "# HELP phoenix_hormones_agents Agents that are not decommissioned, by PostgreSQL.",
        "# TYPE phoenix_hormones_agents gauge",
        f"phoenix_hormones_agents {found.agents}",
        "# HELP phoenix_hormones_differences Agents for whom Redis says another thing than PostgreSQL, by kind.",
        "# TYPE phoenix_hormones_differences gauge",
        *[f'phoenix_hormones_differences{{kind="{kind}"}} {count}' for kind, count in kinds.items()],
        "# HELP phoenix_hormones_checked_timestamp_seconds Unix time of the last comparison of Redis with PostgreSQL.",
        "# TYPE phoenix_hormones_checked_timestamp_seconds gauge",
        f"phoenix_hormones_checked_timestamp_seconds {now:.3f}",
        "# HELP phoenix_hormones_check_seconds How long the last comparison took.",
        "# TYPE phoenix_hormones_check_seconds gauge",
        f"phoenix_hormones_check_seconds {found.seconds:.3f}",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
