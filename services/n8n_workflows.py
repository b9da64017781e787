#!/usr/bin/env python3
"""Brings the platform's credentials and workflows into n8n, and says whether they are still there as they were brought.

    n8n_workflows.py check     exit 0 when nothing has to be done, else 1 and why
    n8n_workflows.py import    import, publish, and keep what that left in n8n's database (as the unit phoenix-n8n-import)

n8n makes a new version of a workflow with each import and switches it off, so an import is made only when the files changed or somebody
changed the workflow in n8n; afterwards each workflow is published, and the server has to be started anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

CONFIG = Path("/etc/phoenix-n8n/import.json")

# What n8n holds of ours: the text of each workflow, whether and which version of it is active, and each credential as it is encrypted.
STATE = """
SELECT md5(coalesce(string_agg(line, E'\\n' ORDER BY line), ''))
FROM (SELECT concat_ws('|', 'workflow', id, name, active, "isArchived", "activeVersionId", nodes, connections, settings) AS line
      FROM workflow_entity WHERE id = ANY(%(workflows)s)
      UNION ALL
      SELECT concat_ws('|', 'credential', id, name, type, data::text) FROM credentials_entity WHERE id = ANY(%(credentials)s)) ours
"""


class Failure(Exception):
    """Something is not as it should be; the text says what."""


def inputs(config: dict[str, Any]) -> str:
    """Digest of the files that are imported."""
    digest = hashlib.sha256()
    for path in [*sorted(Path(config["workflows"]).glob("*.json")), credentials_file(config)]:
        digest.update(f"{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def credentials_file(config: dict[str, Any]) -> Path:
    """The decrypted credentials: as systemd hands them to the unit, or root's own file."""
    handed = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(handed) / "credentials" if handed else Path(config["credentials"])


def ids(config: dict[str, Any]) -> dict[str, list[str]]:
    """The ids of our workflows and credentials."""
    return {
        "workflows": [json.loads(path.read_text())["id"] for path in sorted(Path(config["workflows"]).glob("*.json"))],
        "credentials": [one["id"] for one in json.loads(credentials_file(config).read_text())],
    }


def state(config: dict[str, Any]) -> str:
    """Digest of what n8n's database holds of ours."""
    import psycopg  # noqa: PLC0415 - the unit tests of the rest need no driver

    directory = Path(os.environ.get("CREDENTIALS_DIRECTORY") or config["secrets"])
    password = (directory / "database-password").read_text().strip()
    try:
        with psycopg.connect(**config["database"], password=password, connect_timeout=30) as connection:
            row = connection.execute(STATE, ids(config)).fetchone()
    except psycopg.errors.UndefinedTable:
        return "n8n has no tables yet"
    except psycopg.Error as error:
        raise Failure(f"n8n's database does not answer: {error}") from None
    return str(row[0]) if row else ""


def check(config: dict[str, Any]) -> None:
    """Raise Failure when an import is due."""
    stamp = Path(config["stamp"])
    kept = json.loads(stamp.read_text()) if stamp.exists() else None
    if kept is None:
        raise Failure("workflows were never imported")
    if kept["inputs"] != inputs(config):
        raise Failure("workflows or credentials are older than their files")
    if kept["state"] != state(config):
        raise Failure("somebody changed a workflow or a credential in n8n")


def bring(config: dict[str, Any]) -> None:
    """Import and publish. Raises Failure; then nothing is kept, and the next check says that an import is due."""
    stamp = Path(config["stamp"])
    stamp.unlink(missing_ok=True)
    before = inputs(config)
    n8n(config, "import:credentials", f"--input={credentials_file(config)}", said="Successfully imported")
    n8n(config, "import:workflow", "--separate", f"--input={config['workflows']}", said="Successfully imported")
    with ThreadPoolExecutor(2) as pool:  # each is a start of n8n, on one core
        list(pool.map(lambda name: n8n(config, "publish:workflow", f"--id={name}", said="Publishing workflow"), ids(config)["workflows"]))
    new = stamp.with_suffix(".new")
    new.write_text(json.dumps({"inputs": before, "state": state(config)}) + "\n")
    new.replace(stamp)


def n8n(config: dict[str, Any], *arguments: str, said: str) -> None:
    """Run a command of n8n, which ends with 0 also when it failed: what it says on success has to be there."""
    done = subprocess.run([*config["n8n"], *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(done.stdout, end="")
    if done.returncode != 0 or said not in done.stdout or "error occurred" in done.stdout or "Error updating" in done.stdout:
        raise Failure(f"n8n {arguments[0]} failed with {done.returncode}; what it said is above")


def main() -> int:
    """Run one of the two commands."""
    config = json.loads(CONFIG.read_text())
    actions = {"check": check, "import": bring}
    if len(sys.argv) != 2 or sys.argv[1] not in actions:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        actions[sys.argv[1]](config)
    except Failure as failure:
        print(failure)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
