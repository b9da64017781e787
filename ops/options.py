"""The options that every verb has, on either side of the verb."""

from __future__ import annotations

import argparse
from typing import NoReturn

from ops.errors import Refused


class Parser(argparse.ArgumentParser):
    """argparse that says what is wrong in one sentence and where to look."""

    def error(self, message: str) -> NoReturn:
        """Raises Refused, so that wrong arguments are reported as everything else is, with --json too."""
        raise Refused(f"{message.rstrip('.')}: see '{self.prog} --help'.")


def count(text: str) -> int:
    """A number of 0 or more, 1_000 allowed, as the type of an argument."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return number


def common() -> Parser:
    """A parent for the parsers of the command, its verbs and their actions. What is not given stays unset, so that the inner parser
    does not undo the outer one's."""
    parser = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("-i", "--inventory", metavar="FILE", help="inventory to act on (default: inventory/lab.py)")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object on stdout")
    parser.add_argument("-v", "--verbose", action="store_true", help="show everything that the tools underneath say")
    return parser
