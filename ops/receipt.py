"""Receipts: what a verb did to the data, with times, positions and counts, as JSON and as a page that a person can read.

They are written to receipts/ in the checkout, whatever came of it. They hold no secrets and no rows of the platform's tables.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploys.lib.settings import ROOT, Platform, shown
from ops.errors import Ended, Failed
from ops.steps import Steps
from ops.terminal import Terminal, seconds

DIRECTORY = ROOT / "receipts"


@dataclass
class Receipt:
    """What is known so far. `facts` are the verb's own findings: nested mappings, lists of flat mappings, or plain values."""

    verb: str
    inventory: str
    began: datetime
    steps: Steps
    rpo_seconds: float | None = None
    """Seconds of acknowledged writes that are lost; None where nothing measures it."""
    rto_seconds: float | None = None
    """Seconds until writes worked again; None where nothing measures it."""
    lost_rows: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    ended: datetime | None = None
    ok: bool = False
    error: str = ""
    path: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """The JSON that is written, and printed by --json."""
        return {
            "ok": self.ok,
            "verb": self.verb,
            "rpo_seconds": _rounded(self.rpo_seconds),
            "rto_seconds": _rounded(self.rto_seconds),
            "lost_rows": self.lost_rows,
            "began": self.began.isoformat(timespec="milliseconds"),
            "ended": self.ended.isoformat(timespec="milliseconds") if self.ended else None,
            "seconds": round((self.ended - self.began).total_seconds(), 2) if self.ended else None,
            "steps": self.steps.as_list(),
            **self.facts,
            "inventory": self.inventory,
            "commit": _commit(),
            "by": f"{getpass.getuser()}@{socket.gethostname()}",
            "receipt": str(self.path) if self.path else None,
            **({"error": self.error} if self.error else {}),
        }

    def write(self, directory: Path) -> Path:
        """Write both files and give the path of the JSON one. Raises Failed when the disk takes none."""
        stem = f"{self.began:%Y%m%dT%H%M%S.%f}"[:-3] + f"Z-{self.verb.replace(' ', '-')}"
        self.path = directory / f"{stem}.json"
        content = self.as_dict()
        try:
            directory.mkdir(exist_ok=True)
            _put(self.path, json.dumps(content, indent=2) + "\n")
            _put(self.path.with_suffix(".md"), page(content))
        except OSError as error:
            raise Failed(f"the receipt cannot be written to {directory} ({error.strerror}): make room, or mend its rights.") from error
        return self.path


@contextmanager
def kept(verb: str, platform: Platform, terminal: Terminal, *, directory: Path = DIRECTORY) -> Iterator[Receipt]:
    """A receipt that is written when the `with` ends, however it ends; an error that goes on from here carries it for --json."""
    receipt = Receipt(verb, shown(platform.inventory), datetime.now(UTC), Steps(terminal))
    try:
        yield receipt
        receipt.ok = True
    except Ended as error:
        receipt.error = str(error)
        receipt.ended = datetime.now(UTC)
        receipt.write(directory)
        error.details = receipt.as_dict()
        terminal.say(f"Receipt: {_near(receipt.path)}")
        raise
    except BaseException as error:
        receipt.error = "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else f"{type(error).__name__}: {error}"
        receipt.ended = datetime.now(UTC)
        receipt.write(directory)
        terminal.say(f"Receipt: {_near(receipt.path)}")
        raise
    receipt.ended = datetime.now(UTC)
    receipt.write(directory)
    terminal.result(receipt.as_dict())
    terminal.table(["step", "time"], receipt.steps.rows())
    terminal.line(f"Receipt: {_near(receipt.path)}")


def page(content: Mapping[str, Any]) -> str:
    """A receipt as Markdown."""
    outcome = "done" if content["ok"] else "FAILED"
    lines = [f"# {content['verb']}: {outcome}", ""]
    if content.get("error"):
        lines += [f"**{_flat(content['error'])}**", ""]
    head = {
        "began": content["began"],
        "ended": content["ended"],
        "took": None if content["seconds"] is None else seconds(content["seconds"]),
        "lost writes (RPO)": _figure(content["rpo_seconds"]),
        "without writes (RTO)": _figure(content["rto_seconds"]),
        "lost rows": content["lost_rows"],
        "inventory": content["inventory"],
        "commit": content["commit"],
        "by": content["by"],
    }
    lines += _table(("what", "value"), [(key, value) for key, value in head.items() if value is not None])
    rows = [
        (step["name"], seconds(step["seconds"]), "ok" if step["ok"] else "FAILED", "; ".join(step.get("notes", [])))
        for step in content["steps"]
    ]
    lines += ["## Steps", "", *_table(("step", "time", "", "notes"), rows)]
    for name, value in content.items():
        if isinstance(value, Mapping):
            lines += [f"## {_title(name)}", "", *_table(("what", "value"), list(value.items()))]
        elif name != "steps" and isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
            columns = tuple(value[0])
            lines += [f"## {_title(name)}", "", *_table(columns, [tuple(row.get(column) for column in columns) for row in value])]
    return "\n".join(lines)


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    head = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return [*head, *("| " + " | ".join(_flat(cell) for cell in row) + " |" for row in rows), ""]


def _flat(value: Any) -> str:
    """A value as the text of one cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        value = ", ".join(f"{key} {_flat(one)}" for key, one in value.items())
    elif isinstance(value, list | tuple):
        value = ", ".join(_flat(one) for one in value)
    return str(value).replace("|", "\\|").replace("\n", " ")


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f} s"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _put(path: Path, text: str) -> None:
    """Write in one step, so that nobody reads half a receipt."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _near(path: Path | None) -> str:
    return shown(path) if path else ""


def _commit() -> str | None:
    """The commit of the checkout, with a + when something in it is changed; None where there is no git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
