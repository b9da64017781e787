"""Every alert has a page that helps, every page has an alert, and the table of alerts is the truth."""

from __future__ import annotations

import re

from deploys.lib.monitoring import rule_values
from deploys.lib.services import services
from deploys.lib.settings import ROOT, load
from ops.cli import VERBS
from tests.rules import runbooks
from tests.rules.conftest import Rule


def test_every_alert_has_a_page_and_every_page_an_alert(rules: list[Rule]) -> None:
    assert {page.stem for page in runbooks.pages()} == {rule.alert for rule in rules}


def test_every_page_says_meaning_impact_diagnosis_and_mitigation() -> None:
    for page in runbooks.pages():
        assert page.read_text().startswith(f"# {page.stem}\n"), page
        assert runbooks.headings(page) == runbooks.HEADINGS, page
        sections = re.split(r"^## .+$", page.read_text(), flags=re.MULTILINE)[1:]
        assert all(len(section.split()) >= 3 for section in sections), f"{page}: a section is empty"


def test_every_diagnosis_has_a_command() -> None:
    assert {one.page for one in runbooks.commands() if one.section == "Diagnosis"} == {page.stem for page in runbooks.pages()}


def test_every_command_of_a_page_is_one_that_there_is() -> None:
    known = {service.name for service in services(load(ROOT / "inventory" / "lab.py"))} | {"vps1"}
    for one in runbooks.commands():
        assert one.words[0] == "./phoenix", one
        assert one.verb in VERBS, one
        if one.verb == "logs":
            assert one.words[2] in known, one
        if one.verb == "psql":
            assert "--" in one.words, one
        if one.verb == "ssh":
            assert one.words[3] == "--", one
            assert len(one.words) == 5, f"quote the remote command as one word: {one}"


def test_links_lead_somewhere() -> None:
    for page in [*runbooks.pages(), ROOT / "docs" / "alerts.md", ROOT / "docs" / "dashboards.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target} does not exist"


def test_the_table_of_alerts_is_the_rules(rules: list[Rule]) -> None:
    """docs/alerts.md: | [Alert](runbooks/Alert.md) | severities | for | what |"""
    listed = {}
    for line in (ROOT / "docs" / "alerts.md").read_text().splitlines():
        if row := re.fullmatch(r"\| \[(\w+)\]\(runbooks/\1\.md\) \| ([\w, ]+) \| ([\w, ]+) \| (.+) \|", line):
            listed[row[1]] = (row[2], row[3])
    truth: dict[str, tuple[list[str], list[str]]] = {}
    for rule in rules:
        severities, holds = truth.setdefault(rule.alert, ([], []))
        severities += [rule.labels["severity"]] * (rule.labels["severity"] not in severities)
        holds += [rule.hold] * (rule.hold not in holds)
    assert listed == {alert: (", ".join(severities), ", ".join(holds)) for alert, (severities, holds) in truth.items()}


def test_every_threshold_is_in_the_table_of_thresholds() -> None:
    text = (ROOT / "docs" / "alerts.md").read_text()
    rows = {row[1]: row[2] for row in re.finditer(r"^\| `(\w+)` \| ([\d.]+) \|", text, re.MULTILINE)}
    assert rows == {name: str(value) for name, value in rule_values({}).items()}
