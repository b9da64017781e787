"""Rules and dashboards against the running Prometheus: every expression is executed, every metric in one exists;
and the questions that the runbooks tell a person to ask, asked."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any

import pytest
from testinfra.host import Host

from deploys.lib.settings import Platform
from ops import dashboards
from tests.rules import runbooks
from tests.rules.promql import metrics

ABSENT_FOR_NOW = {
    # Empty until somebody writes the first measurement, or a team does.
    "phoenix_consciousness_current",
    "phoenix_consciousness_timestamp_seconds",
    "phoenix_consciousness_team_current",
    # Two observations have to lie behind the exporter.
    "phoenix_db_transactions_per_second",
    # After the first night.
    "phoenix_graph_backup_last_success_timestamp_seconds",
    # Hosts with tags have keys without an end.
    "phoenix_tailscale_key_expiry_timestamp_seconds",
    # Only while there are replication slots.
    "pg_replication_slot_slot_is_active",
    "pg_replication_slot_wal_status",
    "pg_replication_slots_pg_wal_lsn_diff",
    # A container may not read the kernel's clock discipline; the rule on it is armed where it can.
    "node_timex_maxerror_seconds",
    "node_timex_sync_status",
    # Before the first restore drill.
    *(
        f"phoenix_drill_{name}"
        for name in (
            "success",
            "last_success_timestamp_seconds",
            "rpo_seconds",
            "rto_seconds",
            "lost_rows",
            "rows_compared",
            "step_seconds",
            "restored_bytes",
        )
    ),
    # PostgreSQL 18 counts them.
    "phoenix_subscription_conflicts_total",
    # Nothing is firing.
    "ALERTS",
}
"""Metrics that a healthy, young platform may lack. Every other name in a rule or a dashboard has to exist."""


@pytest.fixture(scope="module")
def live_rules(prometheus: Any) -> list[dict[str, Any]]:
    """Every rule that the running Prometheus has loaded."""
    return [rule for group in prometheus.get("/api/v1/rules")["groups"] for rule in group["rules"]]


def test_every_rule_is_evaluated_without_error(prometheus: Any, live_rules: list[dict[str, Any]]) -> None:
    assert {rule["name"]: rule.get("lastError") for rule in live_rules if rule["health"] == "err"} == {}
    for rule in live_rules:
        if rule["health"] == "unknown":  # its first turn has not come yet
            prometheus.query(rule["query"])  # asserts success
    named = {"DatabaseDown", "DatabaseConnectionsHigh", "ConsciousnessBelowThreshold", "TaskBacklogGrowing", "Watchdog"}
    assert named <= {rule["name"] for rule in live_rules}


@pytest.mark.parametrize("dashboard", dashboards.DASHBOARDS, ids=lambda one: one.uid)
def test_every_query_of_a_dashboard_can_be_executed(prometheus: Any, dashboard: dashboards.Dashboard) -> None:
    found = [(title, metrics(expression), prometheus.query(expression)) for title, expression in dashboards.queries(dashboard)]
    filled = {title: bool(rows) for title, names, rows in found if not names & ABSENT_FOR_NOW}
    assert sum(filled.values()) > len(filled) / 2, f"most panels are empty: {[title for title, full in filled.items() if not full]}"


def _in_dashboards() -> set[str]:
    """Every metric that a dashboard names."""
    return {name for dashboard in dashboards.DASHBOARDS for _, expression in dashboards.queries(dashboard) for name in metrics(expression)}


def test_every_metric_named_in_a_rule_or_dashboard_exists(prometheus: Any, live_rules: list[dict[str, Any]]) -> None:
    used = {name for rule in live_rules if rule["type"] == "alerting" for name in metrics(rule["query"])}
    used |= _in_dashboards()
    present = set(prometheus.get("/api/v1/label/__name__/values"))
    assert used - present - ABSENT_FOR_NOW == set()


def test_the_names_that_may_be_absent_are_still_used(live_rules: list[dict[str, Any]]) -> None:
    used = {name for rule in live_rules for name in metrics(rule["query"])}
    used |= _in_dashboards()
    assert used >= ABSENT_FOR_NOW


def test_every_host_is_expected_with_all_its_exporters(prometheus: Any) -> None:
    expected = {(one["metric"]["host"], one["metric"]["feature"]) for one in prometheus.query("phoenix_expected")}
    scraped = {(one["metric"]["host"], one["metric"]["job"]) for one in prometheus.query("up == 1")}
    assert scraped <= expected
    assert {feature for _, feature in expected} >= {"phoenix", "node", "postgres", "patroni", "etcd", "postgresql", "tls"}


def test_certificates_are_looked_at_on_every_host(prometheus: Any) -> None:
    hosts = {one["metric"]["host"] for one in prometheus.query('phoenix_expected{feature="tls"}')}
    days = {
        one["metric"]["host"]: float(one["value"][1]) / 86400
        for one in prometheus.query("phoenix_tls_not_after_timestamp_seconds - time()")
    }
    assert set(days) == hosts
    assert all(value > 21 for value in days.values()), days


READS = ("SELECT", "SHOW", "TABLE")


def _questions() -> list[runbooks.Command]:
    """Commands of the runbooks that only ask, and have nothing to fill in."""
    return [one for one in runbooks.commands() if not runbooks.PLACEHOLDER.search(" ".join(one.words))]


def test_the_questions_of_the_runbooks_can_be_asked_to_the_database(leader: Callable[[], Host]) -> None:
    """Every statement of a runbook that only reads is executed, in one session."""
    asked = []
    for one in _questions():
        if one.sql.startswith(READS) and not re.search(r"pg_terminate|pg_cancel|pg_drop|pg_switch", one.sql):
            role = one.words[one.words.index("--role") + 1] if "--role" in one.words else "postgres"
            asked += ["-c", f"SET ROLE {role}", "-c", one.sql]
    assert len(asked) > 40
    words = ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "--echo-errors", "-v", "ON_ERROR_STOP=1", "-d", "phoenix", *asked]
    done = leader().run("cd / && " + shlex.join(words))
    assert done.succeeded, done.stderr


def test_the_questions_of_the_runbooks_can_be_asked_to_prometheus(prometheus: Any) -> None:
    asked = [shlex.split(one.remote)[1] for one in _questions() if one.remote.startswith("phoenix-query ")]
    assert len(asked) > 10
    for expression in asked:
        prometheus.query(expression)  # asserts success


def test_the_programs_of_the_runbooks_are_on_a_host(on: Callable[[str], Host], platform: Platform) -> None:
    programs = {word for one in runbooks.commands() for word in re.findall(r"(?:^|&& |\| )([\w-]+)", one.remote)}
    missing = {program for program in programs if not any(on(name).run("command -v %s", program).succeeded for name in platform.hosts)}
    assert not missing
