"""Who says what: the platform's figures come from the server that takes its writes, and follow it without a restart of the exporter."""

from __future__ import annotations

from tests.exporter.cluster import Cluster
from tests.exporter.conftest import Answer, StartExporter
from tests.waiting import wait_until

OF_THE_PLATFORM = ("phoenix_personas_total", "phoenix_agents_active", "phoenix_tasks_created_total", "phoenix_pipeline_value_total")


def collectors(answer: Answer) -> dict[str, float]:
    """Whether each collector that the answer speaks of succeeded."""
    return {
        dict(labels)["collector"]: value for (name, labels), value in answer.samples.items() if name == "phoenix_exporter_collector_success"
    }


def test_a_standby_is_silent_about_the_platform_until_it_leads(cluster: Cluster, start_exporter: StartExporter) -> None:
    cluster.stop()
    (cluster.data / "standby.signal").touch()
    cluster.start()
    exporter = start_exporter()
    answer = exporter.get()
    assert answer.value("phoenix_db_in_recovery") == 1
    assert collectors(answer) == {"database": 1, "statements": 1, "replication": 1}
    assert [answer.value(name) for name in OF_THE_PLATFORM] == [None] * len(OF_THE_PLATFORM)
    connects = answer.value("phoenix_exporter_database_connects_total", result="ok")

    with cluster.admin() as witness:
        witness.execute("SELECT pg_promote()")

    wait_until(lambda: exporter.get().value("phoenix_db_in_recovery") == 0, 10, "the server leads")
    answer = exporter.get()
    assert None not in [answer.value(name) for name in OF_THE_PLATFORM]
    expected = {"database", "consciousness", "agents", "tasks", "pipeline", "jobs", "ingestion", "outbox", "statements", "personas"}
    assert set(collectors(answer)) == expected
    assert set(collectors(answer).values()) == {1}
    assert answer.value("phoenix_exporter_database_connects_total", result="ok") == connects


def test_a_copy_speaks_of_its_subscription_and_not_of_the_platform(cluster: Cluster, start_exporter: StartExporter) -> None:
    with cluster.admin() as witness:
        witness.execute("CREATE SUBSCRIPTION probe CONNECTION 'host=127.0.0.1 dbname=nowhere' PUBLICATION none WITH (connect = false)")
        try:
            answer = start_exporter(copy=True).get()
        finally:
            witness.execute("ALTER SUBSCRIPTION probe SET (slot_name = NONE)")
            witness.execute("DROP SUBSCRIPTION probe")
    assert collectors(answer) == {"database": 1, "statements": 1, "replication": 1, "jobs": 1}
    assert [answer.value(name) for name in OF_THE_PLATFORM] == [None] * len(OF_THE_PLATFORM)
    assert answer.value("phoenix_subscription_up", subscription="probe") == 0
    assert answer.value("phoenix_subscription_errors_total", subscription="probe", kind="apply") == 0
    assert answer.value("phoenix_subscription_tables", subscription="probe", state="ready") == 0
