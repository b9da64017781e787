"""Points in time as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ops import moment
from ops.errors import Refused

NOW = datetime(2026, 11, 23, 15, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "asks_postgresql_for", "assumed"),
    [
        ("2026-11-23 14:05:00", "2026-11-23 14:05:00.000000+00", True),
        ("2026-11-23T14:05", "2026-11-23 14:05:00.000000+00", True),
        ("2026-11-23 14:05:00.25Z", "2026-11-23 14:05:00.250000+00", False),
        ("2026-11-23 14:05:00+02:00", "2026-11-23 12:05:00.000000+00", False),
        ("2026-11-23T23:59:59+09:00", "2026-11-23 14:59:59.000000+00", False),
    ],
)
def test_a_time_is_taken_in_its_zone_or_as_utc(text: str, asks_postgresql_for: str, assumed: bool) -> None:
    target = moment.parse_time(text, now=NOW)
    assert target.kind == "time"
    assert target.text == asks_postgresql_for
    assert target.assumed_utc is assumed


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-23", "14:05", "2026-13-40 14:05", "2026-11-23 25:00:00", "now() - '1 h'"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Refused, match=r"is no point in time: give .*2026-11-23 14:05:00"):
        moment.parse_time(text, now=NOW)


def test_the_future_is_refused_and_the_zone_is_said() -> None:
    with pytest.raises(Refused, match=r"no zone was given, so it is UTC\) is in the future, now is 2026-11-23 15:00:00 UTC"):
        moment.parse_time("2026-11-23 16:00:00", now=NOW)
    with pytest.raises(Refused, match="is in the future"):
        moment.parse_time("2026-11-23 15:30:00+00:00", now=NOW)
    assert moment.parse_time("2026-11-23 16:00:00+02:00", now=NOW).time == NOW - timedelta(hours=1)


@pytest.mark.parametrize("text", ["", "5", "0/", "/5", "0/XYZ", "0/123456789", "0/5A3C28; DROP"])
def test_what_is_no_lsn_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="is no LSN"):
        moment.parse_lsn(text)


def test_an_lsn_is_a_number_and_back() -> None:
    assert moment.parse_lsn("1/2a").lsn == (1 << 32) + 42
    assert moment.parse_lsn("1/2a").text == "1/2A"


@pytest.mark.parametrize(("seconds", "shown"), [(40, "40 s"), (720, "12 min"), (11_100, "3 h 05 min"), (360_000, "4 d 4 h")])
def test_ages_for_people(seconds: int, shown: str) -> None:
    assert moment.age(NOW - timedelta(seconds=seconds), now=NOW) == shown
