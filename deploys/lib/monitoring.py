"""What Prometheus and Alertmanager are told: pure functions from settings to the text of their files.

The rule templates keep Prometheus' own `{{ $value }}`, so they are rendered with `[[ ]]`, `[% %]` and `[# #]` instead of Jinja's usual
marks. The tests in tests/rules render through the same functions: what promtool checks is what lands on the host.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import yaml

from deploys.lib.rendering import TEMPLATES, environment
from deploys.lib.settings import Receiver, SettingsError

RULES = TEMPLATES / "prometheus" / "rules"
SEVERITIES = ("critical", "warning", "info", "watchdog")
MUST_REACH = ("critical", "warning", "watchdog")
"""Severities that somebody has to receive; `info` may be left to the web page."""

JOBS = (
    "phoenix",
    "node",
    "postgres",
    "prometheus",
    "alertmanager",
    "patroni",
    "etcd",
    "haproxy",
    "pgbouncer",
    "kafka",
    "connect",
    "redis",
    "stream",
    "n8n",
)
FEATURES = (
    *JOBS,
    "postgresql",
    "platform",
    "tls",
    "clock",
    "replication",
    "archive",
    "region2",
    "failover_slot",
    "drill",
    "outbox",
    "tailscale",
    "neo4j",
    "graph_backup",
)
"""What a host can be expected to have (`phoenix_expected` in the rules). `platform` is a member of the
platform's own cluster, `failover_slot` one that a second region's slot has to survive on, `outbox` a member of the cluster whose outbox
Kafka Connect reads. The last ten arm rules that otherwise sleep."""

_FILES = environment(TEMPLATES)
_RULES = environment(
    RULES,
    variable_start_string="[[",
    variable_end_string="]]",
    block_start_string="[%",
    block_end_string="%]",
    comment_start_string="[#",
    comment_end_string="#]",
)


@dataclass(frozen=True)
class Target:
    """One address that Prometheus asks for metrics, over HTTPS with the monitoring host's certificate."""

    job: str
    """One of `JOBS`."""
    host: str
    """Name in the inventory; becomes the label `host`, and with the port the label `instance`."""
    address: str
    port: int
    ca: str = "/etc/phoenix/tls/ca.crt"
    """Authority, on the monitoring host, that the target's certificate has to be of."""
    server_name: str = ""
    """Name to expect in the certificate; empty means the address."""

    def __post_init__(self) -> None:
        if self.job not in JOBS:
            raise ValueError(f"scrape target {self.host}:{self.port}: there is no job {self.job}: choose one of {', '.join(JOBS)}.")


@dataclass(frozen=True, order=True)
class Expected:
    """Something that a host has to have, so that its absence is an alert."""

    host: str
    feature: str
    """One of `FEATURES`."""

    def __post_init__(self) -> None:
        if self.feature not in FEATURES:
            raise ValueError(f"host {self.host}: nothing is known of the feature {self.feature}: choose one of {', '.join(FEATURES)}.")


@dataclass(frozen=True)
class Identity:
    """The files, on the host, with which a service proves who it is and checks the others."""

    ca: str = "/etc/phoenix/tls/ca.crt"
    certificate: str = "/etc/phoenix/tls/host.crt"
    key: str = "/etc/phoenix/tls/host.key"


@dataclass(frozen=True)
class Timing:
    """When Alertmanager speaks, in seconds."""

    group_wait_s: int = 15
    """How long the first alert of a group waits for others."""
    group_interval_s: int = 60
    """How long until a change of a group is told."""
    repeat_critical_s: int = 3600
    repeat_s: int = 4 * 3600
    """How often what lasts is told again."""
    watchdog_s: int = 60
    """How often the dead man's switch is pressed."""


@dataclass(frozen=True)
class Scrape:
    """Targets of one job that are asked in one way; `name` is unique in prometheus.yml."""

    name: str
    ca: str
    server_name: str
    targets: list[Target]


@dataclass(frozen=True)
class Delivery:
    """Everything that one severity's alerts are sent to."""

    severity: str
    receivers: list[Receiver] = field(default_factory=list)


def rule_values(overrides: Mapping[str, float | bool]) -> dict[str, float | bool]:
    """The thresholds of templates/prometheus/rules/defaults.yml with `overrides` over them.

    Raises SettingsError for a name that no rule uses.
    """
    values: dict[str, float | bool] = yaml.safe_load((RULES / "defaults.yml").read_text(encoding="utf-8"))
    for name in overrides:
        if name not in values:
            near = difflib.get_close_matches(name, values, n=1)
            hint = f"did you mean {near[0]}?" if near else "the names are in templates/prometheus/rules/defaults.yml."
            raise SettingsError(f"monitoring_rules: {name} is not a threshold of any alert rule: {hint}")
    return values | dict(overrides)


