"""The envelope of every event, read and checked: bytes become an Event, or one line that says why they cannot.

    {"event": "task.created", "version": 1, "id": "<uuid>", "seq": 123, "occurred_at": "<RFC 3339>", "data": {…}}

`seq` is absent or null where the producer counts nothing. Fields that are not known are let through: a newer producer may say more.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

from phoenix_stream.sink import Event

_TOP_SEQ = 2**63


class Malformed(Exception):
    """The bytes are no event that this sink understands; one line that says why."""


def decode(place: tuple[str, int, int], key: bytes | None, value: bytes | None, versions: Mapping[str, int]) -> Event:
    """The event of one message, read at `place` (topic, partition, offset). Raises Malformed.

    `versions` holds the events that are understood, and the newest version of each.
    """
    if value is None:
        raise Malformed("no value")
    if key is None:
        raise Malformed("no key, so nothing says what it must stay in order with")
    try:
        name = key.decode()
        document = json.loads(value, parse_constant=_constant)
    except UnicodeDecodeError:
        raise Malformed("is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise Malformed(f"is not JSON: {_short(error)}") from None
    if not isinstance(document, dict):
        raise Malformed(f"is not a JSON object but {_kind(document)}")
    event = _of(document, "event", str)
    version = _of(document, "version", int)
    if event not in versions:
        raise Malformed(f"event {event!r:.80} is not known here")
    if not 1 <= version <= versions[event]:
        raise Malformed(f"version {version} of {event} is not known here, the newest is {versions[event]}")
    seq = _of(document, "seq", int) if document.get("seq") is not None else None
    if seq is not None and not 0 <= seq < _TOP_SEQ:
        raise Malformed(f"seq {seq} is out of range")
    identity = _of(document, "id", str)
    data = _of(document, "data", dict)
    try:
        uuid.UUID(identity)
    except ValueError:
        raise Malformed(f"id is no UUID: {identity!r:.80}") from None
    try:
        occurred_at = moment(_of(document, "occurred_at", str))
    except ValueError as error:
        raise Malformed(f"occurred_at {error}") from None
    return Event(*place, name, event, version, identity, seq, occurred_at, data)


def moment(text: str) -> datetime:
    """A time as RFC 3339 has it, with its zone. Raises ValueError."""
    try:
        parsed = datetime.fromisoformat(text)
        if parsed.tzinfo is not None:
            parsed.timestamp()  # the first and the last year cannot be told in every zone
            return parsed
    except (ValueError, OverflowError):
        raise ValueError(f"is no time: {text!r:.80}") from None
    raise ValueError(f"has no time zone: {text!r:.80}")


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _of(document: Mapping[str, Any], field: str, kind: type[Any]) -> Any:
    value = document.get(field)
    if value is None:
        raise Malformed(f"{field} is missing")
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Malformed(f"{field} is {_kind(value)}, not {_KINDS[kind]}")
    return value


_KINDS = {str: "a text", int: "a whole number", dict: "an object", list: "a list", float: "a number", bool: "true or false"}


def _kind(value: object) -> str:
    return "null" if value is None else _KINDS.get(type(value), type(value).__name__)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
