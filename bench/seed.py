"""How long the scale targets take to load, and what the figures behind the metrics cost on them.

    python -m bench.seed "host=… user=architect dbname=…" [PERSONAS AGENTS TASKS]

Deletes all data of that database first. Prints one line per step; the last measured run is in docs/decisions/0107-seed.md.
"""

from __future__ import annotations

import statistics
import sys
import time

import psycopg
from psycopg import sql

from ops.seed import seed

TARGET = {"personas": 100_000, "agents": 1_000, "tasks": 10_000}
VIEWS = (
    "metrics_overview", "metrics_personas", "metrics_agents_by_team", "metrics_task_counters", "metrics_task_status",
    "metrics_pipeline", "metrics_consciousness", "metrics_jobs", "federation_dashboard",
)  # fmt: skip
NEAREST = """
    SELECT id FROM phoenix.personas
    ORDER BY semantic_embedding::halfvec(1536) <=> (SELECT semantic_embedding::halfvec(1536) FROM phoenix.personas WHERE id = %s) LIMIT 10
"""
HOTTEST = "SELECT title FROM phoenix.tasks WHERE status IN ('open', 'claimed') ORDER BY hot_score DESC LIMIT 50"


def measure(conn: psycopg.Connection, name: str, query: sql.Composed | str, *values: object, runs: int = 50) -> None:
    """Print median and 95th percentile of a query's time, as the client sees it, in milliseconds."""
    text = query.encode() if isinstance(query, str) else query
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        conn.execute(text, values or None).fetchall()
        times.append((time.perf_counter() - began) * 1000)
    print(f"{name:28} p50 {statistics.median(times):7.2f} ms   p95 {statistics.quantiles(times, n=20)[-1]:7.2f} ms")


def main(arguments: list[str]) -> None:
    """Seed, then ask."""
    sizes = dict(zip(TARGET, map(int, arguments[1:]), strict=True)) if len(arguments) > 1 else TARGET
    with psycopg.connect(arguments[0]) as conn:
        began = time.monotonic()
        seed(conn, personas=sizes["personas"], agents=sizes["agents"], tasks=sizes["tasks"], replace=True, progress=print)
        print(f"loaded in {time.monotonic() - began:.1f} s")
        for view in VIEWS:
            measure(conn, view, sql.SQL("SELECT * FROM {}").format(sql.Identifier("phoenix", view)))
        anyone = conn.execute("SELECT id FROM phoenix.personas LIMIT 1").fetchone()
        measure(conn, "ten nearest personas", NEAREST, *(anyone or ()))
        measure(conn, "fifty hottest tasks", HOTTEST)


if __name__ == "__main__":
    main(sys.argv[1:])