def rules(*, expected: Iterable[Expected], runbook_url: str, overrides: Mapping[str, float | bool] | None = None) -> dict[str, str]:
    """Every rule file by its name (`host.yml`), for /etc/prometheus/rules/. `runbook_url` ends with a slash. Raises SettingsError."""
    values = {"rules": rule_values(overrides or {}), "runbook_url": runbook_url, "expected": sorted(set(expected))}
    return {path.stem: _RULES.get_template(path.name).render(values) for path in sorted(RULES.glob("*.yml.j2"))}


def expected_of(targets: Iterable[Target], extra: Iterable[Expected] = ()) -> list[Expected]:
    """What there has to be: everything that is scraped, and `extra` (postgresql, tls, clock, replication, archive)."""
    return sorted({Expected(target.host, target.job) for target in targets} | set(extra))


def prometheus(
    *, targets: Sequence[Target], alertmanagers: Sequence[Target], scrape_interval_s: int, identity: Identity | None = None
) -> str:
    """/etc/prometheus/prometheus.yml."""
    return _FILES.get_template("prometheus/prometheus.yml.j2").render(
        scrapes=_scrapes(targets),
        alertmanagers=alertmanagers,
        scrape_interval_s=scrape_interval_s,
        scrape_timeout_s=min(10, scrape_interval_s),
        identity=identity or Identity(),
    )


def _scrapes(targets: Sequence[Target]) -> list[Scrape]:
    """One for each job; more where targets of a job differ in how they prove who they are."""
    groups: dict[tuple[str, str, str], list[Target]] = {}
    for target in sorted(targets, key=lambda one: (JOBS.index(one.job), one.ca, one.server_name)):
        groups.setdefault((target.job, target.ca, target.server_name), []).append(target)
    seen: dict[str, int] = {}
    scrapes = []
    for (job, ca, server_name), members in groups.items():
        seen[job] = seen.get(job, 0) + 1
        scrapes.append(Scrape(job if seen[job] == 1 else f"{job}-{seen[job]}", ca, server_name, members))
    return scrapes


def web(identity: Identity | None = None) -> str:
    """web.yml of Prometheus, Alertmanager and the standard exporters: HTTPS, only for clients with a certificate of our authority."""
    return _FILES.get_template("prometheus/web.yml.j2").render(identity=identity or Identity())


def http_client() -> str:
    """How promtool and amtool on the host speak to Prometheus and Alertmanager."""
    return _FILES.get_template("prometheus/http-client.yml.j2").render(identity=Identity())


def amtool(*, url: str, http_client_file: str) -> str:
    """/etc/amtool/config.yml: amtool on the host then needs no arguments."""
    return _FILES.get_template("alertmanager/amtool.yml.j2").render(url=url, http_client_file=http_client_file)


def alertmanager(
    *,
    receivers: Sequence[Receiver],
    password_files: Mapping[str, str],
    timing: Timing | None = None,
) -> str:
    """/etc/prometheus/alertmanager.yml.

    `password_files` is the path on the host of each receiver's SMTP password, by the receiver's name. Raises SettingsError when a severity
    that somebody must hear of reaches nobody: alerts without a reader are worse than none.
    """
    return _FILES.get_template("alertmanager/alertmanager.yml.j2").render(
        deliveries=_deliveries(receivers, password_files),
        password_files=password_files,
        timing=timing or Timing(),
    )


def _deliveries(receivers: Sequence[Receiver], password_files: Mapping[str, str]) -> list[Delivery]:
    if not receivers:
        raise SettingsError(
            "monitoring_receivers is empty, so no alert would reach anybody: name at least one receiver (docs/alerts.md shows how)."
        )
    deliveries = [Delivery(severity, [one for one in receivers if severity in one.severities]) for severity in SEVERITIES]
    unheard = [one.severity for one in deliveries if one.severity in MUST_REACH and not one.receivers]
    if unheard:
        which = " and ".join(unheard)
        raise SettingsError(
            f"monitoring_receivers: nobody receives alerts of severity {which}: add it to the severities of a receiver (docs/alerts.md)."
        )
    for one in receivers:
        if one.email and one.email.username and one.name not in password_files:
            raise SettingsError(f"monitoring_receivers: {one.name} has a username but no password: name its secret in password_secret.")
    return deliveries
