"""How a drill ends early: with one sentence that names the thing, the reason and the next step."""

from __future__ import annotations


class DrillFailed(Exception):
    """The drill began and did not succeed: the platform could not have been restored as promised. Exit code 1."""


class DrillRefused(Exception):
    """A precondition is not met; nothing was touched. Exit code 2."""


class Interrupted(Exception):
    """The drill was told to stop (SIGTERM, SIGINT)."""


def first_line(error: BaseException | str) -> str:
    """The first line of a library's message, without its full stop: to be put into a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else "no reason given").rstrip(".")
