"""The envelope of every event, read and checked: bytes become an Event, or one line that says why they cannot.

    {"event": "task.created", "version": 1, "id": "<uuid>", "seq": 123, "occurred_at": "<RFC 3339>", "data": {…}}

`seq` is absent or null where the producer counts nothing. Fields that are not known are let through: a newer producer may say more.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec

from phoenix_stream.sink import Event


class Malformed(Exception):
    """The bytes are no event that this sink understands; one line that says why."""


class _Envelope(msgspec.Struct, gc=False):
    event: str
    version: int
    id: uuid.UUID
    occurred_at: Annotated[datetime, msgspec.Meta(tz=True)]
    data: dict[str, Any]
    seq: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None


_DECODER = msgspec.json.Decoder(_Envelope)


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
        told = _DECODER.decode(value)
    except UnicodeDecodeError:
        raise Malformed("is not UTF-8") from None
    except msgspec.ValidationError as error:
        raise Malformed(f"is no event: {_short(error)}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(f"is not JSON: {_short(error)}") from None
    if told.event not in versions:
        raise Malformed(f"event {told.event!r:.80} is not known here")
    if not 1 <= told.version <= versions[told.event]:
        raise Malformed(f"version {told.version} of {told.event} is not known here, the newest is {versions[told.event]}")
    return Event(*place, name, told.event, told.version, told.seq, told.occurred_at, told.data)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
