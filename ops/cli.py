"""The phoenix command: reads the arguments, hands over to the verb's module, turns its end into an exit code."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from ops import options
from ops.errors import FAILED, Ended, Refused

# Verb, module that has it, one line of help. A module offers arguments(verb, parser) and run(options, terminal) -> exit code;
# it is imported only when its verb is used, which keeps every start short.
VERBS: dict[str, tuple[str, str]] = {
    "up": ("lifecycle", "make the lab, deploy everything to it, verify it, print its addresses"),
    "down": ("lifecycle", "remove the lab's machines and all that is in them"),
    "deploy": ("deploy", "bring hosts to what the inventory describes"),
    "plan": ("deploy", "say what a deploy would change, and change nothing"),
    "status": ("status", "ask every service whether it is well"),
    "verify": ("verify", "test the hosts from outside, changing nothing"),
    "drift": ("deploy", "name what differs from the description (exit 3), and change nothing"),
    "backup": ("backup", "take a backup now, or list those there are"),
    "restore": ("restore", "take the database back to an earlier moment"),
    "rebuild": ("rebuild", "make a lost host anew, from the other hosts or from the backup"),
    "drill": ("drill", "rehearse a disaster and measure it"),
    "failover": ("failover", "let another member of the database cluster lead, and show that nothing was lost"),
    "hormones": ("hormones", "compare the hormone levels in Redis with PostgreSQL, or make them equal"),
    "events": ("events", "how change events reach Kafka; send them again after a place was lost"),
    "graph": ("graph", "compare the knowledge graph with PostgreSQL, or make it equal"),
    "seed": ("seeding", "fill the database with believable data of any size"),
    "ssh": ("shells", "log in to a host, or run one command there"),
    "psql": ("shells", "psql on the server that takes writes"),
    "logs": ("shells", "the journal of a service or of a whole host"),
    "tailnet": ("tailnet", "the policy of the private network, for its control server"),
    "secrets": ("secret", "keep the inventory's secrets"),
}

PASS_ON = ("ssh", "psql")
"""Verbs that hand the words behind -- to another program."""


def parser(verbs: Sequence[str] = tuple(VERBS)) -> options.Parser:
    """The parser of the whole command. Only the modules of `verbs` are imported to add their own arguments."""
    common = options.common()
    main_parser = options.Parser(
        prog="phoenix",
        description="Turns bare Debian hosts into the Phoenix data platform and keeps them that way.",
        epilog="Exit codes: 0 done, 1 failed, 2 refused and nothing touched, 3 drift found. More: docs/commands.md",
        parents=[common],
    )
    subparsers = main_parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, (module, help_text) in VERBS.items():
        sub = subparsers.add_parser(verb, help=help_text, description=f"phoenix {verb}: {help_text}.", parents=[common])
        if verb in verbs:
            importlib.import_module(f"ops.{module}").arguments(verb, sub)
    return main_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _stop)
    # Behind the first -- is another program's command line.
    own, dashes, rest = words, False, []
    if "--" in words:
        own, dashes, rest = words[: words.index("--")], True, words[words.index("--") + 1 :]
    try:
        given = _given(own, dashes=dashes)
    except Refused as error:
        return _report(error, as_json="--json" in own)
    given.rest = rest
    given.as_json = getattr(given, "as_json", False)
    given.verbose = getattr(given, "verbose", False)
    inventory = getattr(given, "inventory", None)
    from ops.inventory import DEFAULT  # noqa: PLC0415 - `--help` does without the libraries
    from ops.terminal import Terminal  # noqa: PLC0415

    given.inventory = Path(inventory).absolute() if inventory else DEFAULT
    terminal = Terminal(as_json=given.as_json, verbose=given.verbose)
    try:
        return int(importlib.import_module(f"ops.{VERBS[given.verb][0]}").run(given, terminal))
    except Ended as error:
        return _report(error, as_json=given.as_json)
    except KeyboardInterrupt:
        print("phoenix: stopped; run the same command again to go on.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _given(own: Sequence[str], *, dashes: bool) -> argparse.Namespace:
    """The arguments in front of --, understood. Raises Refused."""
    complete = parser([word for word in own if word in VERBS])
    given, unknown = complete.parse_known_args(own)
    if unknown:
        words = " ".join(unknown)
        hint = f", put -- before what belongs to {given.verb} itself" if given.verb in PASS_ON else ""
        raise Refused(f"unrecognized arguments: {words}{hint}: see 'phoenix {given.verb} --help'.")
    if dashes and given.verb not in PASS_ON:
        raise Refused(f"{given.verb} passes nothing on to another program, leave out --: see 'phoenix {given.verb} --help'.")
    return given


def _report(error: Ended, *, as_json: bool) -> int:
    """Say what went wrong, and return its exit code."""
    for line in str(error).splitlines():
        print(f"phoenix: {line}", file=sys.stderr)
    if as_json:
        print(json.dumps({**error.details, "ok": False, "error": str(error)}))
    return error.exit_code


def _stop(number: int, _: FrameType | None) -> NoReturn:
    """End as an exception does, so that what was started (pyinfra, tunnels) is stopped on the way out."""
    raise SystemExit(128 + number)
