"""The repository of backups, as pgBackRest sees it with the host's own configuration."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drill_config import Config, credential
from drill_errors import DrillFailed, first_line

POLL_S = 1.0
"""How often the archive is asked for the marker: what a measured RPO may be off by, in seconds."""
CONFIGURATION = "pgbackrest.conf"
"""Name of the credential."""


@dataclass(frozen=True)
class Backup:
    """One backup of the repository."""

    label: str
    kind: str
    """full, diff or incr."""
    finished_at: float
    """Seconds since the epoch."""
    stop_lsn: str
    """A recovery has to go at least as far."""
    bytes: int
    """What it takes on a disk, restored."""
    archive: str
    """Name of the part of the archive that belongs to it, for example `17-1`."""


def lsn_number(lsn: str) -> int:
    """An LSN such as `1/2A` as a number of bytes."""
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def newest_backup(info: Sequence[Mapping[str, Any]], stanza: str, before_lsn: str) -> Backup:
    """The newest sound backup that ended before an LSN, of what `pgbackrest info` says. Raises DrillFailed when there is none."""
    (entry,) = [one for one in info if one["name"] == stanza] or [{"backup": [], "archive": [], "status": {"message": "unknown"}}]
    archives = {(one["database"]["id"], one["database"]["repo-key"]): one["id"] for one in entry["archive"]}
    found = [
        one
        for one in entry["backup"]
        # A backup that ended later cannot be brought to that position; one with an error has damaged pages in it.
        if one["lsn"]["stop"] is not None and not one["error"] and lsn_number(one["lsn"]["stop"]) <= lsn_number(before_lsn)
    ]
    if not found:
        raise DrillFailed(
            f"The repository has no sound backup of {stanza} (its status: {entry['status']['message']}): take one with './phoenix backup'."
        )
    newest = max(found, key=lambda one: lsn_number(one["lsn"]["stop"]))
    return Backup(
        label=newest["label"],
        kind=newest["type"],
        finished_at=float(newest["timestamp"]["stop"]),
        stop_lsn=newest["lsn"]["stop"],
        bytes=int(newest["info"]["size"]),
        archive=archives[(newest["database"]["id"], newest["database"]["repo-key"])],
    )


def environment(config: Config, scratch: Path) -> dict[str, str]:
    """What pgBackRest is told in its environment, where an option that a command does not know is no fault.

    Its locks and its spool are the drill's own: the host's archiver is not disturbed. The secrets are in the file that is named here.
    """
    return {
        "PGBACKREST_CONFIG": str(credential(CONFIGURATION)),
        "PGBACKREST_STANZA": config.stanza,
        "PGBACKREST_LOCK_PATH": str(scratch / "lock"),
        "PGBACKREST_SPOOL_PATH": str(scratch / "spool"),
        "PGBACKREST_LOG_LEVEL_FILE": "off",
        "PGBACKREST_LOG_LEVEL_CONSOLE": "off",
        "PGBACKREST_LOG_LEVEL_STDERR": "error",
        "PGBACKREST_LOG_TIMESTAMP": "n",
    }


class Repository:
    """Asks pgBackRest, run by `run` with `environment`."""

    def __init__(self, config: Config, run: Callable[[list[str]], subprocess.CompletedProcess[str]]) -> None:
        self._config = config
        self._run = run

    def newest_backup(self, before_lsn: str) -> Backup:
        """The newest sound backup that ended before an LSN. Raises DrillFailed when the repository cannot be read or has none."""
        said = json.loads(self._ask("--io-timeout=5", "--output=json", "info"))
        for entry in said:
            for repository in entry["repo"]:
                if repository["status"]["code"] == _OTHER_ERROR:
                    raise self._unreachable(repository["status"]["message"])
        return newest_backup(said, self._config.stanza, before_lsn)

    def wait_for(self, segment: str, archive: str, *, since: float, stopped: Callable[[], bool]) -> float:
        """Wait until a WAL segment is in the archive. Returns the seconds since `since` (of `time.monotonic()`).

        Nothing is forced: the server archives when it would anyway. Raises DrillFailed when that takes longer than the settings allow.
        """
        directory, pattern = f"archive/{self._config.stanza}/{archive}/{segment[:16]}", f"^{segment}-[0-9a-f]+"
        while not stopped():
            asked_at = time.monotonic()
            if self._ask("repo-ls", f"--filter={pattern}", directory).strip():
                return asked_at - since
            if asked_at - since > self._config.archive_timeout_s:
                raise DrillFailed(
                    f"A commit of {asked_at - since:.0f} s ago is not in the repository yet (WAL segment {segment}): the archive is "
                    "behind, or the leader has changed; see './phoenix status' and the alert WalArchiveFailing."
                )
            time.sleep(max(0.0, POLL_S - (time.monotonic() - asked_at)))
        return 0.0

    def restore(self, backup: Backup, data: Path, tablespaces: Path) -> None:
        """Restore a backup, without any recovery settings, into an empty directory. Raises DrillFailed."""
        done = self._run(
            [
                self._config.pgbackrest,
                f"--pg1-path={data}",
                f"--set={backup.label}",
                "--type=none",
                f"--tablespace-map-all={tablespaces}",
                f"--process-max={self._config.processes}",
                "restore",
            ]
        )
        if done.returncode != 0:
            raise DrillFailed(f"The backup {backup.label} does not come back ({_reason(done)}): './phoenix backup' takes another.")

    def _ask(self, *words: str) -> str:
        done = self._run([self._config.pgbackrest, *words])
        if done.returncode != 0:
            raise self._unreachable(_reason(done))
        return done.stdout

    def _unreachable(self, reason: str) -> DrillFailed:
        return DrillFailed(
            f"The repository of backups cannot be read ({first_line(reason)}): check the network to it, and its keys in the secret store."
        )


_OTHER_ERROR = 99
"""pgBackRest's status code of a repository that it could not ask."""


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """The first error of pgBackRest's output, without its prefix."""
    text = (done.stderr or done.stdout).strip()
    match = re.search(r"ERROR: (.+)", text)
    return first_line(match[1] if match else text or f"pgbackrest ended with {done.returncode}")
