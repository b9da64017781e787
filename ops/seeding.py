"""seed: believable data of any size, the same for the same seed (ops/seed.py makes it)."""

from __future__ import annotations

import argparse
import time

import psycopg

from deploys.lib.settings import shown
from ops import inventory, pgconn
from ops.errors import DONE, Failed, Refused
from ops.options import count
from ops.terminal import Terminal, seconds

SIZES = {"personas": 1_600, "agents": 24, "tasks": 2_000}


def arguments(verb: str, parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    for name, default in SIZES.items():
        parser.add_argument(f"--{name}", type=count, default=default, metavar="N", help=f"how many (default: {default})")
    parser.add_argument("--random-seed", type=int, default=1, metavar="N", help="another number gives other data (default: 1)")
    parser.add_argument("--replace", action="store_true", help="first delete all data there is, of every table")
    parser.add_argument("--yes", action="store_true", help="do not ask before --replace deletes")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Load the data and say how many rows that made."""
    platform = inventory.made(options.inventory)
    if options.replace and not options.yes:
        terminal.confirm(f"This deletes all personas, agents, tasks and what belongs to them ({shown(platform.inventory)}).")
    from ops import seed  # noqa: PLC0415 - brings numpy, which refusals do without

    started = time.monotonic()
    with pgconn.connect(platform, "architect") as connection:
        sizes = {name: getattr(options, name) for name in SIZES}
        try:
            counts = seed.seed(connection, **sizes, random_seed=options.random_seed, replace=options.replace, progress=terminal.say)
        except seed.SeedRefused as error:
            raise Refused(f"{str(error).rstrip('.')}.") from error
        except psycopg.Error as error:
            reason = str(error).strip().splitlines()[0]
            raise Failed(f"the database took none of the data ({reason}): see './phoenix status' and './phoenix logs patroni'.") from error
    took = time.monotonic() - started
    terminal.result({"ok": True, "seconds": round(took, 2), "rows": counts})
    terminal.table(["table", "rows"], [[name, f"{count:,}"] for name, count in counts.items()])
    terminal.line(f"Seeded in {seconds(took)}.", "green")
    return DONE
