"""Who is told of what: Alertmanager's own configuration, judged by amtool and by a running Alertmanager."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from deploys.lib import monitoring
from deploys.lib.monitoring import Timing
from deploys.lib.settings import Receiver, SettingsError, WebhookReceiver
from tests.rules.conftest import Rule, Toolbox

PASSWORDS = {"on-call": "/etc/prometheus/smtp-on-call.password"}


@pytest.fixture
def configured(receivers: list[Receiver], tmp_path: Path) -> Path:
    (tmp_path / "alertmanager.yml").write_text(monitoring.alertmanager(receivers=receivers, password_files=PASSWORDS))
    return tmp_path


def test_alertmanager_accepts_its_configuration(tools: Toolbox, configured: Path) -> None:
    done = tools.run(configured, "amtool check-config alertmanager.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_go_by_severity_and_none_is_lost(tools: Toolbox, configured: Path, rules: list[Rule]) -> None:
    samples = {rule.labels["severity"]: rule.labels for rule in rules}
    assert set(samples) == set(monitoring.SEVERITIES)
    questions = {severity: " ".join(f"{key}={value}" for key, value in labels.items()) for severity, labels in samples.items()}
    questions["critical, for want of a severity"] = "alertname=SomethingNew"
    questions["critical, for want of a known severity"] = "alertname=SomethingNew severity=page"
    for expected, labels in questions.items():
        done = tools.run(configured, f"amtool config routes test --config.file=alertmanager.yml {labels}")
        assert done.stdout.strip() == expected.split(",")[0], f"{labels}: {done.stdout} {done.stderr}"


def test_each_severity_reaches_exactly_the_receivers_that_want_it(configured: Path) -> None:
    found = {one["name"]: one for one in yaml.safe_load((configured / "alertmanager.yml").read_text())["receivers"]}
    assert [one["to"] for one in found["critical"]["email_configs"]] == ["a@example.org", "b@example.org"]
    assert [one["url"] for one in found["critical"]["webhook_configs"]] == ["https://chat.example.org/hook"]
    assert [one["to"] for one in found["warning"]["email_configs"]] == ["a@example.org", "b@example.org"]
    assert "webhook_configs" not in found["warning"]
    assert [one["url"] for one in found["watchdog"]["webhook_configs"]] == ["https://watchdog.example.org/phoenix"]
    assert "email_configs" not in found["watchdog"]


def test_passwords_are_in_files_of_their_own(configured: Path) -> None:
    text = (configured / "alertmanager.yml").read_text()
    assert f'auth_password_file: "{PASSWORDS["on-call"]}"' in text
    assert "auth_password:" not in text


def test_mail_is_only_sent_encrypted(configured: Path) -> None:
    receivers = yaml.safe_load((configured / "alertmanager.yml").read_text())["receivers"]
    assert all(mail["require_tls"] is True for one in receivers for mail in one.get("email_configs", []))


def test_a_platform_without_a_receiver_is_refused() -> None:
    with pytest.raises(SettingsError, match="monitoring_receivers is empty"):
        monitoring.alertmanager(receivers=[], password_files={})


@pytest.mark.parametrize("missing", monitoring.MUST_REACH)
def test_a_severity_that_nobody_hears_is_refused(missing: str) -> None:
    wanted = [severity for severity in monitoring.SEVERITIES if severity != missing]
    one = Receiver.model_validate({"name": "one", "severities": wanted, "webhook": {"url": "https://example.org/"}})
    with pytest.raises(SettingsError, match=f"nobody receives alerts of severity {missing}"):
        monitoring.alertmanager(receivers=[one], password_files={})


def test_a_mail_login_without_a_password_is_refused(receivers: list[Receiver]) -> None:
    with pytest.raises(SettingsError, match="on-call has a username but no password"):
        monitoring.alertmanager(receivers=receivers, password_files={})


SCENARIOS = {
    "a critical alert hides the warning of the same name": (
        ["HostMemoryLow severity=critical needs=node host=vps1"],
        ["HostMemoryLow severity=warning needs=node host=vps2", "HostUnitFailed severity=warning needs=node host=vps1"],
        {"HostMemoryLow severity=warning needs=node host=vps1"},
    ),
    "one full disk does not hide another": (
        ["HostDiskAlmostFull severity=critical needs=node host=vps1 mountpoint=/"],
        ["HostDiskAlmostFull severity=warning needs=node host=vps1 mountpoint=/srv"],
        set(),
    ),
    "a database that is down hides what both exporters say of it": (
        ["DatabaseDown severity=critical host=vps1"],
        ["ConsciousnessBelowThreshold severity=critical needs=phoenix host=vps2", "HostUnitFailed severity=warning needs=node host=vps1"],
        {
            "ConsciousnessBelowThreshold severity=critical needs=phoenix host=vps1",
            "DatabaseDeadRows severity=warning needs=postgres host=vps1",
        },
    ),
    "an exporter that is down hides what needs it": (
        ["PhoenixExporterDown severity=critical host=vps1"],
        ["DatabaseDeadRows severity=warning needs=postgres host=vps1"],
        {"TaskBacklogGrowing severity=warning needs=phoenix host=vps1"},
    ),
    "a host that is down hides everything on it, and nothing elsewhere": (
        ["HostDown severity=critical host=vps1"],
        ["DatabaseDown severity=critical host=vps2", "Watchdog severity=watchdog"],
        {"DatabaseDown severity=critical host=vps1", "NodeExporterDown severity=warning host=vps1"},
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_inhibition(tools: Toolbox, receivers: list[Receiver], tmp_path: Path, name: str) -> None:
    """A real Alertmanager, with our configuration but nobody to tell, is given the alerts and asked which of them it holds back."""
    causes, others, hidden = SCENARIOS[name]
    quiet = [
        Receiver(name="none", severities=list(one.severities), webhook=WebhookReceiver(url="http://127.0.0.1:9/")) for one in receivers
    ]
    text = monitoring.alertmanager(receivers=quiet, password_files={}, timing=Timing(group_wait_s=600))
    (tmp_path / "alertmanager.yml").write_text(text)
    adds = "\n".join(f"amtool alert add --alertmanager.url=$url {alert}" for alert in [*causes, *others, *sorted(hidden)])
    script = f"""
        set -eu
        url=http://127.0.0.1:29093
        prometheus-alertmanager --config.file=alertmanager.yml --storage.path=am --cluster.listen-address= \\
            --web.listen-address=127.0.0.1:29093 >am.log 2>&1 &
        trap 'kill $! 2>/dev/null; wait $! || true' EXIT
        ready() {{ amtool alert query --alertmanager.url=$url >/dev/null 2>&1; }}
        for try in $(seq 50); do ready && break; kill -0 $! || break; sleep 0.2; done
        ready || {{ cat am.log >&2; exit 1; }}
        {adds}
        amtool alert query --alertmanager.url=$url --inhibited -o json
        echo "and told:"
        amtool alert query --alertmanager.url=$url --active -o json
    """
    done = tools.run(tmp_path, script)
    assert done.returncode == 0, done.stdout + done.stderr
    held_back, told = ({_words(one["labels"]) for one in json.loads(part)} for part in done.stdout.split("and told:"))
    assert held_back == {_sorted(alert) for alert in hidden}
    assert told == {_sorted(alert) for alert in [*causes, *others]}


def _words(labels: dict[str, str]) -> str:
    rest = sorted(f"{key}={value}" for key, value in labels.items() if key != "alertname")
    return " ".join([labels["alertname"], *rest])


def _sorted(alert: str) -> str:
    first, *rest = alert.split()
    return " ".join([first, *sorted(rest)])
