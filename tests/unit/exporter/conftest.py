"""Feeds rows to collectors and reads the text that Prometheus would read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from phoenix_exporter import exposition
from phoenix_exporter.collector import Collector
from phoenix_exporter.metric import Recorder

Samples = dict[str, float]
Feed = Callable[[Sequence[dict[str, Any]], float], Samples]


def read(text: bytes) -> Samples:
    """Samples of an exposition, keyed as they are written: name{label="value"}."""
    lines = [line for line in text.decode().splitlines() if not line.startswith("#")]
    pairs = [line.rsplit(" ", 1) for line in lines]
    assert len({name for name, _ in pairs}) == len(pairs), "a series comes twice"
    return {name: float(value) for name, value in pairs}


@pytest.fixture
def feed() -> Callable[[Collector], Feed]:
    """Start a collector; what is given back takes rows and a clock, and gives samples."""

    def start(collector: Collector) -> Feed:
        recorders: list[Recorder] = [kind.start() for kind in collector.metrics]
        return lambda rows, now: read(exposition.render([recorder.record(rows, now) for recorder in recorders]))

    return start


@pytest.fixture
def columns() -> Callable[[Collector], set[str]]:
    """The column names of a collector's statement that its table of metrics refers to."""

    def used(collector: Collector) -> set[str]:
        names: set[str] = set()
        for kind in collector.metrics:
            names |= set(kind.labels) | {str(getattr(kind, a)) for a in ("column", "calls", "seconds") if hasattr(kind, a)}
            names |= set(getattr(kind, "key", ()))
        return {name for name in names if re.search(rf"\b{name}\b", collector.sql) is None}

    return used
