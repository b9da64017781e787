"""What a scrape gives when the database is stopped, frozen, swallowed by the network, locked or half forbidden."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.exporter.cluster import Cluster, black_hole
from tests.exporter.conftest import Answer, StartExporter
from tests.waiting import wait_until

DATABASE_METRICS = ("phoenix_db_connections_active", "phoenix_agents_active", "phoenix_tasks_created_total")


def assert_down_within_a_second(answer: Answer) -> None:
    assert answer.status == 200
    assert answer.value("phoenix_up") == 0
    assert answer.seconds < 1.0
    for name in DATABASE_METRICS:
        assert answer.value(name) is None, name
    assert answer.value("phoenix_exporter_collector_success", collector="database") == 0
    assert "phoenix_exporter_build_info{" in answer.text


def test_stopped_database_is_up_0_at_once_and_up_1_after_its_start(cluster: Cluster, start_exporter: StartExporter) -> None:
    exporter = start_exporter()
    cluster.stop()
    try:
        assert_down_within_a_second(exporter.get())
        assert_down_within_a_second(exporter.get())
        assert exporter.get("/health/ready").status == 503
        assert exporter.get("/health/live").status == 200
    finally:
        cluster.start()
    assert exporter.get().value("phoenix_up") == 1
    assert exporter.get("/health/ready").status == 200


def test_restart_of_the_database_between_two_scrapes_goes_unnoticed(cluster: Cluster, start_exporter: StartExporter) -> None:
    exporter = start_exporter()
    cluster.stop("immediate")
    cluster.start()
    assert exporter.get().value("phoenix_up") == 1


def test_frozen_database_is_up_0_within_a_second_every_time(cluster: Cluster, start_exporter: StartExporter) -> None:
    exporter = start_exporter()
    with cluster.frozen():
        assert_down_within_a_second(exporter.get())  # over the connection that froze
        assert_down_within_a_second(exporter.get())  # while connecting anew
        began = time.monotonic()
        assert exporter.get("/health/live").status == 200
        assert exporter.get("/health/ready").status == 503
        assert time.monotonic() - began < 0.3
    assert exporter.get().value("phoenix_up") == 1
    wait_until(lambda: cluster.exporter_backends() <= 1, 5, "the thawed server let go of the connections given up")


@pytest.mark.parametrize("sslmode", ["disable", "require"])
def test_network_that_swallows_everything_is_up_0_within_a_second(start_exporter: StartExporter, sslmode: str) -> None:
    with black_hole() as port:
        exporter = start_exporter(ready=False, database={"port": port, "sslmode": sslmode})
        exporter.get()
        before = exporter.descriptors()
        for _ in range(5):
            assert_down_within_a_second(exporter.get())
        assert exporter.descriptors() <= before + 1  # the last client's own connection may still be closing


def test_refused_login_is_up_0_and_says_why_without_the_password(cluster: Cluster, start_exporter: StartExporter, tmp_path: Path) -> None:
    exporter = start_exporter()
    with cluster.admin() as witness:
        witness.execute("ALTER ROLE monitor NOLOGIN")
        witness.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'monitor'")
        try:
            answer = exporter.get()
        finally:
            witness.execute("ALTER ROLE monitor LOGIN")
    assert_down_within_a_second(answer)
    assert "not permitted to log in" in exporter.logged()
    everything = exporter.logged() + answer.text + exporter.get("/explain").text
    process = Path(f"/proc/{exporter.process.pid}")
    visible = (process / "environ").read_text() + (process / "cmdline").read_text()
    assert cluster.password not in everything + visible


def test_locked_table_costs_its_own_metrics_and_nothing_else(cluster: Cluster, start_exporter: StartExporter) -> None:
    exporter = start_exporter()
    with cluster.admin() as witness, witness.transaction():
        witness.execute("LOCK TABLE agents IN ACCESS EXCLUSIVE MODE")
        answer = exporter.get()
    assert answer.seconds < 1.0
    assert answer.value("phoenix_up") == 1
    assert answer.value("phoenix_agents_active") is None
    assert answer.value("phoenix_exporter_collector_success", collector="agents") == 0
    assert answer.value("phoenix_tasks_created_total") is not None
    assert answer.value("phoenix_db_connections_active") is not None
    assert exporter.get().value("phoenix_agents_active") is not None


def test_revoked_right_costs_one_collector_and_is_explained(cluster: Cluster, start_exporter: StartExporter) -> None:
    exporter = start_exporter()
    with cluster.admin() as witness:
        witness.execute("REVOKE SELECT ON metrics_task_counters FROM monitor")
        try:
            answer = exporter.get()
            page = exporter.get("/explain").text
        finally:
            witness.execute("GRANT SELECT ON metrics_task_counters TO monitor")
    assert answer.value("phoenix_up") == 1
    assert answer.value("phoenix_exporter_collector_success", collector="tasks") == 0
    assert answer.value("phoenix_tasks_created_total") is None
    assert answer.value("phoenix_agents_active") is not None
    assert "permission denied for view metrics_task_counters" in page
    assert exporter.get().value("phoenix_exporter_collector_success", collector="tasks") == 1
    assert exporter.logged().count('event="collector failed"') == 1
    assert exporter.logged().count('event="collector recovered"') == 1


def test_slow_statement_is_stopped_by_its_own_limit(cluster: Cluster, start_exporter: StartExporter) -> None:
    exporter = start_exporter()
    with cluster.admin() as witness:
        kept = str(witness.execute("SELECT pg_get_viewdef('metrics_agents_by_team'::regclass)").fetchone()[0])  # type: ignore[index]
        witness.execute(
            "CREATE OR REPLACE VIEW metrics_agents_by_team AS SELECT s.team, s.registered, s.active"
            " FROM (SELECT 'iota'::text AS team, 1::bigint AS registered, 1::bigint AS active, pg_sleep(20)) AS s"
        )
        try:
            answer = exporter.get()
        finally:
            witness.execute(f"CREATE OR REPLACE VIEW metrics_agents_by_team AS {kept}".encode())
    assert answer.seconds < 1.0
    assert answer.value("phoenix_up") == 1
    assert answer.value("phoenix_agents_active") is None
    assert answer.value("phoenix_tasks_created_total") is not None


def test_view_that_gives_nonsense_costs_its_own_metrics_and_nothing_else(cluster: Cluster, start_exporter: StartExporter) -> None:
    exporter = start_exporter()
    with cluster.admin() as witness:
        witness.execute("ALTER TABLE metrics_jobs ALTER failures_24h TYPE text")
        witness.execute("UPDATE metrics_jobs SET failures_24h = 'many'")
        try:
            answer = start_exporter().get()
        finally:
            witness.execute("ALTER TABLE metrics_jobs ALTER failures_24h TYPE bigint USING 0")
    assert answer.value("phoenix_up") == 1
    assert answer.value("phoenix_exporter_collector_success", collector="jobs") == 0
    assert answer.value("phoenix_agents_active") is not None
    assert exporter.get().value("phoenix_up") == 1
