"""The stream workers: where each is asked for its metrics, and as which unit it runs. Pure functions, also for verbs without pyinfra."""

from __future__ import annotations

from deploys.lib.settings import StreamSettings

STORES = {"postgres": "postgresql", "redis": "redis", "neo4j": "neo4j"}
"""The group of the hosts on which each sink's store runs, by the sink's name."""


def ports(settings: StreamSettings) -> dict[str, int]:
    """Where each sink's worker answers Prometheus, by the sink's name. A sink keeps its port, whichever others there are."""
    return {sink: settings.metrics_port + list(STORES).index(sink) for sink in settings.sinks}


def unit(sink: str) -> str:
    """The unit of a sink's worker."""
    return f"phoenix-stream@{sink}.service"
