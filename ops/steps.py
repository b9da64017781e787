"""Work in named steps: what is going on is shown, how long each step took is kept, and so is which one failed and why."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ops.terminal import Terminal, Working, seconds


@dataclass
class Step:
    """One step that ended, or is going on."""

    name: str
    seconds: float = 0.0
    ok: bool = False
    notes: list[str] = field(default_factory=list)
    """What was found or done, a sentence each."""
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The entry of `steps` in the verbs' JSON."""
        known: dict[str, Any] = {"name": self.name, "seconds": round(self.seconds, 2), "ok": self.ok}
        if self.notes:
            known["notes"] = self.notes
        if self.error:
            known["error"] = self.error
        return known


class Doing:
    """Handle of the step that is going on."""

    def __init__(self, step: Step, terminal: Terminal, working: Working) -> None:
        self._step, self._terminal, self._working = step, terminal, working

    def note(self, text: str) -> None:
        """Keep, and show, what was found or done."""
        self._step.notes.append(text)
        self._terminal.say(f"  {text}", "dim")

    def now(self, text: str) -> None:
        """Show, where a person looks on, what is waited for."""
        self._working.now(f"{self._step.name}: {text}")


class Steps:
    """The steps so far, in their order."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self.done: list[Step] = []

    @contextmanager
    def step(self, name: str) -> Iterator[Doing]:
        """Time one step. Whatever ends the `with`, the step is kept; an exception is its error and goes on its way."""
        step = Step(name)
        self.done.append(step)
        self._terminal.say(f"{name} ...", "bold")
        started = time.monotonic()
        try:
            with self._terminal.working(name) as working:
                yield Doing(step, self._terminal, working)
            step.ok = True
        except BaseException as error:
            step.error = str(error) or ("interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else type(error).__name__)
            raise
        finally:
            step.seconds = time.monotonic() - started
            outcome = "" if step.ok else " (failed)"
            self._terminal.say(f"{name}: {seconds(step.seconds)}{outcome}", "bold" if step.ok else "bold red")

    @property
    def total(self) -> float:
        """Seconds of all steps together."""
        return sum(step.seconds for step in self.done)

    def as_list(self) -> list[dict[str, Any]]:
        """`steps` of the verbs' JSON."""
        return [step.as_dict() for step in self.done]

    def rows(self) -> list[list[str]]:
        """For a table: step, time."""
        return [[step.name, seconds(step.seconds)] for step in self.done] + [["all", seconds(self.total)]]
