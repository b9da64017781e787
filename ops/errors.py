"""How a verb ends when it does not end well: the exit code is part of the interface (docs/commands.md)."""

from __future__ import annotations

DONE, FAILED, REFUSED, DRIFT = 0, 1, 2, 3


class Failed(Exception):
    """The work was begun and did not succeed. The text names the thing, the reason and the next step."""

    exit_code = FAILED


class Refused(Exception):
    """Bad arguments or a precondition that does not hold; nothing was touched. The text is as for `Failed`."""

    exit_code = REFUSED
