"""How fast the computer is just now: `python -m bench.pace`.

A computer that others share is twice as fast in one hour as in another, and its own figures do not show it: processor time is counted, not
work done. So the benches of the whole platform print this first, and figures of different days are told apart by it.
"""

from __future__ import annotations

import statistics
import sys
import time

from ops.errors import DONE
from ops.terminal import Terminal

STEPS = 1_000_000
ROUNDS = 9


def milliseconds() -> float:
    """Processor time, in ms, that this process takes for a fixed piece of work: the median of nine. More is slower."""
    took = []
    for _ in range(ROUNDS):
        started = time.process_time()
        total = 0
        for number in range(STEPS):
            total += number * number
        took.append(time.process_time() - started)
    return 1000 * statistics.median(took)


def tell(terminal: Terminal) -> None:
    """Print it."""
    terminal.say(f"pace: {milliseconds():.0f} ms of processor time for {STEPS:,} steps of Python (bench/pace.py)")


if __name__ == "__main__":
    tell(Terminal())
    sys.exit(DONE)
