"""The alert rules as promtool sees them: what is checked here, file by file, is what a deploy writes to the host."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploys.lib import monitoring
from deploys.lib.monitoring import Expected, Identity, Target
from deploys.lib.pki import Authority
from deploys.lib.rendering import TEMPLATES
from deploys.lib.settings import SettingsError
from tests.rules.conftest import CASES, RUNBOOK_URL, Rule, Toolbox
from tests.rules.promql import metrics

NEVER_QUIET = {"Watchdog"}
"""Fires always; that is what it is for."""

MAY_BE_ABSENT = {
    # The rule itself says what their absence means.
    "up",
    "phoenix_expected",
    "phoenix_db_connections_active",
    "phoenix_db_connections_max",
    "phoenix_db_connections_reserved",
    "phoenix_consciousness_current",
    "phoenix_consciousness_timestamp_seconds",
    "phoenix_tasks_created",
    "phoenix_tasks_completed",
    "phoenix_tls_not_after_timestamp_seconds",
    "node_textfile_mtime_seconds",
    "node_timex_maxerror_seconds",
    "node_timex_sync_status",
    "pg_replication_lag_seconds",
    "pg_stat_archiver_last_archive_age",
    "phoenix_backup_last_success_timestamp_seconds",
    "phoenix_backup_checked_timestamp_seconds",
    # Written in one file with the two before.
    "phoenix_backup_repository_reachable",
    "phoenix_backup_damaged",
    "phoenix_backup_archive_waiting_segments",
    # There is one where the last backup was tried; without any, BackupStale fires.
    "phoenix_backup_last_run_success",
    "phoenix_backup_last_run_timestamp_seconds",
    # When they are missing, the rule itself or SubscriptionDown fires.
    "phoenix_subscription_up",
    "phoenix_subscription_errors_total",
    "phoenix_subscription_conflicts_total",
    "phoenix_subscription_tables",
    "phoenix_replication_slot_ready",
    "pg_replication_slot_slot_current_wal_lsn",
    "pg_replication_slot_slot_confirmed_flush_lsn",
    # When they are missing, ConnectDown or OutboxNotDelivered fires.
    "phoenix_connect_up",
    "phoenix_connect_state",
    "phoenix_connect_restarts_total",
    "phoenix_outbox_slot_present",
    "phoenix_outbox_slot_lost",
    "phoenix_outbox_slot_safe_bytes",
    "phoenix_outbox_slot_lag_bytes",
    "phoenix_outbox_oldest_undelivered_seconds",
    # There is one for each replication slot, and a server may have none.
    "pg_replication_slot_slot_is_active",
    "pg_replication_slot_wal_status",
    # Only on the hosts that drill; when one is missing, DrillStale fires.
    "phoenix_drill_success",
    "phoenix_drill_last_success_timestamp_seconds",
    "phoenix_drill_rpo_seconds",
    "phoenix_drill_rto_seconds",
    # When it is missing, KafkaDown fires.
    "kafka_broker_state",
    # There is one for each group that has committed something; they come with phoenix_kafka_topic_drift.
    "phoenix_kafka_consumer_lag",
    "phoenix_kafka_consumer_committed",
    # Written in one file; when it is missing, HormoneParityUnknown fires.
    "phoenix_hormones_differences",
    "phoenix_hormones_checked_timestamp_seconds",
    # Written in one file with a time; when that is old or missing, TailscaleDown fires.
    "phoenix_tailscale_checked_timestamp_seconds",
    "phoenix_tailscale_up",
    "phoenix_tailscale_control_connected",
    # There are others to see, and a key with an end, or there are not.
    "phoenix_tailscale_peer_up",
    "phoenix_tailscale_peer_relayed",
    "phoenix_tailscale_key_expiry_timestamp_seconds",
    # Only on the hosts of Neo4j; when one is missing, Neo4jDown, GraphNotCompared or GraphBackupOld fires.
    "phoenix_neo4j_up",
    "phoenix_neo4j_checked_timestamp_seconds",
    "phoenix_graph_differences",
    "phoenix_graph_checked_timestamp_seconds",
    "phoenix_graph_backup_last_success_timestamp_seconds",
    # Armed later; when it is missing, WalArchiveStale fires.
    "pg_stat_archiver_failed_count",
}


@pytest.mark.parametrize("name", CASES)
def test_every_case_ends_as_written(tools: Toolbox, rendered: Path, name: str) -> None:
    done = tools.run(rendered, f"promtool test rules {name}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_rule_files_are_valid(tools: Toolbox, rendered: Path) -> None:
    done = tools.run(rendered, "promtool check rules --lint=all --lint-fatal rules/*.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_broken_rule_is_noticed(tools: Toolbox, rendered: Path, tmp_path: Path) -> None:
    """The check above can fail: the same file with one bracket less does."""
    (tmp_path / "broken.yml").write_text((rendered / "rules" / "phoenix.yml").read_text().replace("[1h])", "1h])", 1))
    assert tools.run(tmp_path, "promtool check rules broken.yml").returncode != 0


def test_prometheus_accepts_its_configuration(tools: Toolbox, targets: list[Target], tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text((authority := Authority.make()).certificate)
    (tmp_path / "ca.key").write_text(authority.key)
    identity = Identity("ca.crt", "ca.crt", "ca.key")
    own = [target for target in targets if target.job == "alertmanager"]
    text = monitoring.prometheus(targets=targets, alertmanagers=own, scrape_interval_s=15, identity=identity)
    (tmp_path / "prometheus.yml").write_text(text)
    (tmp_path / "web.yml").write_text(monitoring.web(identity))
    done = tools.run(tmp_path, "promtool check config prometheus.yml && promtool check web-config web.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = {one["job_name"]: one for one in yaml.safe_load(text)["scrape_configs"]}
    assert set(jobs) == set(monitoring.JOBS)
    assert all(one["scheme"] == "https" and one["tls_config"]["cert_file"] for one in jobs.values())
    assert jobs["phoenix"]["static_configs"] == [
        {"targets": ["10.66.0.11:9188"], "labels": {"job": "phoenix", "host": "vps1", "instance": "vps1:9188"}}
    ]


def test_targets_with_another_authority_get_a_scrape_of_their_own() -> None:
    targets = [
        Target("node", "vps1", "10.0.0.1", 9100),
        Target("node", "old", "10.0.0.2", 9100, ca="/etc/old.crt", server_name="old.example"),
    ]
    scrapes = yaml.safe_load(monitoring.prometheus(targets=targets, alertmanagers=[], scrape_interval_s=2))["scrape_configs"]
    assert len({one["job_name"] for one in scrapes}) == 2
    assert {(one["tls_config"]["ca_file"], one["tls_config"].get("server_name")) for one in scrapes} == {
        ("/etc/phoenix/tls/ca.crt", None),
        ("/etc/old.crt", "old.example"),
    }
    assert {one["static_configs"][0]["labels"]["job"] for one in scrapes} == {"node"}


def test_every_alert_is_fired_kept_quiet_and_robbed_of_its_series(rules: list[Rule], cases: list[dict[str, Any]]) -> None:
    have: dict[str, set[str]] = {}
    for case in cases:
        have.setdefault(case["alert"], set()).add(case["kind"])
    wanted = {rule.alert: {"fires", "quiet", "gone"} - ({"quiet"} if rule.alert in NEVER_QUIET else set()) for rule in rules}
    missing = {alert: sorted(kinds - have.get(alert, set())) for alert, kinds in wanted.items() if kinds - have.get(alert, set())}
    assert not missing, f"cases missing in tests/rules/*.test.yml: {missing}"
    assert set(have) <= set(wanted), f"cases of alerts that do not exist: {sorted(set(have) - set(wanted))}"


def test_cases_assert_what_their_names_say(cases: list[dict[str, Any]]) -> None:
    """`fires` expects that very alert, `quiet` expects none of it, `gone` expects some alert to fire nevertheless."""
    for case in cases:
        expectations = case.get("alert_rule_test", [])
        if case["kind"] == "gone":
            (query,) = case["promql_expr_test"]
            assert 'alertstate="firing"' in query["expr"], case["name"]
            assert [sample["value"] for sample in query["exp_samples"]] == [1], case["name"]
        else:
            assert [one["alertname"] for one in expectations] == [case["alert"]], case["name"]
            assert bool(expectations[0]["exp_alerts"]) == (case["kind"] == "fires"), case["name"]


def test_every_rule_of_an_alert_is_fired_by_a_case(rules: list[Rule], cases: list[dict[str, Any]]) -> None:
    """An alert may have several rules (a warning and a critical one, a value and its absence): each needs its own case."""
    fired = {
        (case["alert"], one["exp_labels"]["severity"], one["exp_labels"].get("measure", ""))
        for case in cases
        for test in case.get("alert_rule_test", [])
        for one in test["exp_alerts"]
    }
    assert {(rule.alert, rule.labels["severity"], rule.labels.get("measure", "")) for rule in rules} - fired == set()


def test_every_rule_tells_a_person_what_to_do(rules: list[Rule]) -> None:
    for rule in rules:
        assert re.fullmatch(r"\d+(s|m|h)", rule.hold), rule
        assert rule.labels["severity"] in monitoring.SEVERITIES, rule
        assert rule.annotations["runbook_url"] == f"{RUNBOOK_URL}{rule.alert}.md", rule
        summary = rule.annotations["summary"]
        assert summary.endswith(".") and 20 < len(summary) < 240, rule
        names_where = "$labels.host" in summary or "$labels.scope" in summary
        assert names_where or rule.alert in {"Watchdog", "ReplicaMissing"}, f"{rule.alert}: the summary does not say where"


def test_no_rule_lives_on_a_value_that_may_vanish_silently(rules: list[Rule]) -> None:
    watched = {rule.labels["metric"] for rule in rules if rule.alert == "MetricMissing"}
    used = {name for rule in rules if rule.alert != "MetricMissing" for name in metrics(rule.expr)}
    assert used - watched - MAY_BE_ABSENT == set(), "add them to `required` in missing.yml.j2, or say in MAY_BE_ABSENT who notices"
    assert used >= MAY_BE_ABSENT


def test_rules_that_need_an_exporter_are_silenced_by_its_alert(rules: list[Rule]) -> None:
    needs = {rule.labels["needs"] for rule in rules if "needs" in rule.labels}
    text = (TEMPLATES / "alertmanager" / "alertmanager.yml.j2").read_text()
    assert needs <= set(monitoring.JOBS)
    assert all(f'Down", "{job}")' in text for job in needs)


def test_a_threshold_of_the_inventory_reaches_the_rule() -> None:
    text = monitoring.rules(expected=[], runbook_url=RUNBOOK_URL, overrides={"consciousness": 42.5})["phoenix.yml"]
    assert "phoenix_consciousness_current < 42.5" in text
    assert "105.75" not in text


def test_the_specs_thresholds_are_the_defaults(rules: list[Rule]) -> None:
    expressions = [rule.expr for rule in rules]
    assert "phoenix_db_connections_active > 90" in expressions
    assert "phoenix_consciousness_current < 105.75" in expressions


def test_an_unknown_threshold_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="conciousness is not a threshold of any alert rule: did you mean consciousness"):
        monitoring.rules(expected=[], runbook_url=RUNBOOK_URL, overrides={"conciousness": 1.0})


def test_every_default_threshold_is_used_by_a_rule() -> None:
    templates = "".join(path.read_text() for path in monitoring.RULES.glob("*.j2"))
    unused = {name for name in monitoring.rule_values({}) if f"[[ rules.{name} ]]" not in templates}
    assert unused == set()


def test_what_is_expected_is_recorded_for_each_host() -> None:
    text = monitoring.rules(expected=[Expected("vps2", "archive"), Expected("vps1", "node")], runbook_url=RUNBOOK_URL)["expected.yml"]
    recorded = [rule["labels"] for rule in yaml.safe_load(text)["groups"][0]["rules"]]
    assert recorded == [{"feature": "node", "host": "vps1"}, {"feature": "archive", "host": "vps2"}]


def test_a_feature_that_no_rule_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="host vps1: nothing is known of the feature archives"):
        Expected("vps1", "archives")
