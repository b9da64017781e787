"""From values to the text that Prometheus reads.

Only the classic text format is spoken: OpenMetrics has no place for gauges that end in _total nor for a counter and a
plain name beside each other, and the spec's names need both (docs/decisions/0200-exporter-names-of-the-spec.md).
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

import psycopg
from prometheus_client import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector as Source

from phoenix_exporter import VERSION

if TYPE_CHECKING:
    from phoenix_exporter.engine import Engine, State
    from phoenix_exporter.server import Server

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
ABORT_REASONS = ("abandoned", "deadline", "stopped")

_PROCESS = ProcessCollector(registry=None)


class _Families(Source):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def render(families: Iterable[Metric]) -> bytes:
    """Give the text of `families`."""
    return generate_latest(_Families(families))


def own(engine: Engine, up: bool, now: float, served: Sequence[State]) -> Iterator[Metric]:
    """What the exporter says about the database as a whole and about itself; `served`: whose values are in this answer."""
    yield GaugeMetricFamily("phoenix_up", "1 when the database answered, 0 when it is stopped, frozen or refuses the login.", up)
    yield _info(
        "phoenix_exporter_build_info",
        "Versions of this exporter and of what it is built with.",
        version=VERSION,
        python=platform.python_version(),
        psycopg=version("psycopg"),
        libpq=str(psycopg.pq.version()),
    )
    if engine.session.server_version:
        yield _info("phoenix_db_server_info", "Version of the PostgreSQL server.", version=engine.session.server_version)
    yield from _collectors(engine, now, served)
    yield from _totals(engine)
    yield from _PROCESS.collect()


def transport(server: Server) -> Iterator[Metric]:
    """What the exporter says about its clients and its certificate."""
    yield CounterMetricFamily(
        "phoenix_exporter_clients_refused_total",
        "Clients turned away: no or a wrong certificate, or too many.",
        server.clients_refused,
    )
    if server.certificates is not None:
        yield GaugeMetricFamily(
            "phoenix_exporter_tls_certificate_expiry_timestamp_seconds",
            "Unix time at which the certificate that is served expires.",
            server.certificates.expires,
        )
        yield GaugeMetricFamily(
            "phoenix_exporter_tls_reload_success",
            "0 when the certificate files changed and the new ones cannot be used.",
            server.certificates.reload_ok,
        )


def _collectors(engine: Engine, now: float, served: Sequence[State]) -> Iterator[Metric]:
    prefix = "phoenix_exporter_collector_"
    success = GaugeMetricFamily(f"{prefix}success", "1 when the collector's values are in this answer.", labels=["collector"])
    duration = GaugeMetricFamily(f"{prefix}duration_seconds", "How long the last try took.", labels=["collector"])
    last = GaugeMetricFamily(f"{prefix}last_success_timestamp_seconds", "Unix time of the last success; 0 = never.", labels=["collector"])
    age = GaugeMetricFamily(f"{prefix}data_age_seconds", "Age of the values in this answer.", labels=["collector"])
    ttl = GaugeMetricFamily(f"{prefix}ttl_seconds", "Age up to which values are served again unasked.", labels=["collector"])
    for state in engine.asked:
        label = [state.collector.name]
        success.add_metric(label, state in served)
        duration.add_metric(label, state.duration_s)
        last.add_metric(label, state.last_success)
        ttl.add_metric(label, state.ttl_s)
        if state in served:
            age.add_metric(label, now - state.measured_at)
    yield from (success, duration, last, age, ttl)


def _totals(engine: Engine) -> Iterator[Metric]:
    totals, session = engine.totals, engine.session
    yield CounterMetricFamily("phoenix_exporter_scrapes_total", "Scrapes asked for.", totals.scrapes)
    yield CounterMetricFamily("phoenix_exporter_executions_total", "Executions begun; scrapes share them.", totals.executions)
    aborted = CounterMetricFamily("phoenix_exporter_executions_aborted_total", "Executions cut off, by reason.", labels=["reason"])
    for reason in ABORT_REASONS:
        aborted.add_metric([reason], totals.aborted[reason])
    yield aborted
    yield GaugeMetricFamily("phoenix_exporter_execution_duration_seconds", "Duration of the last execution.", engine.duration_s)
    connects = CounterMetricFamily("phoenix_exporter_database_connects_total", "Connections tried, by result.", labels=["result"])
    connects.add_metric(["ok"], session.connects_ok)
    connects.add_metric(["failed"], session.connects_failed)
    yield connects
    dropped = CounterMetricFamily(
        "phoenix_exporter_series_dropped_total", "Label sets left out because a metric had too many.", labels=["metric"]
    )
    for state in engine.states:
        for kind in state.collector.metrics:
            if kind.labels:
                dropped.add_metric([kind.name], totals.dropped[kind.name])
    yield dropped


def _info(name: str, text: str, **labels: str) -> Metric:
    family = GaugeMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), 1)
    return family
