"""uv.lock names packages and hashes, and nobody's registry."""

from __future__ import annotations

import tomllib

import pytest

from ops import lockfile
from tests.unit.ops.conftest import ROOT

HASH = "sha256:" + "0" * 64

LOCK = f"""version = 1

[[package]]
name = "thing"
version = "1.0"
source = {{ registry = "https://registry.example/simple" }}
sdist = {{ url = "https://files.example/ab/thing-1.0.tar.gz", hash = "{HASH}", size = 1, upload-time = "2026-01-01T00:00:00Z" }}
wheels = [
    {{ url = "https://files.example/ab/thing-1.0-cp313-cp313-manylinux_2_28_x86_64.whl", hash = "{HASH}", size = 2 }},
    {{ url = "https://files.example/ab/thing-1.0-cp313-cp313-win_amd64.whl", hash = "{HASH}", size = 2 }},
]
"""


def test_addresses_and_useless_builds_are_taken_out() -> None:
    text = lockfile.without_addresses(LOCK)
    assert "example" not in text
    (package,) = tomllib.loads(text)["package"]
    assert package["source"] == {"registry": ".wheels"}
    assert package["wheels"] == [{"path": "thing-1.0-cp313-cp313-manylinux_2_28_x86_64.whl", "hash": HASH}]
    assert "sdist" not in package
    assert lockfile.without_addresses(text) == text


def test_package_without_a_build_for_us_is_named() -> None:
    only_windows = "\n".join(line for line in LOCK.splitlines() if "manylinux" not in line)
    with pytest.raises(ValueError, match=r"thing 1\.0 has no wheel for Linux"):
        lockfile.without_addresses(only_windows)


def test_an_address_in_a_new_place_is_noticed() -> None:
    with pytest.raises(ValueError, match=r"https://other\.example"):
        lockfile.without_addresses(LOCK + '\n[[surprise]]\nurl = "https://other.example/x"\n')


@pytest.mark.parametrize(
    ("wheel", "serves"),
    [
        ("a-1-py3-none-any.whl", True),
        ("a-1-py2.py3-none-any.whl", True),
        ("a-1-cp38-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", True),
        ("a-1-cp311-cp311-manylinux2014_aarch64.manylinux_2_17_aarch64.whl", True),
        ("a-1-1-cp312-cp312-manylinux_2_28_x86_64.whl", True),
        ("a-1-cp310-cp310-manylinux_2_28_x86_64.whl", False),
        ("a-1-cp314-cp314t-manylinux_2_28_x86_64.whl", False),
        ("a-1-cp313-cp313-musllinux_1_2_x86_64.whl", False),
        ("a-1-cp313-cp313-macosx_11_0_arm64.whl", False),
        ("a-1-cp313-cp313-manylinux_2_28_i686.whl", False),
        ("a-1-pp311-pypy311_pp73-manylinux_2_28_x86_64.whl", False),
        ("a-1-py3-none-win_amd64.whl", False),
    ],
)
def test_which_wheels_serve_us(wheel: str, serves: bool) -> None:
    entry = f'    {{ url = "https://files.example/{wheel}", hash = "{HASH}", size = 1 }},'
    kept = lockfile.without_addresses(LOCK.replace("wheels = [", f"wheels = [\n{entry}"))
    assert (wheel in kept) is serves


def test_the_lock_of_the_project_is_clean_and_serves_both_processors_and_all_pythons() -> None:
    text = (ROOT / "uv.lock").read_text()
    assert "://" not in text
    assert lockfile.without_addresses(text) == text
    compiled = [p for p in tomllib.loads(text)["package"] if p["name"] == "psycopg-binary"]
    names = [wheel["path"] for package in compiled for wheel in package["wheels"]]
    for python in ("cp311", "cp312", "cp313"):
        for processor in ("x86_64", "aarch64"):
            assert any(python in name and processor in name for name in names), (python, processor)
