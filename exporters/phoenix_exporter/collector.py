"""What a collector is: one statement, how long its answer stays good, and the table of its metrics."""

from __future__ import annotations

from dataclasses import dataclass

from phoenix_exporter.metric import Kind


@dataclass(frozen=True)
class Collector:
    """One topic. `ttl_s`: seconds for which an answer is served again without asking (0: asked at every scrape)."""

    name: str
    sql: str
    metrics: tuple[Kind, ...]
    ttl_s: float = 0.0
