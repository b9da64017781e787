"""The assertions of sql/tests/ in pgTAP, each file in a transaction that is rolled back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sql.conftest import TESTS, check_tap, tap_script
from tests.sql.server import Server


@pytest.mark.parametrize("test", TESTS, ids=lambda path: path.stem)
def test_pgtap(server: Server, pgtap: str, test: Path) -> None:
    if missing := server.lacks(test.read_text(encoding="utf-8")):
        pytest.skip(missing)
    lines: list[str] = []
    with server.connect() as conn:
        cursor = conn.execute(tap_script(pgtap, test).encode())
        while True:
            if cursor.description:
                lines += [line for row in cursor.fetchall() for line in str(row[0]).splitlines()]
            if not cursor.nextset():
                break
    check_tap(lines)
