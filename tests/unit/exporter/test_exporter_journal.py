"""One event is one line, whatever is in its values."""

import pytest
from phoenix_exporter import journal


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"),
        ("two words", '"two words"'),
        ("line one\nlevel=error forged", '"line one level=error forged"'),
        ('a "quoted" \\ one', '"a \\"quoted\\" \\\\ one"'),
        ("bell\x07", '"bell?"'),
        ("", '""'),
        (7, "7"),
    ],
)
def test_value_cannot_break_out_of_its_line(capsys, monkeypatch, value, written):
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    journal.write("client refused", level="notice", reason=value)
    assert capsys.readouterr().err == f'level=notice event="client refused" reason={written}\n'


def test_journald_gets_the_priority(capsys, monkeypatch):
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    journal.write("down", level="error")
    assert capsys.readouterr().err == "<3>level=error event=down\n"
