"""Reads the runbooks: their headings, and the commands in their code blocks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploys.lib.settings import ROOT

DIRECTORY = ROOT / "docs" / "runbooks"
HEADINGS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
PLACEHOLDER = re.compile(r"\b(NAME|PID|UNIT|AGENT|MEMBER|LSN)\b")
"""What the reader fills in."""


@dataclass(frozen=True)
class Command:
    """One line of a code block: its page, its section, and its words as a shell would split them."""

    page: str
    section: str
    words: list[str]

    @property
    def verb(self) -> str:
        """`psql` of `./phoenix psql -- -c ...`."""
        return self.words[1]

    @property
    def sql(self) -> str:
        """The statement of a psql command, otherwise empty."""
        return self.words[self.words.index("-c") + 1] if self.verb == "psql" else ""

    @property
    def remote(self) -> str:
        """What is run on the host by `./phoenix ssh HOST -- "..."`, otherwise empty."""
        return self.words[self.words.index("--") + 1] if self.verb == "ssh" else ""


def pages() -> list[Path]:
    """Every page."""
    return sorted(DIRECTORY.glob("*.md"))


def headings(page: Path) -> list[str]:
    """The headings of the second level, in order."""
    return re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)


def commands() -> Iterator[Command]:
    """Every command of every page. Raises ValueError for a line that a shell could not split."""
    for page in pages():
        section, inside = "", False
        for line in page.read_text(encoding="utf-8").splitlines():
            if line.startswith("```"):
                inside = line == "```sh"
            elif inside:
                yield Command(page.stem, section, shlex.split(line))
            elif line.startswith("## "):
                section = line.removeprefix("## ")
