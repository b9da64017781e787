"""What a drill leaves behind: a receipt for programs (JSON), the same for people (Markdown), and metrics for Prometheus."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from drill_fingerprint import Content


@dataclass
class Step:
    """One step: its name, how long it took (seconds), whether it ended well."""

    name: str
    seconds: float
    ok: bool


@dataclass
class Receipt:
    """One drill, as far as it came. Times are seconds since the epoch (`started`, `finished`) or seconds; sizes are bytes.

    What was not measured is None.
    """

    host: str
    stanza: str
    started: float
    ok: bool = False
    refused: bool = False
    """Whether a precondition was not met and nothing was done."""
    error: str | None = None
    """Why it is not ok: one sentence."""
    finished: float | None = None
    leader: str | None = None
    backup: dict[str, str | int | float] = field(default_factory=dict)
    """label, type, finished_at, bytes, stop_lsn."""
    lsn: dict[str, str] = field(default_factory=dict)
    """`witness`: what was compared; `marker`: the commit that the RPO was measured with; `segment`: its WAL file; `replayed`: where
    recovery stopped."""
    rpo_seconds: float | None = None
    rto_seconds: float | None = None
    lost_rows: int | None = None
    blocks_verified: int | None = None
    """Pages whose checksum was verified."""
    steps: list[Step] = field(default_factory=list)
    witnessed: dict[str, Content] = field(default_factory=dict)
    restored: dict[str, Content] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows that the leader held."""
        return sum(content.rows for content in self.witnessed.values())


FORGOTTEN = "The drill ended without a word: it was killed, or the host lost power."
"""The reason in a receipt that another run had to finish."""


def document(receipt: Receipt, *, path: str) -> dict[str, object]:
    """The receipt as JSON keeps it. `path` is where it is kept."""
    values = asdict(receipt)
    witnessed, restored = values.pop("witnessed"), values.pop("restored")
    return {
        **values,
        "started": _iso(receipt.started),
        "finished": _iso(receipt.finished),
        "seconds": None if receipt.finished is None else round(receipt.finished - receipt.started, 2),
        "steps": [{**asdict(step), "seconds": round(step.seconds, 2)} for step in receipt.steps],
        "rpo_seconds": _rounded(receipt.rpo_seconds),
        "rto_seconds": _rounded(receipt.rto_seconds),
        "rows": receipt.rows,
        "tables": {
            name: {"witnessed": witnessed.get(name), "restored": restored.get(name)} for name in sorted(witnessed.keys() | restored.keys())
        },
        "receipt": path,
    }


def page(receipt: Receipt) -> str:
    """The receipt for people, as Markdown."""
    verdict = "refused" if receipt.refused else "passed" if receipt.ok else "FAILED"
    facts: list[tuple[str, object]] = [
        ("cluster", receipt.stanza),
        ("restored on", receipt.host),
        ("leader asked", receipt.leader),
        ("started", _iso(receipt.started)),
        ("finished", _iso(receipt.finished)),
        *((f"backup: {name.replace('_', ' ')}", _value(name, value)) for name, value in receipt.backup.items()),
        *((f"LSN: {name}" if name != "segment" else "WAL segment of the marker", value) for name, value in receipt.lsn.items()),
        ("RPO, seconds", _rounded(receipt.rpo_seconds)),
        ("RTO, seconds", _rounded(receipt.rto_seconds)),
        ("lost rows", receipt.lost_rows),
        ("rows compared", receipt.rows or None),
        ("pages verified", receipt.blocks_verified),
    ]
    lines = [f"# Restore drill of {receipt.stanza}: {verdict}", ""]
    lines += [receipt.error, ""] if receipt.error else []
    lines += _table(("what", "value"), ((name, value) for name, value in facts if value is not None))
    lines += ["", "## Steps", "", *_table(("step", "seconds", "ok"), ((s.name, f"{s.seconds:.2f}", _yes(s.ok)) for s in receipt.steps))]
    if receipt.witnessed or receipt.restored:
        names = sorted(receipt.witnessed.keys() | receipt.restored.keys())
        rows = ((name, *_contents(receipt.witnessed.get(name), receipt.restored.get(name))) for name in names)
        lines += ["", "## Tables", "", *_table(("table", "rows on the leader", "rows restored", "same contents"), rows)]
    return "\n".join(lines) + "\n"


