"""Points that a person names to go back to: a time, or a position in the WAL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from ops.errors import Refused

EXAMPLE = "2026-11-23 14:05:00"


@dataclass(frozen=True)
class Target:
    """Where to restore to."""

    kind: Literal["time", "lsn", "latest"]
    time: datetime | None = None
    """In UTC; of kind time."""
    lsn: int | None = None
    """Bytes from the beginning of the WAL; of kind lsn."""
    assumed_utc: bool = False
    """The person named no zone."""

    @property
    def text(self) -> str | None:
        """As PostgreSQL takes it for its recovery_target_…; None for the latest."""
        if self.time is not None:
            return self.time.strftime("%Y-%m-%d %H:%M:%S.%f+00")
        return None if self.lsn is None else lsn_text(self.lsn)

    def __str__(self) -> str:
        if self.time is not None:
            return self.time.strftime("%Y-%m-%d %H:%M:%S.%f").rstrip("0").rstrip(".") + " UTC"
        return "the end of the archive" if self.lsn is None else f"LSN {lsn_text(self.lsn)}"


LATEST = Target("latest")


def parse_time(text: str, *, now: datetime) -> Target:
    """The time that `text` names, UTC when it names no zone. Raises Refused for what is none and for the future."""
    if not re.search(r"\d[T ]\d", text):
        raise Refused(f"{text!r} is no point in time: give date and time, for example --to '{EXAMPLE}' (UTC) or --to '{EXAMPLE}+02:00'.")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(f"{text!r} is no point in time: give it like --to '{EXAMPLE}' (UTC) or --to '{EXAMPLE}+02:00'.") from None
    assumed = moment.tzinfo is None
    moment = (moment.replace(tzinfo=UTC) if assumed else moment).astimezone(UTC)
    target = Target("time", time=moment, assumed_utc=assumed)
    if moment > now:
        zone = " (no zone was given, so it is UTC)" if assumed else ""
        raise Refused(f"{target}{zone} is in the future, now is {now:%Y-%m-%d %H:%M:%S} UTC: name a time that has been.")
    return target


def parse_lsn(text: str) -> Target:
    """The position that `text` names, like 0/5A3C28. Raises Refused."""
    if not re.fullmatch(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}", text):
        raise Refused(f"{text!r} is no LSN: give it like --to-lsn 0/5A3C28, as pg_current_wal_lsn() prints it.")
    return Target("lsn", lsn=lsn(text))


def lsn(text: str) -> int:
    """An LSN as a number of bytes."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def lsn_text(number: int) -> str:
    """An LSN as PostgreSQL prints it."""
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


def age(since: datetime, *, now: datetime) -> str:
    """How long ago, for people: 40 s, 12 min, 3 h 05 min, 4 d 2 h."""
    minutes, seconds = divmod(max(0, int((now - since) / timedelta(seconds=1))), 60)
    if minutes == 0:
        return f"{seconds} s"
    hours, minutes = divmod(minutes, 60)
    if hours == 0:
        return f"{minutes} min"
    days, hours = divmod(hours, 24)
    return f"{hours} h {minutes:02d} min" if days == 0 else f"{days} d {hours} h"
