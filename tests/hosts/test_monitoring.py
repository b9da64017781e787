"""From a fault to the person who is told: Prometheus sees it, Alertmanager routes it, the receiver has it, and its end as well."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from testinfra.host import Host

from deploys.lib.settings import HostSettings, Platform
from tests.hosts.conftest import CURL, Prometheus

JOBS = {
    *("phoenix", "node", "postgres", "prometheus", "alertmanager", "patroni", "etcd", "haproxy", "pgbouncer"),
    *("kafka", "connect", "stream", "redis", "n8n"),
}


@pytest.fixture
def received(world: Host, platform: Platform) -> Callable[[], list[dict[str, Any]]]:
    """Alerts that the receiver has got so far."""
    address = platform.hosts["world"][HostSettings].address
    return lambda: list(json.loads(world.check_output(f"curl -sf http://{address}:9099/alerts"))["alerts"])


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"{what} within {seconds} s"
        time.sleep(1)


def test_every_target_is_up(prometheus: Prometheus) -> None:
    targets = prometheus.get("/api/v1/targets?state=active")["activeTargets"]
    assert {target["labels"]["job"] for target in targets} == JOBS
    assert [target["scrapeUrl"] for target in targets if target["health"] != "up"] == []
    assert all(target["scrapeUrl"].startswith("https://") for target in targets)


def test_alertmanager_is_reached_and_notifies(prometheus: Prometheus) -> None:
    # Prometheus finds it again some seconds after each reload.
    wait_for(lambda: len(prometheus.get("/api/v1/alertmanagers")["activeAlertmanagers"]) == 1, 30, "Prometheus knows its Alertmanager")
    assert prometheus.value("sum(alertmanager_notifications_failed_total)") == 0 or (
        prometheus.value("sum(increase(alertmanager_notifications_failed_total[5m]))") == 0
    )


@pytest.mark.slow
@pytest.mark.usefixtures("prometheus")
def test_the_dead_man_s_switch_is_pressed(received: Callable[[], list[dict[str, Any]]]) -> None:
    wait_for(lambda: any(alert["labels"]["alertname"] == "Watchdog" for alert in received()), 120, "the watchdog arrives")


@pytest.mark.changes
def test_a_fault_arrives_and_its_end_too(vps1: Host, prometheus: Prometheus, received: Callable[[], list[dict[str, Any]]]) -> None:
    """A silent exporter: the alert fires, names its runbook, reaches the receiver; once it runs again it is told as resolved."""
    started = time.time()

    def told(status: str) -> list[dict[str, Any]]:
        return [
            alert
            for alert in received()
            if alert["labels"]["alertname"] == "PhoenixExporterDown" and alert["status"] == status and alert["receivedAt"] >= started
        ]

    vps1.check_output("systemctl stop phoenix-exporter")
    try:
        wait_for(lambda: told("firing"), 300, "the alert arrives")
    finally:
        vps1.check_output("systemctl start phoenix-exporter")
    (alert, *_) = told("firing")
    assert alert["annotations"]["runbook_url"].endswith("/PhoenixExporterDown.md")
    assert "vps1" in alert["annotations"]["summary"]
    wait_for(lambda: told("resolved"), 240, "its end is told")


def test_the_receivers_password_is_not_on_show(prometheus: Prometheus) -> None:
    status = json.loads(prometheus.host.check_output(f"{CURL} -f {prometheus.alertmanager_url}/api/v2/status"))
    config = status["config"]["original"]
    assert "receivers:" in config
    assert set(re.findall(r"password: *(.*)", config)) <= {"<secret>"}
