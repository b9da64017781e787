"""Templates: where they are, and the one way in which they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from deploys.lib.settings import ROOT

TEMPLATES = ROOT / "templates"


def environment(directory: Path, **marks: Any) -> Environment:
    """Jinja for the templates in `directory`: a name that nobody gave is an error, a line that only holds a block leaves none behind.

    `marks` are Jinja's own options for what begins and ends a value, a block and a comment.
    """
    return Environment(
        loader=FileSystemLoader(directory),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - no HTML here
        trim_blocks=True,
        lstrip_blocks=True,
        **marks,
    )
