"""`python -m lab`: progress goes to stderr, results to stdout; exit 0 done, 1 failed, 2 refused."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

from lab import manage
from lab.config import Lab
from lab.errors import LabError


class _Progress:
    """Prints each step with the seconds since the beginning."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, message: str) -> None:
        print(f"[{time.monotonic() - self._start:6.1f} s] {message}", file=sys.stderr, flush=True)


def table(rows: Sequence[manage.Status]) -> str:
    """The machines as a table for people."""
    lines = [f"{'machine':<10}{'address':<16}{'state':<10}{'ssh':<6}{'up':>10}{'memory':>10}{'cpus':>6}"]
    for row in rows:
        uptime = time.strftime("%H:%M:%S", time.gmtime(row.uptime_s % 86400)) if row.state == "running" else "-"
        days = f"{row.uptime_s // 86400}d " if row.uptime_s >= 86400 else ""
        lines.append(
            f"{row.name:<10}{row.address:<16}{row.state:<10}{'yes' if row.ssh else 'no':<6}{days + uptime:>10}"
            f"{row.memory_mb:>7} MB{row.cpus:>6}"
        )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab", description="Real Debian machines on this computer.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="make and start machines (all of them when none is named)")
    up.add_argument("names", nargs="*", metavar="NAME")
    up.add_argument("--fresh", action="store_true", help="throw the machines' disks away first")
    verbs.add_parser("down", help="stop all machines and remove everything but the download cache")
    status = verbs.add_parser("status", help="show the machines")
    status.add_argument("--json", action="store_true", help="one JSON object on stdout")
    ssh = verbs.add_parser("ssh", help="open a shell on a machine, or run a command there")
    ssh.add_argument("name", metavar="NAME")
    ssh.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Returns the exit code; `ssh` replaces this process."""
    args = _parser().parse_args(argv)
    progress = _Progress()
    try:
        if args.verb == "up":
            print(table(manage.up(args.names, fresh=args.fresh, progress=progress)))
        elif args.verb == "down":
            manage.down(progress=progress)
            cache = Lab.from_environment().paths.cache
            progress(f"down; downloads stay in {cache} for the next time (remove that directory to drop them)")
        elif args.verb == "status":
            rows = manage.status()
            print(json.dumps({"machines": [asdict(row) for row in rows]}) if args.json else table(rows))
        else:
            words = args.command[1:] if args.command[:1] == ["--"] else args.command
            command = manage.ssh_command(args.name, words)
            os.execvp(command[0], command)  # noqa: S606 - a list, no shell
    except LabError as error:
        print(f"lab: {error}" if not str(error).startswith("lab:") else str(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("lab: interrupted: run the same command again, it goes on from where it stopped", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
