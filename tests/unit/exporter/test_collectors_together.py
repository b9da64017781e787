"""What must hold for the set of collectors, and the promises that the documentation makes about it."""

import re
from pathlib import Path

import pytest
from phoenix_exporter.collector import EVERY_ROLE, Role
from phoenix_exporter.collectors import ALL
from phoenix_exporter.metric import capped
from prometheus_client.metrics_core import GaugeMetricFamily

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "exporter.md"


def test_database_comes_first_and_is_never_cached():
    assert ALL[0].name == "database"
    assert ALL[0].ttl_s == 0
    assert ALL[0].roles == EVERY_ROLE


@pytest.mark.parametrize("role", Role)
def test_one_scrape_is_at_most_ten_statements(role):
    assert len([collector for collector in ALL if role in collector.roles]) <= 10
    assert all(";" not in collector.sql for collector in ALL)


def test_what_is_the_platforms_is_said_by_its_leader_alone():
    """A standby and a copy have the same rows: their answers would be told and added up twice."""
    elsewhere = {role: {collector.name for collector in ALL if role in collector.roles} for role in Role}
    assert elsewhere[Role.STANDBY] == {"database", "statements", "replication"}
    assert elsewhere[Role.COPY] == {"database", "statements", "replication", "jobs"}


def test_names_are_unique():
    names = [kind.name for collector in ALL for kind in collector.metrics]
    assert len(names) == len(set(names))
    assert len({collector.name for collector in ALL}) == len(ALL)


@pytest.mark.parametrize("collector", ALL, ids=lambda c: c.name)
def test_every_column_of_the_table_is_in_the_statement(collector, columns):
    assert columns(collector) == set()


@pytest.mark.parametrize("collector", ALL, ids=lambda c: c.name)
def test_every_metric_is_documented_with_its_type_and_labels(collector):
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    for kind in collector.metrics:
        labels = "{" + ",".join(kind.labels) + "}" if kind.labels else ""
        found = [line for line in lines if f"`{kind.name}{labels}`" in line]
        assert found, f"{kind.name}{labels} is not in docs/exporter.md"
        assert re.search(rf"\| {kind.type} \|", found[0]), f"{kind.name} is a {kind.type}"


def test_cap_keeps_the_first_label_sets_and_counts_the_rest():
    family = GaugeMetricFamily("phoenix_test", "help", labels=["x"])
    for n in range(10):
        family.add_metric([str(n)], n)
    assert capped(family, 4) == 6
    assert [sample.value for sample in family.samples] == [0, 1, 2, 3]
    assert capped(family, 4) == 0