def metrics(last: Receipt, success: Receipt | None) -> str:
    """Prometheus' text format: how the last drill ended, and the figures of the last successful one."""
    lines: list[str] = []

    def gauge(name: str, help_text: str, samples: Mapping[str, float]) -> None:
        lines.extend([f"# HELP phoenix_drill_{name} {help_text}", f"# TYPE phoenix_drill_{name} gauge"])
        lines.extend(f"phoenix_drill_{name}{labels} {value!r}" for labels, value in samples.items())

    gauge("success", "1 when the last restore drill ended well, 0 when it failed or was refused.", {"": float(last.ok)})
    gauge("last_run_timestamp_seconds", "When the last restore drill ended, Unix time.", {"": float(last.finished or last.started)})
    if success is None:
        return "\n".join(lines) + "\n"
    of = "of the last successful restore drill"
    gauge("last_success_timestamp_seconds", "When the last successful restore drill ended, Unix time.", {"": float(success.finished or 0)})
    gauge("rpo_seconds", f"Time from a commit until the repository had it, {of}.", {"": float(success.rpo_seconds or 0)})
    gauge("rto_seconds", f"Time to restore, recover and take a first write, {of}.", {"": float(success.rto_seconds or 0)})
    gauge("lost_rows", f"Rows that the leader had and the restored cluster had not, {of}.", {"": float(success.lost_rows or 0)})
    gauge("rows_compared", f"Rows counted and hashed on both sides, {of}.", {"": float(success.rows)})
    gauge("tables_compared", f"Tables counted and hashed on both sides, {of}.", {"": float(len(success.witnessed))})
    gauge("restored_bytes", f"Size of the restored backup, {of}.", {"": float(success.backup.get("bytes", 0))})
    backup_at = float(success.backup.get("finished_at", 0))
    gauge("backup_timestamp_seconds", f"When the backup was taken, {of}, Unix time.", {"": backup_at})
    gauge("step_seconds", f"Time of each step, {of}.", {f'{{step="{step.name}"}}': round(step.seconds, 3) for step in success.steps})
    return "\n".join(lines) + "\n"


class Archive:
    """The directory of receipts: `receipt.json` and `receipt.md` are the last drill, `success.json` the last that ended well.

    `running.json` exists while a drill runs; one that is found at a start belongs to a drill that was killed.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        self._directory = directory
        self._receipts = directory / "receipts"
        self._keep = keep
        self.metrics = directory / "phoenix_drill.prom"

    def begin(self, receipt: Receipt) -> None:
        """Note that a drill runs."""
        _write(self._directory / "running.json", json.dumps(document(receipt, path="")))

    def forgotten(self) -> Receipt | None:
        """The drill that was killed, if there is one."""
        return _load(self._directory / "running.json")

    def finish(self, receipt: Receipt) -> Path:
        """Keep the receipt and the metrics, forget the oldest receipts. Returns the path of the JSON."""
        self._receipts.mkdir(exist_ok=True)
        self._receipts.chmod(0o755)
        kept = self._receipts / f"{datetime.fromtimestamp(receipt.started, UTC):%Y%m%dT%H%M%SZ}.json"
        text = json.dumps(document(receipt, path=str(kept)), indent=2) + "\n"
        _write(kept, text)
        _write(kept.with_suffix(".md"), page(receipt))
        _write(self._directory / "receipt.json", text)
        _write(self._directory / "receipt.md", page(receipt))
        if receipt.ok:
            _write(self._directory / "success.json", text)
        _write(self.metrics, metrics(receipt, _load(self._directory / "success.json")))
        (self._directory / "running.json").unlink(missing_ok=True)
        for old in sorted(self._receipts.glob("*.json"))[: -self._keep]:
            old.unlink()
            old.with_suffix(".md").unlink(missing_ok=True)
        return kept


def read(text: str) -> Receipt:
    """The receipt of its JSON. Raises ValueError, KeyError or TypeError for anything else."""
    values = json.loads(text)
    names = Receipt.__dataclass_fields__.keys() - {"witnessed", "restored"}
    tables = values["tables"]
    return Receipt(
        **{
            **{name: values[name] for name in names},
            "started": _epoch(values["started"]),
            "finished": None if values["finished"] is None else _epoch(values["finished"]),
            "steps": [Step(**step) for step in values["steps"]],
            "witnessed": {name: Content(**one["witnessed"]) for name, one in tables.items() if one["witnessed"]},
            "restored": {name: Content(**one["restored"]) for name, one in tables.items() if one["restored"]},
        }
    )


def _load(path: Path) -> Receipt | None:
    try:
        return read(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or one of another version
        return None


def _write(path: Path, text: str) -> None:
    """Readers see the old file or the new one, and a full disk leaves the old."""
    new = path.with_name(f".{path.name}.new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.chmod(0o644)
    new.replace(path)


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> list[str]:
    return [f"| {' | '.join(str(cell) for cell in row)} |" for row in [head, ("---",) * len(head), *rows]]


def _contents(witnessed: Content | None, restored: Content | None) -> tuple[object, object, str]:
    return (witnessed.rows if witnessed else "none", restored.rows if restored else "none", _yes(witnessed == restored))


def _value(name: str, value: float | str) -> str:
    return (_iso(float(value)) or "") if name == "finished_at" else str(value)


def _yes(value: bool) -> str:
    return "yes" if value else "NO"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
