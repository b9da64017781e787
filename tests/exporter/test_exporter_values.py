"""The values: all that the spec names, equal to what the database says, and kept within bounds."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg
import pytest

from tests.exporter.cluster import Cluster
from tests.exporter.conftest import StartExporter


def test_all_metrics_of_the_spec_come_from_the_real_schema(start_exporter: StartExporter) -> None:
    exporter = start_exporter()
    time.sleep(1.1)  # a rate needs two observations
    answer = exporter.get()
    assert answer.status == 200
    assert answer.value("phoenix_up") == 1
    for name in (
        "phoenix_db_connections_active",
        "phoenix_db_transactions_per_second",
        "phoenix_db_query_duration_seconds_sum",
        "phoenix_db_query_duration_seconds_count",
        "phoenix_personas_total",
        "phoenix_agents_active",
        "phoenix_tasks_completion_rate",
        "phoenix_tasks_created",
        "phoenix_tasks_created_total",
        "phoenix_tasks_completed",
        "phoenix_tasks_completed_total",
        "phoenix_pipeline_value_total",
    ):
        assert answer.value(name) is not None, name
    failed = [labels for (name, labels), v in answer.samples.items() if name.endswith("collector_success") and v != 1]
    assert failed == []


def test_values_equal_what_the_database_says(cluster: Cluster, start_exporter: StartExporter) -> None:
    with cluster.admin() as witness:
        witness.execute(
            "INSERT INTO agents (codename, team, role, consciousness_vector, last_heartbeat) VALUES"
            " ('Alpha-7', 'alpha_delta', 'scout', '{}', now()), ('Old-1', 'iota', 'scout', '{}', now() - interval '1 h')"
        )
        witness.execute("INSERT INTO tasks (title) VALUES ('a'), ('b'), ('c'), ('d')")
        witness.execute("UPDATE tasks SET status = 'complete', completed_at = now() WHERE title = 'a'")
        witness.execute("DELETE FROM tasks WHERE title IN ('a', 'b')")
        witness.execute("INSERT INTO consciousness_timeline (time, global_consciousness, global_trust) VALUES (now(), 108.5, 0.7)")
        try:
            answer = start_exporter().get()
            assert answer.value("phoenix_agents_registered") == 2
            assert answer.value("phoenix_agents_active") == 1
            assert answer.value("phoenix_team_agents_active", team="alpha_delta") == 1
            assert answer.value("phoenix_tasks_created_total") == answer.value("phoenix_tasks_created") == 4
            assert answer.value("phoenix_tasks_completed_total") == 1
            assert answer.value("phoenix_tasks_completion_rate") == 0.25
            assert answer.value("phoenix_tasks_by_status", status="open") == 2
            assert answer.value("phoenix_consciousness_current") == 108.5
            measured = answer.value("phoenix_consciousness_timestamp_seconds")
            assert measured is not None and abs(time.time() - measured) < 30
            assert answer.value("phoenix_db_connections_max") == 60
            clients = witness.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
            assert answer.value("phoenix_db_connections_active") == clients.fetchone()[0]  # type: ignore[index]
        finally:
            witness.execute("TRUNCATE tasks, agents, consciousness_timeline CASCADE")


def test_cached_collector_is_asked_once_in_its_time_to_live(
    cluster: Cluster, start_exporter: StartExporter, calls: Callable[[str], int]
) -> None:
    exporter = start_exporter(collectors={"personas": {"ttl_s": 3600}})
    before = calls("metrics_personas")
    for _ in range(5):
        answer = exporter.get()
    assert calls("metrics_personas") == before
    assert calls("metrics_task_counters") >= 5
    age = answer.value("phoenix_exporter_collector_data_age_seconds", collector="personas")
    assert age is not None and 0 < age < 60
    first = answer.value("phoenix_exporter_collector_last_success_timestamp_seconds", collector="personas")
    assert first is not None and abs(time.time() - first - age) < 1
    cluster.stop()
    try:
        down = exporter.get()
        assert down.value("phoenix_up") == 0
        assert down.value("phoenix_personas_total") == answer.value("phoenix_personas_total")
    finally:
        cluster.start()


def test_series_are_capped_and_the_rest_is_counted(cluster: Cluster, start_exporter: StartExporter) -> None:
    exporter = start_exporter(limits={"series_per_metric": 7})
    with cluster.admin() as witness:
        witness.execute(
            "INSERT INTO metrics_jobs SELECT 'job-' || n, '* * * * *', true, NULL, NULL, NULL, NULL, 0 FROM generate_series(1, 500) n"
        )
        try:
            capped = start_exporter(limits={"series_per_metric": 7})
            answer = capped.get()
        finally:
            witness.execute("DELETE FROM metrics_jobs WHERE jobname LIKE 'job-%'")
    assert sum(name == "phoenix_job_active" for name, _ in answer.samples) == 7
    assert answer.value("phoenix_exporter_series_dropped_total", metric="phoenix_job_active") == 501 - 7
    assert exporter.get().value("phoenix_exporter_series_dropped_total", metric="phoenix_job_active") == 0


def test_statistics_reset_is_never_a_fall_nor_a_leap(cluster: Cluster, start_exporter: StartExporter) -> None:
    exporter = start_exporter(collectors={"statements": {"ttl_s": 0}})
    with cluster.admin() as witness:
        for _ in range(50):
            witness.execute("SELECT count(*) FROM agents")
        first = exporter.get()
        witness.execute("SELECT pg_stat_statements_reset()")
        for _ in range(10):
            witness.execute("SELECT count(*) FROM agents")
        second = exporter.get()
    name = "phoenix_db_query_duration_seconds"
    counts = [first.value(f"{name}_count"), second.value(f"{name}_count")]
    assert counts[0] is not None and counts[1] is not None
    assert counts[0] >= 50
    assert 10 <= counts[1] - counts[0] <= 40  # the ten, and what two scrapes and the witness did besides
    assert (second.value(f"{name}_sum") or 0) >= (first.value(f"{name}_sum") or 0) > 0
    assert second.value(f"{name}_bucket", le="+Inf") == counts[1]


def test_it_cannot_write(cluster: Cluster, start_exporter: StartExporter) -> None:
    start_exporter()
    with cluster.admin() as witness:
        rows = witness.execute("SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name = 'phoenix-exporter'").fetchall()
    assert rows == [("monitor",)]
    with (
        psycopg.connect(host="127.0.0.1", port=cluster.port, dbname="phoenix", user="monitor", password=cluster.password) as as_monitor,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        as_monitor.execute("DELETE FROM phoenix.agents")
