#!/usr/bin/python3 -I
"""Deletes from the repository what has to go: old backups with the WAL that only they need, what interrupted ones left, old dumps.

    retention.py --stanza phoenix --config /etc/pgbackrest-retention/pgbackrest.conf

Runs on a host of group `drill`, with the one account that may delete. Database hosts cannot: a member whose backup was interrupted leaves
word at halted/<stanza>/<label> in the repository (services/backup.py). Only what has no manifest is removed so, whatever the word says: a
backup that is whole goes by age alone. Exit codes: 0 done, 1 failed. Standard library only.
"""

from __future__ import annotations

import argparse
import calendar
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

STAMP = Path("/var/lib/phoenix-retention/expired")
EXPIRE_EVERY_S = 3600
DUMPS_KEPT_D = 14
DUMP = re.compile(r"(\d{8}T\d{6}Z)\.dump")
LABEL = re.compile(r"\d{8}-\d{6}F(_\d{8}-\d{6}[DI])?")


class Failed(Exception):
    """It did not work; the text says what and why."""


class Repository:
    """pgBackRest with the configuration of the account that may delete."""

    def __init__(self, config: Path) -> None:
        self._config = config

    def names(self, path: str) -> list[str]:
        """What is directly below `path`."""
        return sorted(set(json.loads(self.run("repo-ls", path, "--output=json") or "{}")) - {"."})

    def run(self, *words: str) -> str:
        """The output of one command. Raises Failed."""
        done = subprocess.run(
            ["pgbackrest", f"--config={self._config}", *words],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd="/",
        )
        if done.returncode != 0:
            raise Failed(f"pgbackrest {words[0]}: {' '.join(done.stderr.split()) or 'no reason given'}")
        return done.stdout


def remove_halted(repository: Repository, stanza: str) -> None:
    """Remove the interrupted backups that members ask to have removed."""
    for label in repository.names(f"halted/{stanza}"):
        if not LABEL.fullmatch(label):
            print(f"{label!r} is no label of a backup: left alone.", file=sys.stderr)
            continue
        path = f"backup/{stanza}/{label}"
        if "backup.manifest" in repository.names(path):
            print(f"{label} is a whole backup: kept.", file=sys.stderr)
        else:
            repository.run("repo-rm", "--recurse", path)
            print(f"{label} was interrupted: removed.", file=sys.stderr)
        repository.run("repo-rm", f"halted/{stanza}/{label}")


def remove_dumps(repository: Repository, *, now: float) -> None:
    """Remove dumps of the knowledge graph that are older than DUMPS_KEPT_D (services/graph_keeper.py sends one a day)."""
    for host in repository.names("neo4j"):
        for name in repository.names(f"neo4j/{host}"):
            found = DUMP.fullmatch(name)
            if found and now - calendar.timegm(time.strptime(found[1], "%Y%m%dT%H%M%SZ")) > DUMPS_KEPT_D * 86400:
                repository.run("repo-rm", f"neo4j/{host}/{name}")
                print(f"{name} of {host} was old: removed.", file=sys.stderr)


def expire(repository: Repository, stanza: str) -> None:
    """Let pgBackRest delete what is older than the settings keep, once an hour."""
    if STAMP.exists() and time.time() - STAMP.stat().st_mtime < EXPIRE_EVERY_S:
        return
    if "backup.info" not in repository.names(f"backup/{stanza}"):
        return
    repository.run(f"--stanza={stanza}", "expire")
    STAMP.touch()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    parser = argparse.ArgumentParser(description="Delete old and interrupted backups.")
    parser.add_argument("--stanza", required=True)
    parser.add_argument("--config", required=True, type=Path)
    given = parser.parse_args(arguments)
    repository = Repository(given.config)
    try:
        remove_halted(repository, given.stanza)
        remove_dumps(repository, now=time.time())
        expire(repository, given.stanza)
    except Failed as error:
        print(f"{error}: see docs/runbooks/BackupRepositoryUnreachable.md.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
