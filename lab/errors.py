"""What can go wrong, told apart by what a caller can do about it."""

from __future__ import annotations


class LabError(Exception):
    """The work failed half-way (exit code 1). The message is one sentence: the thing, the reason, the next step."""

    exit_code = 1


class LabRefused(LabError):
    """A precondition is not met and nothing was touched (exit code 2)."""

    exit_code = 2
