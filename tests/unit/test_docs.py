"""The documents promise nothing that is not there: links, commands, targets and settings exist; nothing of one workplace is in them."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
from collections import Counter
from typing import Any

import pytest

from deploys.lib.settings import GROUP_DATA, ROOT, SERVICES
from ops import cli
from ops.errors import Refused

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in zip(NAMES, DOCUMENTS, strict=True)}
SETTINGS = [f"{prefix}_{field}" for prefix, model in SERVICES.items() for field in model.model_fields]

# Joined from parts, so that this file does not hold them either.
FOREIGN = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("maven", "org"),
        ("maven", "apache", "org"),
        ("golang", "org"),
        ("crates", "io"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("ftp", "debian", "org"),
    )
]
WORKPLACE = re.compile(r"(?<![\w.-])/" + r"work\b")


def prose(text: str) -> str:
    """`text` without fenced blocks and code in backticks, where brackets are not links."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"(?ms)^```.*?^```$", "", text))


def anchors(text: str) -> set[str]:
    """The anchors that a Markdown page gives its headings, the way Git hosts make them."""
    headings = re.findall(r"(?m)^#+ (.+)$", re.sub(r"(?ms)^```.*?^```$", "", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def command_lines(text: str) -> list[str]:
    """Every `./phoenix ...` in fenced blocks and backticks, up to where the shell takes over."""
    found = re.findall(r"(?ms)^```.*?^```$", text)
    spans = [line for block in found for line in re.findall(r"(?m)^(?:[#$] )?(\./phoenix .*)$", block)]
    spans += re.findall(r"`(\./phoenix [^`\n]+)`", re.sub(r"(?ms)^```.*?^```$", "", text))
    return [re.split(r"\s(?:#|\||>|<|\\|&&|;)|\s--\s", line)[0].strip() for line in spans]


@pytest.mark.parametrize("name", NAMES)
def test_every_relative_link_resolves(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(TEXTS[name])):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), f"{name}: {target} leads nowhere"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{name}: {target}: there is no such heading"


@pytest.mark.parametrize("name", NAMES)
def test_every_command_that_is_shown_is_understood(name: str) -> None:
    for line in command_lines(TEXTS[name]):
        words = shlex.split(line)[1:]
        if words == ["--help"] or "VERB" in words or "INVENTORY" in words:
            continue
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                cli.parser().parse_args(words)
        except SystemExit as end:
            assert end.code == 0, f"{name}: {line}"
        except Refused as refusal:
            # A sentence may name a verb without its arguments; what is wrong otherwise is an error.
            assert len(words) <= 2 and "arguments are required" in str(refusal), f"{name}: {line}: {refusal}"


@pytest.mark.parametrize("name", NAMES)
def test_every_make_target_exists(name: str) -> None:
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    fenced = "\n".join(re.findall(r"(?ms)^```.*?^```$", TEXTS[name]))
    mentioned = re.findall(r"`make ([a-z]+)", TEXTS[name]) + re.findall(r"(?m)^[#$] make ([a-z]+)", fenced)
    assert set(mentioned) <= targets


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_one_workplace_is_in_it(name: str) -> None:
    text = TEXTS[name].lower()
    assert [host for host in FOREIGN if host in text] == []
    assert WORKPLACE.findall(text) == []


def rows() -> dict[str, list[str]]:
    """The rows of the tables in docs/settings.md: setting to its other cells."""
    lines = [line for line in TEXTS["docs/settings.md"].splitlines() if re.match(r"\| `[a-z][a-z0-9]*_\w+` \|", line)]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {first.strip("` "): rest for first, *rest in cells}


def test_every_setting_is_described_and_no_other() -> None:
    assert sorted(rows()) == sorted(SETTINGS)


def test_the_defaults_that_are_told_are_those_in_group_data() -> None:
    values: dict[str, Any] = {}
    for path in GROUP_DATA.glob("*.py"):
        values |= {key: value for key, value in runpy.run_path(str(path)).items() if key in SETTINGS}
    for key, (_, told, *_) in rows().items():
        if told == "must be set":
            assert key not in values, f"{key} has a value in group_data"
        elif key in values and isinstance(values[key], int | float | str):
            quoted = f'"{values[key]}"' if isinstance(values[key], str) else str(values[key])
            assert told == f"`{quoted}`", f"{key} is {values[key]!r} in group_data"


def test_each_decision_has_a_number_of_its_own() -> None:
    numbers = Counter(path.name.partition("-")[0] for path in (ROOT / "docs" / "decisions").glob("*.md"))
    assert [number for number, count in numbers.items() if count > 1] == []


def test_the_index_names_every_page() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages <= set(re.findall(r"\]\(([\w-]+\.md)", TEXTS["docs/README.md"]))
