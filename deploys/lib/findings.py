"""What an operation found different from its description, in words.

pyinfra knows only that an operation would run commands. `phoenix drift` and `phoenix plan` have to name what differs, so operations
say it here; the lines go to the file that the environment variable names, one JSON object each, and nowhere when it is unset.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from pyinfra import context, host

FILE_VARIABLE = "PHOENIX_FINDINGS"


def report(what: str) -> None:
    """Record that `what` (a short clause, never a secret) differs on the current host."""
    target = os.environ.get(FILE_VARIABLE)
    if not target:
        return
    operation = ""
    if host.current_op_hash is not None:
        operation = ", ".join(context.state.get_op_meta(host.current_op_hash).names)
    line = json.dumps({"host": host.name, "operation": operation, "what": what})
    with Path(target).open("a", encoding="utf-8") as file:
        file.write(line + "\n")
