"""Programs that no Debian package has."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from deploys.lib.artifacts import unsign


def jar(path: Path, names: list[str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name in names:
            made.writestr(name, f"content of {name}" * 10)
    return path


def test_a_signed_jar_loses_its_signatures_and_nothing_else(tmp_path: Path) -> None:
    kept = ["META-INF/MANIFEST.MF", "META-INF/services/a.SF", "a/B.class", "a/c.rsa"]
    path = jar(tmp_path / "signed.jar", [*kept, "META-INF/ECLIPSE_.SF", "META-INF/ECLIPSE_.RSA", "META-INF/other.ec"])
    unsign(path)
    with zipfile.ZipFile(path) as found:
        assert found.testzip() is None
        assert found.namelist() == kept
        assert found.read("a/B.class") == b"content of a/B.class" * 10
        assert {entry.compress_type for entry in found.infolist()} == {zipfile.ZIP_DEFLATED}
    assert list(tmp_path.iterdir()) == [path]


def test_any_other_jar_stays_byte_for_byte(tmp_path: Path) -> None:
    path = jar(tmp_path / "plain.jar", ["META-INF/MANIFEST.MF", "a/B.class"])
    before = hashlib.sha256(path.read_bytes()).digest()
    unsign(path)
    assert hashlib.sha256(path.read_bytes()).digest() == before
