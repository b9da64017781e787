"""What the operations of a deploy ask a host first, asked for all of them in one round trip.

Most operations begin with one question that is known when they are called: what are these files, is this unit running. An operation that
`asks` it says so then, and the first that runs on a host fetches the answers for all that follow there. As soon as anything has been
changed on any host they count for nothing, and each operation asks when its turn comes: what it then sees may be another's work.
A dry run, which calls and evaluates operations one by one, asks one by one (docs/decisions/0405-asked-ahead.md).
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from pyinfra import context, host
from pyinfra.api import FactBase
from pyinfra.api.host import Host
from pyinfra.api.state import BaseStateCallback, State

Operation = TypeVar("Operation", bound=Callable[..., Any])

Question = tuple[type[FactBase[Any]], Mapping[str, Any]]
"""A fact and its arguments."""

NEXT = "-- phoenix: the next answer --"
LONGEST = 60_000
"""Characters of one command: the kernel takes 128 KiB as one argument, and quoting adds to it."""
_NAME = "phoenix_ahead"
"""Where pyinfra's state keeps this module's."""


class Answers(FactBase[list[list[str]]]):
    """The lines that each of several read-only shell commands prints, in their order."""

    default = list

    def command(self, commands: Sequence[str]) -> str:
        return "\n".join(f"(\n{command}\n)\nprintf '\\n%s\\n' '{NEXT}'" for command in commands)

    def process(self, output: list[str]) -> list[list[str]]:
        answers: list[list[str]] = []
        lines: list[str] = []
        for line in output:
            if line != NEXT:
                lines.append(line)
                continue
            answers.append(lines[:-1] if lines and not lines[-1] else lines)  # the end of the line before
            lines = []
        return answers


@dataclass
class _Run:
    """One run of pyinfra."""

    expected: dict[str, list[Question]] = field(default_factory=lambda: defaultdict(list))
    """By host, in the order in which the operations were called."""
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By host and question, from when it was first asked."""
    changed: bool = False


class _Watch(BaseStateCallback):
    """Notices the first change."""

    @staticmethod
    def operation_end(state: State, op_hash: str) -> None:
        """An operation has ended on every host."""
        done = [operations[op_hash].operation_meta for operations in state.ops.values() if op_hash in operations]
        if any(one.executed for one in done):
            _run().changed = True


def asks(question: Callable[..., Question]) -> Callable[[Operation], Operation]:
    """An operation whose first question is `question`, given the operation's keyword arguments. It has to put it by `ask`."""

    def decorate(operation: Operation) -> Operation:
        @functools.wraps(operation)
        def call(**arguments: Any) -> Any:
            if not context.state.is_executing:
                _run().expected[str(host.name)].append(question(**arguments))
            return operation(**arguments)

        return cast(Operation, call)

    return decorate


def ask(question: Question) -> Any:
    """The answer on the present host."""
    run, (fact, arguments) = _run(), question
    if not context.state.is_executing or run.changed:
        return host.get_fact(fact, **arguments)
    name = str(host.name)
    if name not in run.answers:
        run.answers[name] = dict(_fetch(host, run.expected.pop(name, [])))
    key = _key(question)
    if run.changed or key not in run.answers[name]:
        return host.get_fact(fact, **arguments)
    return run.answers[name][key]


def _run() -> _Run:
    run: _Run | None = getattr(context.state, _NAME, None)
    if run is None:
        run = _Run()
        setattr(context.state, _NAME, run)
        context.state.add_callback_handler(_Watch())  # type: ignore[no-untyped-call]
    return run


def _fetch(on: Host, questions: Sequence[Question]) -> Iterator[tuple[str, Any]]:
    for some in _portions(questions):
        commands = [fact().command(**arguments) for fact, arguments in some]
        answers: list[list[str]] = on.get_fact(Answers, commands=commands)
        if len(answers) == len(some):  # else each asks by itself, and says what is wrong
            for question, lines in zip(some, answers, strict=True):
                fact = question[0]()
                yield _key(question), fact.process(lines) if lines else fact.default()


def _portions(questions: Sequence[Question]) -> Iterator[list[Question]]:
    some: list[Question] = []
    length = 0
    for fact, arguments in questions:
        more = len(str(fact().command(**arguments)))
        if some and length + more > LONGEST:
            yield some
            some, length = [], 0
        some.append((fact, arguments))
        length += more
    if some:
        yield some


def _key(question: Question) -> str:
    fact, arguments = question
    return f"{fact.__module__}.{fact.__qualname__} {sorted(arguments.items())!r}"
