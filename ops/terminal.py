"""What a person sees: results on stdout (a table, or one JSON object), progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ops.errors import Refused

Cell = str | Text

PIPE_WIDTH = 1000


class Terminal:
    """Output of one run of the command. With `as_json` stdout carries one JSON object and nothing else."""

    def __init__(self, *, as_json: bool = False, verbose: bool = False) -> None:
        self.as_json = as_json
        self.verbose = verbose
        # A pipe gets whole lines: what reads them cuts them itself.
        self._results = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
        self._progress = Console(file=sys.stderr, highlight=False, soft_wrap=True)

    def result(self, value: dict[str, Any]) -> None:
        """The machine-readable result; printed with --json only."""
        if self.as_json:
            print(json.dumps(value))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """The same for people; not printed with --json."""
        if self.as_json:
            return
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*row)
        self._results.print(table)

    def line(self, text: str, style: str = "") -> None:
        """One line of the result for people; not printed with --json."""
        if not self.as_json:
            self._results.print(Text(text, style=style))

    def say(self, text: str, style: str = "") -> None:
        """One line of progress."""
        self._progress.print(Text(text, style=style))

    def confirm(self, consequence: str) -> None:
        """Say what will be destroyed and ask. Raises Refused unless the answer is yes, and where nobody can answer."""
        if not sys.stdin.isatty():
            raise Refused(f"{consequence} Nobody is there to ask: add --yes.")
        self.say(consequence, "bold yellow")
        print("Type yes to go on: ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip() != "yes":
            raise Refused("nothing was done: answer yes, or add --yes, to go on.")

    @contextmanager
    def working(self, text: str) -> Iterator[Working]:
        """Shows, on a terminal, what is going on until the `with` ends; elsewhere nothing."""
        if not self._progress.is_terminal:
            yield Working(None)
            return
        with self._progress.status(Text(text)) as status:
            yield Working(status)


class Working:
    """Handle of `Terminal.working`."""

    def __init__(self, status: Any) -> None:
        self._status = status

    def now(self, text: str) -> None:
        """Change what is shown."""
        if self._status is not None:
            self._status.update(Text(text))


def ok_mark(ok: bool) -> Text:
    """A word, not only a colour, for whether something is well."""
    return Text("ok", style="green") if ok else Text("FAILED", style="bold red")


def seconds(value: float) -> str:
    """A duration for people: 0.4 s, 12.0 s, 3 min 05 s."""
    if value < 100:
        return f"{value:.1f} s"
    return f"{int(value) // 60} min {int(value) % 60:02d} s"
