"""Events as they lie in Kafka, made by tests and benchmarks that stand in for who publishes them."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any


def envelope(event: str, data: object, *, at: datetime | None = None, seq: int | None = None, **changed: Any) -> bytes:
    """An event as it lies in Kafka."""
    document: dict[str, Any] = {
        "event": event,
        "version": 1,
        "id": str(uuid.uuid4()),
        "occurred_at": (at or datetime.now(UTC)).isoformat(),
        "data": data,
    }
    if seq is not None:
        document["seq"] = seq
    return json.dumps({key: value for key, value in (document | changed).items() if value is not ...}).encode()


def heartbeat(agent: str, *, at: datetime | None = None, task: str | None = None, idle: str | None = None) -> tuple[str, str, bytes]:
    data = {"agent_id": agent, "current_task": task, "idle_since": idle}
    return "agent.heartbeat", agent, envelope("agent.heartbeat", data, at=at)
