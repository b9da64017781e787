"""What a drill leaves behind: receipts for programs and people, metrics, and nothing too many."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from drill_fingerprint import Content
from drill_receipt import FORGOTTEN, Archive, Receipt, Step, document, metrics, page, read


@pytest.fixture
def passed() -> Receipt:
    return Receipt(
        host="vps3",
        stanza="phoenix",
        started=1_764_000_000.0,
        ok=True,
        finished=1_764_000_090.5,
        leader="10.66.0.11",
        backup={"label": "20251124-160000F", "type": "full", "finished_at": 1_763_999_000.0, "bytes": 1000, "stop_lsn": "0/5000028"},
        lsn={"witness": "0/6000000", "marker": "0/6000100", "segment": "000000010000000000000006", "replayed": "0/6000000"},
        rpo_seconds=31.234,
        rto_seconds=12.5,
        lost_rows=0,
        blocks_verified=77,
        steps=[Step("restore", 10.0, True), Step("amcheck", 3.25, True)],
        witnessed={"s.a": Content(5, "-17")},
        restored={"s.a": Content(5, "-17")},
    )


@pytest.fixture
def failed() -> Receipt:
    return Receipt("vps3", "phoenix", 1_764_090_000.0, error="The thing broke: mend it.", finished=1_764_090_001.0)


def value(text: str, name: str) -> float:
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split(" ")[1])


def test_the_json_has_what_the_command_prints(passed: Receipt) -> None:
    shown = document(passed, path="/x/1.json")
    assert {"ok", "rpo_seconds", "rto_seconds", "lost_rows", "steps", "receipt"} <= shown.keys()
    assert shown["steps"] == [{"name": "restore", "seconds": 10.0, "ok": True}, {"name": "amcheck", "seconds": 3.25, "ok": True}]
    assert (shown["rpo_seconds"], shown["seconds"], shown["rows"]) == (31.23, 90.5, 5)
    assert shown["started"] == "2025-11-24T16:00:00.000Z"


def test_a_receipt_is_read_back_as_it_was(passed: Receipt) -> None:
    again = read(json.dumps(document(passed, path="")))
    assert (again.started, again.finished, again.steps, again.witnessed) == (
        passed.started,
        passed.finished,
        passed.steps,
        passed.witnessed,
    )


def test_the_page_says_how_it_ended_and_why(passed: Receipt, failed: Receipt) -> None:
    assert page(passed).startswith("# Restore drill of phoenix: passed\n")
    assert "| restore | 10.00 | yes |" in page(passed)
    assert "| s.a | 5 | 5 | yes |" in page(passed)
    assert page(failed).startswith("# Restore drill of phoenix: FAILED\n\nThe thing broke: mend it.\n")


def test_a_table_that_differs_is_marked(passed: Receipt) -> None:
    passed.restored = {"s.a": Content(4, "3"), "s.b": Content(1, "1")}
    assert "| s.a | 5 | 4 | NO |" in page(passed)
    assert "| s.b | none | 1 | NO |" in page(passed)


def test_metrics_after_a_success(passed: Receipt) -> None:
    text = metrics(passed, passed)
    assert value(text, "phoenix_drill_success") == 1
    assert value(text, "phoenix_drill_last_success_timestamp_seconds") == 1_764_000_090.5
    assert value(text, "phoenix_drill_rpo_seconds") == 31.234
    assert value(text, "phoenix_drill_rto_seconds") == 12.5
    assert value(text, "phoenix_drill_restored_bytes") == 1000
    assert value(text, 'phoenix_drill_step_seconds{step="amcheck"}') == 3.25


def test_a_failure_keeps_the_figures_of_the_last_success(passed: Receipt, failed: Receipt, tmp_path: Path) -> None:
    archive = Archive(tmp_path, keep=5)
    archive.finish(passed)
    archive.finish(failed)
    text = archive.metrics.read_text()
    assert value(text, "phoenix_drill_success") == 0
    assert value(text, "phoenix_drill_last_run_timestamp_seconds") == 1_764_090_001.0
    assert value(text, "phoenix_drill_last_success_timestamp_seconds") == 1_764_000_090.5
    assert json.loads((tmp_path / "receipt.json").read_text())["error"] == "The thing broke: mend it."


def test_without_any_success_there_are_no_figures(failed: Receipt) -> None:
    assert "last_success" not in metrics(failed, None)


def test_only_the_newest_receipts_are_kept(failed: Receipt, tmp_path: Path) -> None:
    archive = Archive(tmp_path, keep=2)
    for day in range(4):
        failed.started = 1_764_090_000.0 + day * 86_400
        archive.finish(failed)
    assert sorted(path.name for path in (tmp_path / "receipts").iterdir()) == [
        "20251127T170000Z.json",
        "20251127T170000Z.md",
        "20251128T170000Z.json",
        "20251128T170000Z.md",
    ]


def test_a_drill_that_was_killed_is_found_and_finished(failed: Receipt, tmp_path: Path) -> None:
    archive = Archive(tmp_path, keep=2)
    assert archive.forgotten() is None
    archive.begin(Receipt("vps3", "phoenix", 1_764_090_000.0))
    forgotten = archive.forgotten()
    assert forgotten is not None
    assert not forgotten.ok
    forgotten.error, forgotten.finished = FORGOTTEN, 1_764_090_500.0
    archive.finish(forgotten)
    assert archive.forgotten() is None
    assert "killed" in (tmp_path / "receipt.md").read_text()


def test_a_receipt_of_another_version_is_as_good_as_none(passed: Receipt, tmp_path: Path) -> None:
    archive = Archive(tmp_path, keep=2)
    (tmp_path / "success.json").write_text('{"ok": true}')
    archive.finish(Receipt("vps3", "phoenix", 1_764_090_000.0, finished=1.0))
    assert "last_success" not in archive.metrics.read_text()
