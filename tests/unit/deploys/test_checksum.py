"""Flyway's checksum: what Flyway 11.8.2 itself wrote to its history for these very bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploys.postgresql import schema


@pytest.mark.parametrize(
    ("content", "flyway"),
    [
        ("CREATE TABLE plain (name text);\n-- Grüße, naïve café\nINSERT INTO plain VALUES ('a');\n".encode(), 1938526908),
        (b"\xef\xbb\xbfCREATE TABLE windows (name text);\r\nINSERT INTO windows VALUES ('a');\r\n", -1958244982),
        (
            (
                "CREATE TABLE odd (name text); -- form\x0cfeed, vt\x0b, nel\u0085, ls\u2028, fs\x1c\r"
                "INSERT INTO odd VALUES ('a');\r\n\nSELECT 1;"
            ).encode(),
            1479395776,
        ),
    ],
    ids=["plain", "byte order mark and carriage returns", "characters that only Python takes for line ends"],
)
def test_checksum_is_flyways(tmp_path: Path, content: bytes, flyway: int) -> None:
    path = tmp_path / "V1__sample.sql"
    path.write_bytes(content)
    assert schema.checksum(path) == flyway


def test_every_migration_has_one() -> None:
    found = schema.migrations()
    assert {path.name for path in schema.SQL.glob("V*.sql")} | {path.name for path in schema.SQL.glob("R__*.sql")} == found.keys()
    assert all(-(2**31) <= crc < 2**31 for crc in found.values())
