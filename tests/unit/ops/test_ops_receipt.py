"""Receipts are written whatever comes of a verb, and say the same in JSON and on the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploys.lib.settings import Platform
from ops import receipt
from ops.errors import Failed
from ops.terminal import Terminal


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform(tmp_path / "site.py", {})


def written(directory: Path) -> tuple[dict[str, Any], str]:
    (path,) = directory.glob("*.json")
    return json.loads(path.read_text()), path.with_suffix(".md").read_text()


def test_a_verb_that_ends_well_leaves_its_figures(platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "receipts"
    with receipt.kept("failover", platform, Terminal(as_json=True), directory=directory) as kept:
        with kept.steps.step("promote standby") as doing:
            doing.note("vps2 leads | at last")
        kept.rpo_seconds, kept.rto_seconds, kept.lost_rows = 0.0, 1.7341, 0
        kept.facts["positions"] = {"before": {"lsn": "0/5", "timeline": 1}, "after": {"lsn": "0/6", "timeline": 2}}
        kept.facts["backups"] = [{"label": "1F", "bytes": 5}]
    content, page = written(directory)
    assert content["ok"] is True
    assert (content["rpo_seconds"], content["rto_seconds"], content["lost_rows"]) == (0.0, 1.734, 0)
    assert [(step["name"], step["ok"]) for step in content["steps"]] == [("promote standby", True)]
    assert Path(content["receipt"]).exists()
    assert page.startswith("# failover: done\n")
    assert "| without writes (RTO) | 1.73 s |" in page
    assert "| promote standby | 0.0 s | ok | vps2 leads \\| at last |" in page
    assert "| after | lsn 0/6, timeline 2 |" in page
    assert "| 1F | 5 |" in page
    assert json.loads(capsys.readouterr().out) == content, "--json prints what is written"


def test_a_verb_that_fails_says_at_which_step_and_why(platform: Platform, tmp_path: Path) -> None:
    directory = tmp_path / "receipts"
    with (
        pytest.raises(Failed) as raised,
        receipt.kept("restore", platform, Terminal(), directory=directory) as kept,
        kept.steps.step("restore"),
    ):
        raise Failed("the disk is full: make room.")
    content, page = written(directory)
    assert content["ok"] is False
    assert content["error"] == content["steps"][0]["error"] == "the disk is full: make room."
    assert content["steps"][0]["ok"] is False
    assert page.startswith("# restore: FAILED\n\n**the disk is full: make room.**")
    assert raised.value.details["receipt"] == content["receipt"], "for --json"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), ValueError("a fault of ours")])
def test_an_interrupted_verb_leaves_one_too(platform: Platform, tmp_path: Path, error: BaseException) -> None:
    directory = tmp_path / "receipts"
    with (
        pytest.raises(type(error)),
        receipt.kept("rebuild", platform, Terminal(), directory=directory) as kept,
        kept.steps.step("deploy"),
    ):
        raise error
    content, page = written(directory)
    assert content["ok"] is False
    assert "FAILED" in page
    assert content["error"] in ("interrupted", "ValueError: a fault of ours")


def test_two_receipts_of_one_second_do_not_meet(platform: Platform, tmp_path: Path) -> None:
    for _ in range(2):
        with receipt.kept("backup", platform, Terminal(), directory=tmp_path / "receipts"):
            pass
    assert len(list((tmp_path / "receipts").glob("*.json"))) == 2
