"""What a scrape costs, and how fast the exporter notices that the database has gone: `python -m bench.exporter`.

Makes a throwaway PostgreSQL with the real schema and 100,000 personas, runs the exporter as its unit does (HTTPS with client
certificates) and scrapes it as Prometheus does (one connection kept open). Statements and database time are the server's own
figures (pg_stat_statements), not the exporter's. Ends with status 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import yaml

from tests.exporter.cluster import Cluster, black_hole, free_port, running_cluster, wait_until
from tests.exporter.conftest import SOURCES, Authority, Exporter

PERSONAS, AGENTS, TASKS = 100_000, 1_000, 10_000
STATEMENTS = 4_800  # distinct entries in pg_stat_statements; its limit is 5,000
UNCACHED = {name: {"ttl_s": 0} for name in ("pipeline", "jobs", "statements", "personas")}


@dataclass
class Figure:
    """One measured value; `limit` is what it must not exceed, None when it is only told."""

    name: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def met(self) -> bool:
        """Whether the value is within its limit."""
        return self.limit is None or self.value <= self.limit


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and tell by the exit status whether all targets are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scrapes", type=int, default=300, help="scrapes per measurement (%(default)s)")
    parser.add_argument("--postgresql", choices=("16", "17", "18"), default="16", help="major version (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args(argv)
    with running_cluster(options.postgresql) as cluster, tempfile.TemporaryDirectory() as directory:
        fill(cluster)
        figures = [*measure(cluster, Path(directory), options.scrapes)]
    if options.json:
        print(json.dumps({f.name: {"value": f.value, "unit": f.unit, "limit": f.limit, "met": f.met} for f in figures}))
    else:
        for figure in figures:
            verdict = "" if figure.limit is None else f"   (≤ {figure.limit:g}: {'met' if figure.met else 'MISSED'})"
            print(f"{figure.name:<62}{figure.value:>9.2f} {figure.unit}{verdict}")
    return 0 if all(figure.met for figure in figures) else 1


def fill(cluster: Cluster) -> None:
    """Bring the database to the size that the spec names, with every table that the collectors read."""
    with cluster.admin() as connection:
        connection.execute(
            "INSERT INTO agents (codename, team, role, consciousness_vector, last_heartbeat)"
            " SELECT 'agent-' || n, (enum_range(NULL::team))[1 + n % 3], 'scout', '{}', now() - n * interval '1 s'"
            f" FROM generate_series(1, {AGENTS}) AS n".encode()
        )
        connection.execute(
            "INSERT INTO personas (fingerprint, name, created_at)"
            " SELECT encode(sha256(n::text::bytea), 'hex'), 'persona ' || n, now() - (n % 300) * interval '1 d'"
            f" FROM generate_series(1, {PERSONAS}) AS n".encode()
        )
        connection.execute(f"INSERT INTO tasks (title) SELECT 'task ' || n FROM generate_series(1, {TASKS}) AS n".encode())
        connection.execute(
            "INSERT INTO opportunities (name, value, probability, stage)"
            " SELECT 'opportunity ' || n, n, 0.5, (enum_range(NULL::opportunity_stage))[1 + n % 6]"
            " FROM generate_series(1, 10000) AS n"
        )
        connection.execute(
            "INSERT INTO consciousness_timeline (time, global_consciousness, global_trust)"
            " SELECT now() - n * interval '1 min', 108, 0.8 FROM generate_series(1, 10080) AS n"
        )
        for signs in itertools.islice(itertools.product("+-*", repeat=9), STATEMENTS):
            connection.execute(("SELECT 1" + "".join(f"{sign}1" for sign in signs)).encode())
        connection.execute("VACUUM ANALYZE")


@contextlib.contextmanager
def exporter(cluster: Cluster, directory: Path, **changes: Any) -> Iterator[Exporter]:
    """Run an exporter that serves HTTPS to clients with a certificate."""
    authority = Authority(directory / "tls")
    certificate, key = authority.issue("host")
    (directory / "password").write_text(cluster.password)
    database = {"port": cluster.port, "password_file": "password", "sslmode": "disable"} | changes.pop("database", {})
    settings = {
        "listen": {"port": free_port()},
        "tls": {"certificate": str(certificate), "key": str(key), "client_ca": str(authority.directory / "ca.crt")},
        "database": database,
        **changes,
    }
    config, log = directory / "config.yml", directory / "log"
    config.write_text(yaml.safe_dump(settings))
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "phoenix_exporter", "--config", config],
            stderr=stderr,
            text=True,
            env={"PYTHONPATH": str(SOURCES), "PATH": os.environ["PATH"]},
        )
    running = Exporter(process, settings["listen"]["port"], log, authority.client("prometheus"))
    try:
        wait_until(lambda: "event=started" in running.logged(), 10, "exporter starts")
        running.get()
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(5)


def measure(cluster: Cluster, directory: Path, scrapes: int) -> Iterator[Figure]:
    """Give all figures, in the order of the document."""
    with exporter(cluster, directory, collectors=UNCACHED, limits={"min_interval_s": 0.0}) as target:
        yield from cost(cluster, target, scrapes, "every collector asked", limited=True)
        yield Figure("resident memory", target.get().value("process_resident_memory_bytes") / 2**20, "MiB")  # type: ignore[operator]
    with exporter(cluster, directory, limits={"min_interval_s": 0.0}) as target:
        yield from cost(cluster, target, scrapes, "as shipped", limited=False)
    with exporter(cluster, directory) as target:
        time.sleep(1.2)
        yield Figure("20 concurrent scrapes: executions", burst(cluster, target), "", 1)
        yield Figure("phoenix_up 0 after a stop", down_after(target, cluster.stop, cluster.start), "s", 1)
    with exporter(cluster, directory) as target, contextlib.ExitStack() as frozen:
        yield Figure(
            "phoenix_up 0 after a freeze (SIGSTOP)",
            down_after(target, lambda: frozen.enter_context(cluster.frozen()), frozen.close),
            "s",
            1,
        )
    with black_hole() as port, exporter(cluster, directory, database={"port": port}) as target:
        time.sleep(1.2)
        yield Figure("phoenix_up 0 with a network that swallows everything", target.get().seconds, "s", 1)


def cost(cluster: Cluster, target: Exporter, scrapes: int, what: str, *, limited: bool) -> Iterator[Figure]:
    """Latency, database time and statements per scrape, over one connection."""
    connection = target.connection()
    connection.request("GET", "/metrics")
    connection.getresponse().read()
    calls, milliseconds = spent(cluster)
    cpu = cpu_seconds(target)
    took = [once(connection) for _ in range(scrapes)]
    calls_after, milliseconds_after = spent(cluster)
    connection.close()
    p50, p95 = np.percentile(took, [50, 95]) * 1000
    limits: tuple[float | None, ...] = (25, 100, 20, 8) if limited else (None,) * 4
    yield Figure(f"scrape, p50, {what}", float(p50), "ms", limits[0])
    yield Figure(f"scrape, p95, {what}", float(p95), "ms", limits[1])
    yield Figure(f"database time per scrape, {what}", (milliseconds_after - milliseconds) / scrapes, "ms", limits[2])
    yield Figure(f"statements per scrape, {what}", (calls_after - calls) / scrapes, "", limits[3])
    yield Figure(f"exporter's CPU per scrape, {what}", (cpu_seconds(target) - cpu) / scrapes * 1000, "ms")


def once(connection: http.client.HTTPConnection) -> float:
    """Seconds that one scrape takes; it must have everything."""
    began = time.perf_counter()
    connection.request("GET", "/metrics", headers={"X-Prometheus-Scrape-Timeout-Seconds": "10"})
    text = connection.getresponse().read()
    took = time.perf_counter() - began
    if b"\nphoenix_up 1.0\n" not in text or b'collector_success{collector="personas"} 0' in text:
        raise RuntimeError("a scrape was not complete: the figures would mean nothing")
    return took


def spent(cluster: Cluster) -> tuple[int, float]:
    """Statements of the role monitor so far, and the milliseconds they took, as the server counts them."""
    with cluster.admin() as witness:
        row = witness.execute(
            "SELECT sum(calls)::int, sum(total_exec_time + total_plan_time) FROM pg_stat_statements"
            " WHERE userid = 'monitor'::regrole AND toplevel"
        ).fetchone()
    return int(str(row[0])), float(str(row[1]))  # type: ignore[index]


def cpu_seconds(target: Exporter) -> float:
    """CPU time of the exporter so far, from the kernel."""
    fields = Path(f"/proc/{target.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def burst(cluster: Cluster, target: Exporter) -> int:
    """How many executions the server saw for 20 scrapes at once, each over a connection of its own."""

    def executions() -> int:
        with cluster.admin() as witness:
            row = witness.execute(
                "SELECT sum(calls)::int FROM pg_stat_statements WHERE userid = 'monitor'::regrole AND query LIKE '%metrics_task_counters%'"
            ).fetchone()
        return int(str(row[0]))  # type: ignore[index]

    before = executions()
    threads = [threading.Thread(target=target.get) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return executions() - before


def down_after(target: Exporter, break_it: Callable[[], object], mend: Callable[[], object]) -> float:
    """Seconds until a scrape that began after the fault says so."""
    break_it()
    time.sleep(1.2)  # past the time in which the last result is shared
    try:
        answer = target.get()
    finally:
        mend()
    if answer.value("phoenix_up") != 0:
        raise RuntimeError("phoenix_up is not 0 although the database does not answer")
    return answer.seconds


if __name__ == "__main__":
    try:
        sys.exit(main())
    except psycopg.Error as error:
        sys.exit(f"bench.exporter: the database refused: {error}")
