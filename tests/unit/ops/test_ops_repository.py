"""What pgBackRest says of its repository, understood: which backup a restore begins with, and which targets are out of reach."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from ops import repository
from ops.errors import Refused
from ops.moment import LATEST, Target, lsn, parse_lsn
from ops.repository import Branch, Repository


def backup(label: str, timeline: int, hour: float, stop: str, **more: Any) -> dict[str, Any]:
    ended = datetime(2026, 11, 23, tzinfo=UTC).timestamp() + hour * 3600
    return {
        "label": label,
        "type": {"F": "full", "D": "diff", "I": "incr"}[label[-1]],
        "timestamp": {"start": ended - 60, "stop": ended},
        "lsn": {"start": "0/1000028", "stop": stop},
        "archive": {"start": f"{timeline:08X}0000000000000001", "stop": f"{timeline:08X}0000000000000002"},
        "info": {"size": 34_000_000, "delta": 34_000_000, "repository": {"delta": 4_000_000}},
        "error": False,
        **more,
    }


def stanza(*backups: dict[str, Any], newest_wal: str = "00000001000000000000000A") -> list[dict[str, Any]]:
    archive = [{"database": {"id": 1, "repo-key": 1}, "id": "17-1", "min": "000000010000000000000001", "max": newest_wal}]
    return [{"name": "phoenix", "backup": list(backups), "archive": archive, "status": {"code": 0, "message": "ok"}}]


def at(hour: float) -> Target:
    return Target("time", time=datetime.fromtimestamp(datetime(2026, 11, 23, tzinfo=UTC).timestamp() + hour * 3600, UTC))


@pytest.fixture
def three() -> Repository:
    return repository.parse(
        stanza(backup("1F", 1, 8, "0/2000100"), backup("2I", 1, 9, "0/4000100"), backup("3I", 1, 10, "0/6000100")), "phoenix"
    )


def test_the_newest_backup_before_the_target_is_chosen(three: Repository) -> None:
    assert three.for_target(at(9.5)).label == "2I"
    assert three.for_target(at(10)).label == "3I"
    assert three.for_target(LATEST).label == "3I"
    assert three.for_target(parse_lsn("0/5000000")).label == "2I"
    assert three.for_target(parse_lsn("0/4000100")).label == "2I"


def test_a_target_before_the_oldest_backup_is_refused_with_its_time(three: Repository) -> None:
    with pytest.raises(Refused, match=r"is before 2026-11-23 08:00:00 UTC, when the oldest backup ended \(1F\)"):
        three.for_target(at(7.99))
    with pytest.raises(Refused, match=r"is before LSN 0/2000100"):
        three.for_target(parse_lsn("0/2000000"))


def test_an_lsn_beyond_the_archive_is_refused_with_its_end(three: Repository) -> None:
    assert three.wal_end == lsn("0/B000000")
    with pytest.raises(Refused, match=r"beyond the archive, which ends at 0/B000000"):
        three.for_target(parse_lsn("0/B000000"))


def test_a_backup_of_a_branch_that_was_cut_off_is_no_beginning() -> None:
    """A restore to 9:00 began timeline 2; the backup of 10:00 is of what was cut off then."""
    found = repository.parse(
        stanza(backup("1F", 1, 8, "0/2000100"), backup("2I", 1, 10, "0/6000100"), backup("3F", 2, 11, "0/5800000")), "phoenix"
    )
    branch = repository.parse_history(2, "1\t0/4000000\tbefore 2026-11-23 09:00:00+00\n")
    assert branch == Branch(2, {1: lsn("0/4000000")})
    assert found.for_target(at(10.5), branch).label == "1F"
    assert found.for_target(at(12), branch).label == "3F"
    # Of another attempt, that led to nothing: not an ancestor, though its number is lower.
    assert found.for_target(at(12), Branch(4, {1: lsn("0/4000000")})).label == "1F"


def test_a_damaged_backup_does_not_count() -> None:
    found = repository.parse(stanza(backup("1F", 1, 8, "0/2000100"), backup("2I", 1, 9, "0/4000100", error=True)), "phoenix")
    assert found.for_target(LATEST).label == "1F"


@pytest.mark.parametrize("content", [[], stanza(), [{"name": "another", "backup": [], "status": {"message": "ok"}}]])
def test_without_a_backup_there_is_nothing_to_restore(content: list[dict[str, Any]]) -> None:
    with pytest.raises(Refused, match=r"no usable backup of phoenix .*: take one with"):
        repository.parse(content, "phoenix").for_target(LATEST)
