"""The schemas of the change events, and what a new version of one may not do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

SCHEMAS = Path(__file__).resolve().parents[1] / "schemas"
FORMATS = FormatChecker()
_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")


@FORMATS.checks("date-time", raises=ValueError)
def _is_rfc3339(value: object) -> bool:
    """jsonschema has no check of its own for it."""
    if not isinstance(value, str):
        return True
    datetime.fromisoformat(value)
    return re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", value) is not None


def versions(event: str) -> dict[int, dict[str, Any]]:
    """The schemas of an event by version, oldest first."""
    found = {int(path.stem): json.loads(path.read_text(encoding="utf-8")) for path in (SCHEMAS / event).glob("*.json")}
    return dict(sorted(found.items()))


def validator(event: str, version: int) -> Draft202012Validator:
    """Checks messages, formats of dates and ids included."""
    return Draft202012Validator(versions(event)[version], format_checker=FORMATS)


def faults(message: Mapping[str, Any]) -> list[str]:
    """What is wrong with a message by the schema that it names itself; empty when nothing is."""
    return [
        f"{'/'.join(map(str, error.path))}: {error.message}"
        for error in validator(message["event"], message["version"]).iter_errors(message)
    ]


def breaks(older: Mapping[str, Any], newer: Mapping[str, Any], where: str = "") -> list[str]:
    """Why a consumer of `older` could stumble over a message of `newer`, or the other way round; empty when neither can."""
    found = []
    had, has = older.get("properties", {}), newer.get("properties", {})
    found += [f"{where}/{name} is gone" for name in had.keys() - has.keys()]
    before, after = set(older.get("required", [])), set(newer.get("required", []))
    found += [f"{where}/{name} is not required any more" for name in before - after]
    found += [f"{where}/{name} is required now" for name in after - before]
    for name in had.keys() & has.keys():
        if where == "" and name == "version":
            continue
        found += breaks(had[name], has[name], f"{where}/{name}")
    if _types(older) is not None and (_types(newer) or {"anything"}) - (_types(older) or set()):
        found.append(f"{where} may be of another type")
    allowed = _values(older)
    if allowed is not None and (_values(newer) is None or set(_values(newer) or ()) - set(allowed)):
        found.append(f"{where} may have values that it did not have")
    for bounds, wider in ((_LOWER, lambda new, old: new < old), (_UPPER, lambda new, old: new > old)):
        found += [
            f"{where} has a wider {bound}"
            for bound in bounds
            if bound in older and (bound not in newer or wider(newer[bound], older[bound]))
        ]
    if older.get("format") not in (None, newer.get("format")):
        found.append(f"{where} has another format")
    if "items" in older:
        found += breaks(older["items"], newer.get("items", {}), f"{where}[]")
    return found


def _types(schema: Mapping[str, Any]) -> set[str] | None:
    kinds = schema.get("type")
    if kinds is None:
        return None
    return {kinds} if isinstance(kinds, str) else set(kinds)


def _values(schema: Mapping[str, Any]) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return schema.get("enum")
