"""What a collector's table may contain: each class turns the rows of one statement into one metric family.

The rule that all of them share: a metric takes every row in which its value column and all its label columns are not
NULL. So one statement can give a total (labels NULL, as GROUPING SETS makes it) and its parts without a second trip to
the server.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar, Protocol

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    UnknownMetricFamily,
)

Row = Mapping[str, Any]


class Recorder(Protocol):
    """Keeps what a metric needs from one execution to the next (often nothing)."""

    def record(self, rows: Sequence[Row], now: float) -> Metric:
        """Give the family for `rows`, read at `now` (seconds on a monotonic clock)."""


class Kind(Protocol):
    """One line of a collector's table."""

    @property
    def name(self) -> str:
        """The metric's name as Prometheus shows it, without the suffixes of a histogram."""

    @property
    def help(self) -> str:
        """What the value means, with its unit."""

    @property
    def type(self) -> str:
        """The Prometheus type: gauge, counter, untyped or histogram."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names; each is also the column that holds the label's value."""

    def start(self) -> Recorder:
        """Begin a new life of this metric (one per exporter)."""


def _samples(rows: Sequence[Row], column: str, labels: tuple[str, ...]) -> Iterator[tuple[list[str], float]]:
    for row in rows:
        value = row[column]
        values = [row[label] for label in labels]
        if value is not None and None not in values:
            yield [str(v) for v in values], float(value)


_Family = type[GaugeMetricFamily] | type[CounterMetricFamily] | type[UnknownMetricFamily]


@dataclass(frozen=True)
class _AsItIs:
    """A value taken as it is from `column`. It remembers nothing, so it records itself."""

    name: str
    column: str
    help: str
    labels: tuple[str, ...] = ()
    type: str = ""
    family: ClassVar[_Family]

    def start(self) -> Recorder:
        """Nothing to begin."""
        return self

    def record(self, rows: Sequence[Row], now: float) -> Metric:
        """One sample per row that has the value and all labels."""
        family = self.family(self.name, self.help, labels=self.labels)
        for labels, value in _samples(rows, self.column, self.labels):
            family.add_metric(labels, value)
        return family


@dataclass(frozen=True)
class Gauge(_AsItIs):
    """A value that goes up and down."""

    type: str = "gauge"
    family = GaugeMetricFamily


@dataclass(frozen=True)
class Counter(_AsItIs):
    """A value that only grows, counted by the database; `name` ends in _total."""

    type: str = "counter"
    family = CounterMetricFamily


@dataclass(frozen=True)
class Untyped(_AsItIs):
    """A counter under a name without _total, for expressions that were written with that name."""

    type: str = "untyped"
    family = UnknownMetricFamily


@dataclass(frozen=True)
class Rate:
    """Growth per second of the sum of `column` over all rows, as a mean over at most `window_s` seconds.

    Prometheus computes better rates from the counter itself; this exists for readers that see a single scrape. There
    is no sample until two observations lie `MIN_SPAN_S` apart, and none across a reset of the counter: a wrong rate is
    worse than none.
    """

    name: str
    column: str
    help: str
    window_s: float = 60.0
    labels: tuple[str, ...] = ()
    type: str = "gauge"

    def start(self) -> Recorder:
        """Begin with no observation."""
        return _RateRecorder(self)


MIN_SPAN_S = 1.0


class _RateRecorder:
    def __init__(self, kind: Rate) -> None:
        self._kind = kind
        self._seen: deque[tuple[float, float]] = deque()

    def record(self, rows: Sequence[Row], now: float) -> Metric:
        total = sum(value for _, value in _samples(rows, self._kind.column, ()))
        if self._seen and total < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, total))
        # The second oldest is enough when it alone already spans the window: this keeps one observation at slow scrape intervals.
        while len(self._seen) > 2 and now - self._seen[1][0] >= self._kind.window_s:
            self._seen.popleft()
        family = GaugeMetricFamily(self._kind.name, self._kind.help)
        since, base = self._seen[0]
        if now - since >= MIN_SPAN_S:
            family.add_metric([], (total - base) / (now - since))
        return family


@dataclass(frozen=True)
class MeanHistogram:
    """Durations of calls, from cumulative calls and seconds per key: one row whose columns are arrays of equal length.

    Between two observations every key yields how many calls it made and how long they took; the calls are put into the bucket of
    their mean. So _sum and _count are exact, and a bucket is exact up to the spread inside one statement and one interval.
    It only grows: a key that vanished (evicted, or everything was reset) takes nothing away, and one that starts again counts
    from 0. The first observation is the starting point and counts nothing.
    """

    name: str
    key: tuple[str, ...]
    calls: str
    seconds: str
    help: str
    buckets_s: tuple[float, ...]
    labels: tuple[str, ...] = ()
    type: str = "histogram"

    def start(self) -> Recorder:
        """Begin with empty buckets and no starting point."""
        return _MeanHistogramRecorder(self)


_Spent = tuple[int, float]


class _MeanHistogramRecorder:
    def __init__(self, kind: MeanHistogram) -> None:
        self._kind = kind
        self._before: dict[tuple[int, ...], _Spent] | None = None
        self._counts = [0] * (len(kind.buckets_s) + 1)
        self._sum_s = 0.0

    def record(self, rows: Sequence[Row], now: float) -> Metric:
        current = self._read(rows)
        if self._before is not None:
            for key, spent in current.items():
                before = self._before.get(key, (0, 0.0))
                if spent != before:
                    self._add(spent, before)
        self._before = current
        family = HistogramMetricFamily(self._kind.name, self._kind.help)
        bounds = [*map(str, self._kind.buckets_s), "+Inf"]
        family.add_metric([], buckets=list(zip(bounds, accumulate(self._counts), strict=True)), sum_value=self._sum_s)
        return family

    def _read(self, rows: Sequence[Row]) -> dict[tuple[int, ...], _Spent]:
        kind = self._kind
        current: dict[tuple[int, ...], _Spent] = {}
        for row in rows:
            if row[kind.calls] is not None:  # array_agg gives NULL where there is nothing
                keys = zip(*(row[name] for name in kind.key), strict=True)
                current.update(zip(keys, zip(row[kind.calls], row[kind.seconds], strict=True), strict=True))
        return current

    def _add(self, spent: _Spent, before: _Spent) -> None:
        if spent[0] < before[0]:
            before = (0, 0.0)
        calls, seconds = spent[0] - before[0], max(0.0, spent[1] - before[1])
        if calls:
            self._counts[bisect_left(self._kind.buckets_s, seconds / calls)] += calls
            self._sum_s += seconds


def capped(family: Metric, limit: int) -> int:
    """Cut `family` down to its first `limit` label sets and return how many were dropped."""
    dropped = max(0, len(family.samples) - limit)
    if dropped:
        del family.samples[limit:]
    return dropped
