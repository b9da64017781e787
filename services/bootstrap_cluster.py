#!/usr/bin/python3 -I
"""Makes the data directory of a cluster that has none: Patroni's bootstrap method where there is a repository.

With a request in /var/lib/postgresql/.phoenix-restore.json it restores from the repository and recovers to what the request says:

    {"type": "time"|"lsn"|"immediate"|"latest", "target": TEXT or null, "set": LABEL or null}

Without one it makes an empty cluster, and only where the repository holds no backup of this one: an empty cluster must never shadow a lost
one. The request stays until who made it removes it, so that an interrupted restore is begun anew and not turned into an empty cluster.
Exit codes: 0 done, 1 refused or failed; the journal has the sentence. Standard library only.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PLAN = Path("/etc/phoenix/backup.json")
REQUEST = Path("/var/lib/postgresql/.phoenix-restore.json")
TARGETS = ("time", "lsn")
"""Types that name a point; the others say where to stop by themselves."""
EMPTY = (1, 2, 3)
"""pgBackRest's status codes of a stanza without backups: no path, no backup, no data."""
BELONGING = ("postgresql.conf", "pg_hba.conf", "pg_ident.conf")


class Refused(Exception):
    """It must not be done; the text says what, why, and what to do."""


def restore_command(request: Mapping[str, Any], *, stanza: str, data: str) -> list[str]:
    """pgBackRest's command for a request. Raises Refused for one that makes no sense."""
    kind, target, label = request.get("type"), request.get("target"), request.get("set")
    if kind not in (*TARGETS, "immediate", "latest"):
        raise Refused(f"{REQUEST}: type {kind!r} is none of time, lsn, immediate, latest: make the request anew with phoenix restore.")
    if (kind in TARGETS) != bool(target):
        what = "needs a target" if kind in TARGETS else "takes no target"
        raise Refused(f"{REQUEST}: type {kind} {what}: make the request anew with phoenix restore.")
    # --delta goes on with what an interrupted restore left.
    command = ["pgbackrest", f"--stanza={stanza}", f"--pg1-path={data}", "--delta", "--log-level-stderr=info"]
    command += [f"--set={label}"] if label else []
    if kind != "latest":
        command += [f"--type={kind}", "--target-action=promote"]
    if kind in TARGETS:
        command.append(f"--target={target}")
    return [*command, "restore"]


def occupied(info: Any) -> bool:
    """Whether the repository holds a backup, from the output of `pgbackrest info`. Raises Refused when it cannot be read."""
    status = info[0]["status"] if info else {"code": None, "message": "pgbackrest info says nothing"}
    if status["code"] == 0:
        return True
    if status["code"] in EMPTY:
        return False
    reasons = [one["status"]["message"] for one in (info or [{}])[0].get("repo", [])] or [status["message"]]
    raise Refused(
        f"The repository cannot be read ({' '.join(reasons[0].split())}), and an empty cluster might shadow a lost one: "
        "see docs/runbooks/BackupRepositoryUnreachable.md."
    )


def main() -> int:
    """Make the data directory."""
    plan = json.loads(PLAN.read_text(encoding="utf-8"))
    stanza, data, initdb = plan["stanza"], Path(plan["data"]), plan["initdb"]
    try:
        if REQUEST.exists():
            command = restore_command(json.loads(REQUEST.read_text(encoding="utf-8")), stanza=stanza, data=str(data))
        elif occupied(_info(stanza)):
            raise Refused(
                f"The repository holds backups of the cluster {stanza} and this host has no data: an empty cluster would shadow them. "
                f"Bring the cluster back with 'phoenix rebuild {plan['host']}'."
            )
        else:
            command = [*initdb, "--pgdata", str(data)]
    except Refused as refusal:
        print(f"bootstrap-cluster: {refusal}", file=sys.stderr, flush=True)
        return 1
    done = subprocess.run(command, cwd="/", check=False)
    if done.returncode == 0:
        for name in BELONGING:  # a backup of a server that keeps them elsewhere has none; Patroni wants to find them
            (data / name).touch(mode=0o600)
    return int(done.returncode != 0)


def _info(stanza: str) -> Any:
    done = subprocess.run(
        ["pgbackrest", f"--stanza={stanza}", "--io-timeout=15", "--output=json", "info"],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        return json.loads(done.stdout)
    except ValueError:
        return None


if __name__ == "__main__":
    sys.exit(main())
