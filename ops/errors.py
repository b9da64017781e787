"""How a verb ends when it does not end well: the exit code is part of the interface (docs/commands.md)."""

from __future__ import annotations

from typing import Any

DONE, FAILED, REFUSED, DRIFT = 0, 1, 2, 3


class Ended(Exception):
    """The text names the thing, the reason and the next step."""

    exit_code = FAILED
    details: dict[str, Any]
    """What --json prints beside the text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.details = {}


class Failed(Ended):
    """The work was begun and did not succeed."""

    exit_code = FAILED


class Refused(Ended):
    """Bad arguments or a precondition that does not hold; nothing was touched."""

    exit_code = REFUSED
