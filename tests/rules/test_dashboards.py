"""The committed dashboards are the ones that ops/dashboards.py describes, and Grafana can lay them out."""

from __future__ import annotations

import json

import pytest

from ops import dashboards
from tests.rules.promql import metrics


def test_the_committed_files_are_what_the_description_makes() -> None:
    committed = {path.name: path.read_text() for path in dashboards.DIRECTORY.iterdir()}
    assert committed == {f"{one.uid}.json": dashboards.text(one) for one in dashboards.DASHBOARDS}, "run: python -m ops.dashboards"


@pytest.mark.parametrize("dashboard", dashboards.DASHBOARDS, ids=lambda one: one.uid)
def test_no_panel_lies_on_another_or_beside_the_page(dashboard: dashboards.Dashboard) -> None:
    panels = json.loads(dashboards.text(dashboard))["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_every_panel_asks_something_of_the_chosen_hosts() -> None:
    for dashboard in dashboards.DASHBOARDS:
        for panel in json.loads(dashboards.text(dashboard))["panels"]:
            assert panel["type"] == "row" or all(metrics(target["expr"]) for target in panel["targets"]), panel["title"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("phoenix_up == 0", {"phoenix_up"}),
        ('sum by (host) (rate(a_total{job=~"x|y"}[5m])) / on (host) group_left (name) b', {"a_total", "b"}),
        ('phoenix_expected{feature="x"} unless on (host) (y > -Inf)', {"phoenix_expected", "y"}),
        ("histogram_quantile(0.95, sum by (host, le) (rate(c_bucket[5m] offset 1h)))", {"c_bucket"}),
        ("time() - d > 24 * 3600 or vector(0)", {"d"}),
        ('label_replace(e, "host", "$1", "instance", "(.*):.*") and f', {"e", "f"}),
    ],
)
def test_names_of_metrics_are_read_from_expressions(expression: str, expected: set[str]) -> None:
    assert metrics(expression) == expected
