"""Many scrapers at once, impatient ones, and ones that leave: one execution, nothing leaked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.exporter.cluster import Cluster
from tests.exporter.conftest import Answer, Exporter, StartExporter
from tests.waiting import wait_until

# Long enough that a statement waits for a lock which the test holds.
PATIENT = {"min_interval_s": 0.0, "query_timeout_s": 5.0, "lock_timeout_s": 5.0}


def scrape_in_background(exporter: Exporter, count: int) -> tuple[list[threading.Thread], list[Answer]]:
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(exporter.get())) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, answers


def test_twenty_concurrent_scrapes_are_one_execution(cluster: Cluster, start_exporter: StartExporter, calls: Callable[[str], int]) -> None:
    exporter = start_exporter(limits=PATIENT)
    before = calls("metrics_task_counters")
    lock = cluster.lock("agents")  # the execution waits for it until all twenty have come
    threads, answers = scrape_in_background(exporter, 20)
    time.sleep(0.5)
    lock.close()
    for thread in threads:
        thread.join(10)
    assert [a.status for a in answers] == [200] * 20
    assert [a.value("phoenix_up") for a in answers] == [1.0] * 20
    assert all(a.value("phoenix_tasks_created_total") is not None for a in answers)
    assert calls("metrics_task_counters") - before == 1


def test_burst_of_scrapes_is_one_execution_also_when_it_is_over_before_the_last_one_comes(
    start_exporter: StartExporter, calls: Callable[[str], int]
) -> None:
    exporter = start_exporter(limits={"min_interval_s": 1.0})
    time.sleep(1.1)
    before = calls("metrics_task_counters")
    threads, answers = scrape_in_background(exporter, 20)
    for thread in threads:
        thread.join(10)
    assert [a.value("phoenix_up") for a in answers] == [1.0] * 20
    assert calls("metrics_task_counters") - before == 1


def test_abandoned_scrape_is_aborted_on_the_server_too(cluster: Cluster, start_exporter: StartExporter) -> None:
    exporter = start_exporter(limits=PATIENT)
    lock = cluster.lock("agents")
    try:
        exporter.abandon_after(0.3)
        wait_until(lambda: cluster.exporter_backends() == 0, 1.0, "the server stopped working for the client that left")
    finally:
        lock.close()
    answer = exporter.get()
    assert answer.value("phoenix_up") == 1
    assert answer.value("phoenix_exporter_executions_aborted_total", reason="abandoned") == 1


def test_client_that_leaves_does_not_take_the_others_answer_away(cluster: Cluster, start_exporter: StartExporter) -> None:
    exporter = start_exporter(limits=PATIENT)
    lock = cluster.lock("agents")
    threads, answers = scrape_in_background(exporter, 1)
    time.sleep(0.1)
    exporter.abandon_after(0.2)
    time.sleep(0.1)
    lock.close()
    threads[0].join(10)
    assert answers[0].value("phoenix_agents_active") is not None
    assert answers[0].value("phoenix_exporter_executions_aborted_total", reason="abandoned") == 0


def test_nothing_leaks_over_two_hundred_scrapes_of_which_many_are_abandoned(cluster: Cluster, start_exporter: StartExporter) -> None:
    exporter = start_exporter(limits=PATIENT)
    exporter.get()
    before = exporter.descriptors()
    for round_ in range(200):
        if round_ % 4 == 3:
            exporter.abandon_after(0.002 * (round_ % 7))
        else:
            assert exporter.get().value("phoenix_up") == 1
        if round_ % 50 == 49:
            lock = cluster.lock("agents")
            exporter.abandon_after(0.1)
            lock.close()
    wait_until(lambda: cluster.exporter_backends() <= 1, 3, "at most one connection")
    # Connections of clients that hung up are closed two seconds later at the latest.
    wait_until(lambda: exporter.descriptors() <= before + 1, 5, f"as many descriptors as before ({before})")


@pytest.mark.parametrize(("header", "longest"), [("1", 1.0), ("0.4", 0.4)])
def test_scrape_timeout_of_the_scraper_is_kept(cluster: Cluster, start_exporter: StartExporter, header: str, longest: float) -> None:
    exporter = start_exporter(limits=PATIENT)
    lock = cluster.lock("agents")
    try:
        answer = exporter.get(headers={"X-Prometheus-Scrape-Timeout-Seconds": header})
    finally:
        lock.close()
    assert answer.status == 200
    assert answer.seconds < longest
    assert answer.value("phoenix_up") == 1
    assert answer.value("phoenix_db_connections_active") is not None
    assert answer.value("phoenix_exporter_collector_success", collector="agents") == 0


def test_a_value_whose_time_runs_out_between_two_scrapes_of_one_execution_stays(start_exporter: StartExporter) -> None:
    """The second answer is the first one's execution again: what was good enough for it is in both."""
    exporter = start_exporter(limits={"min_interval_s": 2.0}, collectors={"personas": {"ttl_s": 2.5}})
    assert exporter.get().value("phoenix_personas_total") is not None  # measured now
    time.sleep(2.1)
    assert exporter.get().value("phoenix_personas_total") is not None  # another execution, in which it is still young enough
    time.sleep(0.7)
    assert exporter.get().value("phoenix_personas_total") is not None  # the same execution; its time has run out meanwhile
