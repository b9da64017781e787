"""The rule files as they land on a host, and the programs that judge them.

promtool, amtool and Alertmanager are the watching machine's own (the versions that will read the files), asked over SSH. `PHOENIX_PROMTOOL`
names a local promtool instead; amtool and prometheus-alertmanager are then taken from the directory it is in.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploys.lib import monitoring
from deploys.lib.monitoring import Expected, Target
from deploys.lib.settings import ROOT, EmailReceiver, Receiver, WebhookReceiver, load
from lab.config import Lab

HERE = Path(__file__).parent
LAB_SSH = Lab.from_environment().paths.ssh_config
WATCHER = load(ROOT / "inventory" / "lab.py").group("monitoring")[0].name
RUNBOOK_URL = "https://runbooks.example.org/"
PORTS = {
    "phoenix": 9188,
    "node": 9100,
    "postgres": 9187,
    "prometheus": 9090,
    "alertmanager": 9093,
    "patroni": 8008,
    "etcd": 2379,
    "haproxy": 8405,
    "pgbouncer": 9127,
    "connect": 9405,
    "redis": 9121,
    "n8n": 5678,
    "kafka": 9404,
    "stream": 9195,
}
PROGRAMS = ("promtool", "amtool", "prometheus-alertmanager")
CASES = sorted(path.name for path in HERE.glob("*.test.yml"))

RECEIVERS = [
    Receiver(
        name="on-call",
        severities=["critical", "warning", "info"],
        email=EmailReceiver(
            to=["a@example.org", "b@example.org"], sender="phoenix@example.org", smarthost="mail.example.org:587", username="phoenix"
        ),
    ),
    Receiver(name="chat", severities=["critical"], webhook=WebhookReceiver(url="https://chat.example.org/hook")),
    Receiver(name="dead-mans-switch", severities=["watchdog"], webhook=WebhookReceiver(url="https://watchdog.example.org/phoenix")),
]


@dataclass(frozen=True)
class Rule:
    """One alerting rule of a rendered file."""

    file: str
    group: str
    alert: str
    expr: str
    hold: str
    labels: dict[str, str]
    annotations: dict[str, str]


@dataclass(frozen=True)
class Toolbox:
    """Runs shell scripts in a copy of a directory, where promtool, amtool and prometheus-alertmanager are in the PATH."""

    local: Path | None

    def run(self, directory: Path, script: str) -> subprocess.CompletedProcess[str]:
        """Run `script` in `directory` (or in the lab machine's copy of it). stdout and stderr are text; the copy is removed afterwards."""
        if self.local is not None:
            path = f"{self.local}{os.pathsep}{os.environ['PATH']}"
            return subprocess.run(
                ["sh", "-c", script], cwd=directory, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
            )
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(directory, arcname=".")
        there = f'd=$(mktemp -d) && trap \'rm -rf "$d"\' EXIT && tar -x -C "$d" && cd "$d" && sh -c {shlex.quote(script)}'
        done = subprocess.run(["ssh", "-F", str(LAB_SSH), WATCHER, there], input=archive.getvalue(), capture_output=True, check=False)
        return subprocess.CompletedProcess(script, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Toolbox:
    if named := os.environ.get("PHOENIX_PROMTOOL"):
        programs = Path(named).absolute().parent
        local = tmp_path_factory.mktemp("bin")
        for name in PROGRAMS:  # only these: whatever else lies beside them stays out of the PATH
            if not os.access(programs / name, os.X_OK):
                pytest.fail(f"PHOENIX_PROMTOOL={named}: there is no program {programs / name}: install it, or unset the variable.")
            (local / name).symlink_to(programs / name)
        return Toolbox(local)
    if not LAB_SSH.exists():
        pytest.fail("There is no promtool: the lab is not up ('make up' starts it), and PHOENIX_PROMTOOL names no local one.")
    return Toolbox(None)


@pytest.fixture(scope="session")
def targets() -> list[Target]:
    """One host that has everything."""
    return [Target(job, "vps1", "10.66.0.11", port, ca="ca.crt") for job, port in PORTS.items()]


@pytest.fixture(scope="session")
def rendered(targets: list[Target], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the rule files, with the default thresholds, and the test cases beside them."""
    directory = tmp_path_factory.mktemp("rules")
    (directory / "rules").mkdir()
    features = ("postgresql", "platform", "tls", "drill", "neo4j", "graph_backup")
    expected = monitoring.expected_of(targets, [Expected("vps1", feature) for feature in features])
    for name, text in monitoring.rules(expected=expected, runbook_url=RUNBOOK_URL).items():
        (directory / "rules" / name).write_text(text)
    for name in CASES:
        (directory / name).write_bytes((HERE / name).read_bytes())
    return directory


def alert_rules(directory: Path) -> list[Rule]:
    """Every alerting rule of the rendered files in `directory`/rules."""
    found = []
    for path in sorted((directory / "rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            found += [
                Rule(path.name, group["name"], one["alert"], one["expr"], one["for"], one["labels"], one["annotations"])
                for one in group["rules"]
                if "alert" in one
            ]
    return found


@pytest.fixture(scope="session")
def rules(rendered: Path) -> list[Rule]:
    return alert_rules(rendered)


@pytest.fixture(scope="session")
def cases() -> list[dict[str, Any]]:
    """Every promtool test case, with `alert`, `kind` (fires, quiet, gone) and `note` read from its name."""
    found = []
    for name in CASES:
        for case in yaml.safe_load((HERE / name).read_text())["tests"]:
            parts = re.fullmatch(r"(?P<alert>\w+): (?P<kind>fires|quiet|gone)(?: \((?P<note>.+)\))?", case["name"])
            assert parts, f"{name}: {case['name']!r} is not 'Alert: fires|quiet|gone (note)'"
            found.append({**case, **parts.groupdict(), "file": name})
    return found


@pytest.fixture(scope="session")
def receivers() -> list[Receiver]:
    return RECEIVERS
