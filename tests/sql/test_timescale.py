"""consciousness_hourly, compression and retention on either edition of TimescaleDB: the same to whoever reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from tests.sql.server import Server

pytestmark = pytest.mark.requires("timescaledb", "pg_cron")
HOUR = "SELECT avg_consciousness, peak_consciousness, total_tasks FROM phoenix.consciousness_hourly WHERE bucket = %s"


def run_job(server: Server, name: str) -> None:
    """What the clock would do."""
    command = server.ask("SELECT command FROM cron.job WHERE jobname = %s", name)
    with server.connect("architect") as conn:
        conn.execute(str(command).encode())


@pytest.fixture
def hour(admin: psycopg.Connection) -> datetime:
    """An hour of the day before yesterday with two readings."""
    admin.execute("DELETE FROM phoenix.consciousness_timeline")
    at = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=2)
    for minute, level in ((10, 110), (20, 120)):
        write(admin, at + timedelta(minutes=minute), level)
    return at


def write(admin: psycopg.Connection, at: datetime, level: float) -> None:
    admin.execute(
        'INSERT INTO phoenix.consciousness_timeline ("time", global_consciousness, global_trust, tasks_per_hour) VALUES (%s, %s, 0.7, 60)',
        [at, level],
    )


def test_it_is_a_continuous_aggregate_where_the_licence_allows_it(server: Server) -> None:
    continuous = server.ask("SELECT count(*) FROM timescaledb_information.continuous_aggregates WHERE view_name = 'consciousness_hourly'")
    assert bool(continuous) is server.timescale_licence


def test_the_job_stores_closed_hours_and_late_rows_are_taken_in(server: Server, admin: psycopg.Connection, hour: datetime) -> None:
    run_job(server, "refresh-consciousness-hourly")
    assert admin.execute(HOUR, [hour]).fetchone() == (115, 120, 60)
    write(admin, hour + timedelta(minutes=30), 160)
    run_job(server, "refresh-consciousness-hourly")
    assert admin.execute(HOUR, [hour]).fetchone() == (130, 160, 60)


def test_the_running_hour_is_shown_live_beside_the_stored_ones(server: Server, admin: psycopg.Connection, hour: datetime) -> None:
    run_job(server, "refresh-consciousness-hourly")
    now = datetime.now(UTC)
    write(admin, now, 140)
    this_hour = now.replace(minute=0, second=0, microsecond=0)
    assert admin.execute(HOUR, [this_hour]).fetchone() == (140, 140, 60)
    assert admin.execute(
        "SELECT count(*), count(DISTINCT bucket) FROM phoenix.consciousness_hourly WHERE bucket >= %s", [hour]
    ).fetchone() == (2, 2)


def test_hours_outlive_the_raw_rows_they_were_made_from(server: Server, admin: psycopg.Connection, hour: datetime) -> None:
    old = hour - timedelta(days=120)
    write(admin, old, 99)
    if server.timescale_licence:
        admin.execute(
            "CALL public.refresh_continuous_aggregate('phoenix.consciousness_hourly', %s::timestamptz, %s::timestamptz)",
            [old - timedelta(days=1), hour],
        )
    else:
        admin.execute("SELECT phoenix.refresh_consciousness_hourly('130 days')")
    run_job(server, "retain-consciousness")
    assert server.ask("SELECT count(*) FROM phoenix.consciousness_timeline WHERE time < now() - INTERVAL '100 days'") == 0
    run_job(server, "refresh-consciousness-hourly")
    assert admin.execute(HOUR, [old]).fetchone() == (99, 99, 60)


def test_old_chunks_are_compressed_where_the_licence_allows_it_and_read_the_same(
    server: Server, admin: psycopg.Connection, hour: datetime
) -> None:
    old = hour - timedelta(days=40)
    write(admin, old, 101)
    compressed = server.ask("SELECT phoenix.compress_consciousness()")
    assert (compressed >= 1) is server.timescale_licence
    assert server.ask("SELECT global_consciousness FROM phoenix.consciousness_timeline WHERE time = %s", old) == 101
    with pytest.raises(psycopg.errors.UniqueViolation):
        write(admin, old, 102)
    assert server.ask("SELECT phoenix.compress_consciousness()") == 0, "a second run has nothing to do"
