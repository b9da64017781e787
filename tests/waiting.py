"""Waiting in tests for what comes about by itself."""

from __future__ import annotations

import time
from collections.abc import Callable

EVENT_S = 60
"""A change event takes tens of milliseconds to where it is followed; a busy computer is given more."""


def wait_until(condition: Callable[[], object], seconds: float, what: str, *, every_s: float = 0.05) -> None:
    """Ask `condition` every `every_s` seconds until its answer is true. After `seconds` the test fails, saying that `what` is not so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(every_s)
