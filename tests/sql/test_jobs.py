"""Jobs run for real: by pg_cron in background workers, as architect."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace

import psycopg
import pytest

from tests.sql.server import Server

pytestmark = pytest.mark.requires("pg_cron")
# Seconds until the next minute begins, and some for the worker.
A_MINUTE_S = 75


def test_the_dashboard_is_refreshed_by_the_clock(server: Server, admin: psycopg.Connection, agents: Callable[..., SimpleNamespace]) -> None:
    agents("ann")
    seen = server.ask("SELECT now()")
    until = time.monotonic() + A_MINUTE_S
    while time.monotonic() < until and not server.ask(
        "SELECT last_success > %s FROM phoenix.metrics_jobs WHERE jobname = 'refresh-dashboard'", seen
    ):
        time.sleep(0.5)
    run = admin.execute(
        "SELECT status, return_message FROM cron.job_run_details "
        "WHERE command LIKE 'REFRESH%%' AND start_time > %s ORDER BY runid DESC LIMIT 1",
        [seen],
    ).fetchone()
    assert run is not None, "the job did not run within a minute"
    assert run[0] == "succeeded", run[1]
    assert server.ask("SELECT refreshed_at > %s AND total_agents = 1 FROM phoenix.federation_dashboard", seen) is True


def test_every_job_succeeds_when_it_is_run_as_its_owner(server: Server, admin: psycopg.Connection) -> None:
    jobs = admin.execute("SELECT jobname, command, username FROM cron.job").fetchall()
    assert len(jobs) >= 6
    for _, command, username in jobs:
        with server.connect(username) as conn:
            conn.execute(command.encode())
