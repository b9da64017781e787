#!/usr/bin/python3
"""A restored copy of the platform's cluster that stays, for a person to look into: what `phoenix restore --into scratch` runs.

    drill_copy.py make --set LABEL --type time|lsn|latest [--target TARGET] --libraries NAMES --license NAME
    drill_copy.py remove

As root, on a host of group `drill`. The server is that of the restore drill (drill_scratch.py): a socket for the user postgres and no
network, nothing archived, no jobs, no subscriptions; it takes writes, which go nowhere. It runs as the unit phoenix-scratch.service until
it is removed or the host restarts. Exit codes: 0 done (one JSON object on stdout), 1 failed, 2 refused; progress and errors on stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import drill_config
import drill_scratch

CONFIG = Path("/etc/phoenix-drill/config.json")
ROOT = Path("/var/lib/postgresql/.scratch")
"""Hidden: no deploy takes it for a cluster."""
UNIT = "phoenix-scratch.service"
OWNER = "postgres"
POLL_S = 0.5
TARGETS = {"time": "recovery_target_time", "lsn": "recovery_target_lsn"}


class Failed(Exception):
    """The text says what, why, and what to do."""


def settings(base: str, *, kind: str, target: str | None) -> str:
    """postgresql.conf of the copy: that of the drill, but for where recovery ends and what follows. The last line of a name counts."""
    values = {"recovery_target_lsn": "", "recovery_target_inclusive": "on", "recovery_target_timeline": "latest"}
    values |= {"recovery_target_action": "promote"}
    if kind in TARGETS:
        values[TARGETS[kind]] = str(target)
    return base + "".join(f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n" for name, value in values.items())


def make(given: argparse.Namespace, config: drill_config.Config) -> None:
    """Restore, start, wait until the copy takes writes. Raises Failed."""
    data = ROOT / "data"
    directories = (ROOT, data, *(ROOT / name for name in ("tablespaces", "socket", "lock", "spool", "log")))
    for directory in directories:
        directory.mkdir(mode=0o700)
        _give(directory)
    repository = [config.pgbackrest, f"--stanza={config.stanza}", f"--pg1-path={data}"]
    repository += [f"--{option}-path={ROOT / option}" for option in ("lock", "spool", "log")]
    say(f"restoring {given.set}")
    words = [f"--set={given.set}", "--type=none", f"--tablespace-map-all={ROOT / 'tablespaces'}", f"--process-max={config.processes}"]
    done = _as_owner([*repository, "--log-level-console=off", "--log-level-stderr=error", *words, "restore"])
    if done.returncode != 0:
        raise Failed(
            f"the backup {given.set} does not come back ({_last(done.stderr)}): try another, './phoenix backup --list' shows them."
        )
    least = drill_scratch.controlled(_as_owner([f"{config.bin_dir}/pg_controldata", "-D", str(data)]).stdout)
    parameters = {"shared_preload_libraries": given.libraries, "timescaledb.license": given.license}
    witness = SimpleNamespace(parameters=parameters, lsn="0/0")
    fetch = f'{shlex.join(repository)} archive-get %f "%p"'
    base = drill_scratch.configuration(config, ROOT, witness, restore_command=fetch, timeline=1, controlled=least)
    _put(ROOT / "postgresql.conf", settings(base, kind=given.type, target=given.target))
    _put(ROOT / "pg_hba.conf", "local all postgres peer\n")
    _put(ROOT / "pg_ident.conf", "")
    _put(data / "postgresql.auto.conf", "")
    _put(data / "recovery.signal", "")
    say("recovering")
    server = [f"{config.bin_dir}/postgres", "-D", str(data), "-c", f"config_file={ROOT / 'postgresql.conf'}"]
    properties = [f"--property={one}" for one in (f"User={OWNER}", "KillSignal=SIGINT", "TimeoutStopSec=60", "NoNewPrivileges=yes")]
    subprocess.run(["systemd-run", "--quiet", "--collect", f"--unit={UNIT}", *properties, *server], check=True)
    _wait(config)


def remove() -> None:
    """The copy is gone; no harm when there is none."""
    subprocess.run(["systemctl", "stop", UNIT], stderr=subprocess.DEVNULL, check=False)
    if ROOT.exists():
        shutil.rmtree(ROOT)


def _wait(config: drill_config.Config) -> None:
    while True:
        state = subprocess.run(["systemctl", "is-active", UNIT], capture_output=True, text=True, check=False).stdout.strip()
        if state not in ("active", "activating"):
            raise Failed(f"the copy does not come up ({_why()}): choose another target, or --latest.")
        query = [
            "psql",
            "-h",
            str(ROOT / "socket"),
            "-p",
            str(drill_scratch.PORT),
            "-XAtq",
            "-d",
            "postgres",
            "-c",
            "SELECT pg_is_in_recovery()",
        ]
        if _as_owner([f"{config.bin_dir}/{query[0]}", *query[1:]]).stdout.strip() == "f":
            return
        time.sleep(POLL_S)


def _why() -> str:
    """The server's last fatal words."""
    said = subprocess.run(
        ["journalctl", "-u", UNIT, "-o", "cat", "--no-pager", "-n", "60"], capture_output=True, text=True, check=False
    ).stdout
    fatal = re.findall(r"(?:FATAL|PANIC):\s+(.+)", said)
    return str(fatal[-1]).rstrip(".") if fatal else f"journalctl -u {UNIT} says why"


def _as_owner(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["runuser", "-u", OWNER, "--", *words], capture_output=True, text=True, check=False, cwd="/")


def _put(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    _give(path)


def _give(path: Path) -> None:
    owner = pwd.getpwnam(OWNER)
    os.chown(path, owner.pw_uid, owner.pw_gid)


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1].strip().rstrip(".")


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    parser = argparse.ArgumentParser(description="A restored copy of the cluster, to look into.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("make")
    making.add_argument("--set", required=True)
    making.add_argument("--type", required=True, choices=(*TARGETS, "latest"))
    making.add_argument("--target")
    making.add_argument("--libraries", required=True)
    making.add_argument("--license", required=True)
    verbs.add_parser("remove")
    given = parser.parse_args(arguments)
    if given.verb == "remove":
        remove()
        print(json.dumps({"ok": True}))
        return 0
    if ROOT.exists():
        print(f"there is a copy already in {ROOT}: remove it first, with './phoenix restore --remove-scratch'.", file=sys.stderr)
        return 2
    try:
        make(given, drill_config.load(CONFIG))
    except (Failed, drill_config.DrillRefused) as error:
        remove()
        print(str(error), file=sys.stderr)
        return 1
    except BaseException:
        remove()
        raise
    print(json.dumps({"ok": True, "directory": str(ROOT), "socket": str(ROOT / "socket"), "port": drill_scratch.PORT}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
