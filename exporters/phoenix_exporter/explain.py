"""A page for people: what each collector asks, how long it took, how old its answer is, and what went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from phoenix_exporter import VERSION

if TYPE_CHECKING:
    from phoenix_exporter.engine import Engine, State

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:.5rem 0}td,th{text-align:left;padding:.1rem .8rem .1rem 0}"
    "pre{background:#f4f4f4;padding:.6rem;overflow-x:auto}.bad{color:#a00}"
)


def page(engine: Engine, now: float) -> str:
    """Give the page as HTML; nothing is asked of the database for it. `now`: event-loop time."""
    return "\n".join(_parts(engine, now))


def _parts(engine: Engine, now: float) -> Iterator[str]:
    yield "<!doctype html><html lang=en><meta charset=utf-8><title>phoenix-exporter</title>"
    yield f"<style>{_STYLE}</style><h1>phoenix-exporter {escape(VERSION)}</h1>"
    yield "<p>" + " · ".join(f'<a href="{p}">{p}</a>' for p in ("/metrics", "/health/live", "/health/ready")) + "</p>"
    database = engine.config.database
    where = f"{database.name} on {database.host}:{database.port} as {database.user}"
    if engine.finished_at is None:
        yield f"<p>Database {escape(where)}: nothing was measured yet.</p>"
    elif engine.up:
        ago = f"{now - engine.finished_at:.1f} s ago, in {engine.duration_s * 1000:.1f} ms"
        yield f"<p>Database {escape(where)}: answered {ago} (PostgreSQL {escape(engine.session.server_version)}).</p>"
    else:
        yield f"<p class=bad>Database {escape(where)}: does not answer: {escape(engine.lost or '')}</p>"
    for state in engine.states:
        yield from _collector(state, now)


def _collector(state: State, now: float) -> Iterator[str]:
    yield f"<h2 id={state.collector.name}>{state.collector.name}</h2><table>"
    age = "no values now" if state.text is None else f"{now - state.measured_at:.1f} s"
    for name, value in (
        ("last duration", f"{state.duration_s * 1000:.1f} ms"),
        ("rows", str(state.rows)),
        ("age of the values", age),
        ("asked of", ", ".join(sorted(state.collector.roles))),
        ("served again for", f"{state.ttl_s:g} s"),
        ("stopped after", f"{state.timeout_s:g} s"),
    ):
        yield f"<tr><th>{name}</th><td>{escape(value)}</td></tr>"
    if state.error:
        yield f"<tr class=bad><th>error</th><td>{escape(state.error)}</td></tr>"
    yield "</table><table>"
    for kind in state.collector.metrics:
        labels = "{" + ", ".join(kind.labels) + "}" if kind.labels else ""
        name = f"<code>{escape(kind.name + labels)}</code>"
        yield f"<tr><td>{name}</td><td>{kind.type}</td><td>{escape(kind.help)}</td></tr>"
    yield f"</table><pre>{escape(state.collector.sql.strip())}</pre>"
