"""Which backup is restored, of what pgBackRest says there is."""

from __future__ import annotations

from typing import Any

import pytest
from drill_errors import DrillFailed
from drill_repository import lsn_number, newest_backup


def backup(label: str, stop_lsn: str, *, error: bool = False, database: int = 1) -> dict[str, Any]:
    return {
        "label": label,
        "type": "full",
        "lsn": {"start": "0/1000028", "stop": stop_lsn},
        "error": error,
        "info": {"size": 4711},
        "timestamp": {"start": 1, "stop": 2},
        "database": {"id": database, "repo-key": 1},
    }


def info(*backups: dict[str, Any]) -> list[dict[str, Any]]:
    archive = [{"database": {"id": number, "repo-key": 1}, "id": f"17-{number}"} for number in (1, 2)]
    return [{"name": "phoenix", "archive": archive, "backup": list(backups), "status": {"message": "ok"}}]


def test_the_newest_that_ended_before_the_position_is_taken() -> None:
    said = info(backup("old", "0/2000000"), backup("new", "0/10000000"), backup("later", "1/0"))
    found = newest_backup(said, "phoenix", "0/20000000")
    assert (found.label, found.bytes, found.archive) == ("new", 4711, "17-1")


def test_newer_is_judged_by_number_and_not_by_text() -> None:
    assert newest_backup(info(backup("small", "0/9000000"), backup("big", "0/10000000")), "phoenix", "2/0").label == "big"
    assert lsn_number("1/2A") == (1 << 32) + 42


def test_a_backup_with_damaged_pages_is_not_taken() -> None:
    assert newest_backup(info(backup("well", "0/2000000"), backup("damaged", "0/3000000", error=True)), "phoenix", "1/0").label == "well"


def test_after_a_major_upgrade_the_archive_is_that_of_the_backup() -> None:
    assert newest_backup(info(backup("a", "0/2000000", database=2)), "phoenix", "1/0").archive == "17-2"


@pytest.mark.parametrize("said", [[], info(), info(backup("damaged", "0/2000000", error=True)), info(backup("later", "2/0"))])
def test_without_a_sound_backup_one_sentence_says_what_to_do(said: list[dict[str, Any]]) -> None:
    with pytest.raises(DrillFailed, match=r"no sound backup of phoenix .*: take one with './phoenix backup'\.$"):
        newest_backup(said, "phoenix", "1/0")
