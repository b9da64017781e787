"""The exporter where it really runs: every metric of the spec, right values, and an answer when the database has none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from testinfra.host import Host

from deploys.lib.settings import HostSettings, Platform
from tests.hosts.conftest import CURL

OF_THE_SPEC = {
    "phoenix_db_connections_active",
    "phoenix_db_transactions_per_second",
    "phoenix_db_query_duration_seconds_count",
    "phoenix_db_query_duration_seconds_sum",
    "phoenix_personas_total",
    "phoenix_agents_active",
    "phoenix_tasks_completion_rate",
    "phoenix_tasks_created",
    "phoenix_tasks_completed",
    "phoenix_pipeline_value_total",
}


@pytest.fixture
def scrape(leader: Callable[[], Host], platform: Platform) -> Callable[[], dict[str, float]]:
    """The leader's: it alone speaks for the platform."""
    host = leader()
    address = platform.hosts[host.check_output("hostname")][HostSettings].address

    def read() -> dict[str, float]:
        text = host.check_output(f"{CURL} -f https://{address}:9188/metrics")
        return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}

    return read


def test_every_metric_of_the_spec_is_there(scrape: Callable[[], dict[str, float]]) -> None:
    scrape()
    time.sleep(1.2)  # a rate takes two looks
    assert scrape().keys() >= OF_THE_SPEC


def test_values_are_those_of_the_database(scrape: Callable[[], dict[str, float]], psql: Callable[..., str]) -> None:
    seen = scrape()
    assert seen["phoenix_up"] == 1
    assert seen["phoenix_personas_total"] == float(psql("SELECT count(*) FROM phoenix.personas"))
    value = psql("SELECT coalesce(sum(weighted_value), 0) FROM phoenix.opportunities WHERE stage <> 'closed_lost'")
    assert seen["phoenix_pipeline_value_total"] == pytest.approx(float(value))


def test_it_runs_without_rights_on_the_host(vps1: Host) -> None:
    pid = vps1.check_output("systemctl show -p MainPID --value phoenix-exporter")
    assert vps1.check_output(f"stat -c %U /proc/{pid}") == "phoenix-exporter"
    status = vps1.file(f"/proc/{pid}/status").content_string
    assert "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000000" in status


@pytest.fixture
def frozen_database(leader: Callable[[], Host]) -> Iterator[None]:
    """Every process of the leader's PostgreSQL stands still, as when its disk does not answer; not for as long as the watcher waits."""
    host = leader()
    host.check_output("pkill -STOP -u postgres -x postgres")
    yield
    host.check_output("pkill -CONT -u postgres -x postgres")
    host.check_output("for i in $(seq 60); do runuser -u postgres -- psql -XAtqc 'SELECT 1' && exit 0; sleep 0.5; done; exit 1")


@pytest.mark.changes
def test_a_frozen_database_is_told_at_once(scrape: Callable[[], dict[str, float]], frozen_database: None) -> None:
    time.sleep(1.1)  # an execution of less than a second ago, before the freeze, is still everybody's answer
    started = time.monotonic()
    seen = scrape()
    assert seen["phoenix_up"] == 0
    assert time.monotonic() - started < 3  # it promises 1 s; the rest is the way there
