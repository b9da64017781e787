"""make test: all parts run, one that fails fails the whole, and no tests are forgotten."""

from __future__ import annotations

import re
import sys

import pytest

from ops import selftest
from ops.terminal import Terminal
from tests.unit.ops.conftest import ROOT

PASSES, FAILS = [sys.executable, "-c", "pass"], [sys.executable, "-c", "raise SystemExit(1)"]


def test_every_part_and_every_command_runs_and_a_failure_is_not_lost(capfd: pytest.CaptureFixture[str]) -> None:
    speaks = [sys.executable, "-c", "print('spoken')"]
    chosen = {"first": [FAILS, speaks], "second": [speaks]}
    assert selftest.run(chosen, Terminal()) == 1
    shown = capfd.readouterr().out
    assert shown.count("spoken") == 2
    assert re.search(r"^first +FAILED +[\d.]+ s", shown, re.M)
    assert re.search(r"^second +ok +[\d.]+ s", shown, re.M)
    assert re.search(r"^all +FAILED +[\d.]+ s", shown, re.M)


def test_all_well_is_zero() -> None:
    assert selftest.run({"only": [PASSES]}, Terminal()) == 0


def test_no_directory_of_tests_is_forgotten() -> None:
    run = {word for commands in selftest.parts(fresh=False).values() for command in commands for word in command}
    for directory in (ROOT / "tests").iterdir():
        if any(directory.rglob("test_*.py")):
            assert f"tests/{directory.name}" in run, directory.name


def test_ci_starts_from_bare_machines() -> None:
    assert "--fresh" in selftest.parts(fresh=True)["lab"][0]
    assert "--fresh" not in selftest.parts(fresh=False)["lab"][0]
    assert re.search(r"^export CI=1$", (ROOT / ".ci" / "run").read_text(), re.M)


def test_unknown_part_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        selftest.main(["nothing"])
    assert ended.value.code == 2
    assert "lint, unit, exporter, hormones, stream, lab, rules" in capsys.readouterr().err
