"""Prometheus sees all that there is, Alertmanager reaches the receiver. A fault and its end that are told: tests/hosts/test_drill.py."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.hosts.conftest import CURL, Prometheus
from tests.waiting import wait_until

JOBS = {
    *("phoenix", "node", "postgres", "prometheus", "alertmanager", "patroni", "etcd", "haproxy", "pgbouncer"),
    *("kafka", "connect", "stream", "redis", "n8n"),
}


def test_every_target_is_up(prometheus: Prometheus) -> None:
    targets = prometheus.get("/api/v1/targets?state=active")["activeTargets"]
    assert {target["labels"]["job"] for target in targets} == JOBS
    assert [target["scrapeUrl"] for target in targets if target["health"] != "up"] == []
    assert all(target["scrapeUrl"].startswith("https://") for target in targets)


def test_alertmanager_is_reached_and_notifies(prometheus: Prometheus) -> None:
    # Prometheus finds it again some seconds after each reload.
    wait_until(lambda: len(prometheus.get("/api/v1/alertmanagers")["activeAlertmanagers"]) == 1, 30, "Prometheus knows its Alertmanager")
    assert prometheus.value("sum(alertmanager_notifications_failed_total)") == 0 or (
        prometheus.value("sum(increase(alertmanager_notifications_failed_total[5m]))") == 0
    )


@pytest.mark.slow
@pytest.mark.usefixtures("prometheus")
def test_the_dead_man_s_switch_is_pressed(received: Callable[[], list[dict[str, Any]]]) -> None:
    wait_until(lambda: any(alert["labels"]["alertname"] == "Watchdog" for alert in received()), 120, "the watchdog arrives")


def test_the_receivers_password_is_not_on_show(prometheus: Prometheus) -> None:
    status = json.loads(prometheus.host.check_output(f"{CURL} -f {prometheus.alertmanager_url}/api/v2/status"))
    config = status["config"]["original"]
    assert "receivers:" in config
    assert set(re.findall(r"password: *(.*)", config)) <= {"<secret>"}
