#!/usr/bin/python3 -I
"""Takes a backup with pgBackRest on the host whose turn it is, and tells Prometheus what the repository holds.

    backup.py auto|full|diff|incr [--here]   one backup; one JSON object on stdout, progress on stderr; 0 done or another's turn, 1 failed
    backup.py metrics                        phoenix_backup.prom for the node exporter; asks for a backup when there was a promotion

`auto` takes a full backup when the newest is older than the plan says, else a differential one likewise, else an incremental one. Every
member's timer fires; a healthy standby takes the backup, or the leader when there is none; `--here` does it here whoever's turn it is.
What this host is, is in /etc/phoenix/backup.json (deploys/backup.py). Standard library only: it runs on a bare machine.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pwd
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLAN = Path("/etc/phoenix/backup.json")
STATE = Path("/var/lib/phoenix-backup")
METRICS = Path("/var/lib/prometheus/node-exporter/phoenix_backup.prom")
LOCK = Path("/var/spool/pgbackrest/phoenix-backup.lock")
UNIT = "phoenix-backup.service"

TYPES = ("full", "diff", "incr")
SLACK_S = 600
"""A backup is due this long before its time, so that an hourly timer does not miss it by a second and wait for the next hour."""
LAG_BYTES = 64 * 1024 * 1024
"""A standby further behind than this catches up first."""
HALTED_WAIT_S = 600
"""How long a backup waits until the remains of an interrupted one are removed: phoenix-retention looks every two minutes."""
NOT_LATER = 106
"""pgBackRest's exit code when a new backup's label would not be the latest."""
_UNREACHABLE = "docs/runbooks/BackupRepositoryUnreachable.md"
UNREADABLE = 99
"""pgBackRest's status code of a repository that it cannot read."""


class Failed(Exception):
    """It did not work; the text says what, why, and what to do."""


@dataclass(frozen=True)
class Plan:
    """What this host is; made by the deploy."""

    stanza: str
    host: str
    archives: bool
    """Whether this host's PostgreSQL is the one that is backed up."""
    members: tuple[str, ...]
    patroni: str
    endpoint: str
    """Where the S3 service answers, `host` or `host:port`."""
    data: str
    ca: str
    diff_every_s: int
    full_every_s: int

    @classmethod
    def read(cls, path: Path = PLAN) -> Plan:
        """Raises Failed when the file is missing or of another version."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            known = {name: content[name] for name in cls.__dataclass_fields__}
            return cls(**{**known, "members": tuple(known["members"])})
        except (OSError, ValueError, KeyError) as error:
            raise Failed(f"{path} cannot be used ({type(error).__name__}): run phoenix deploy.") from None


def choose(cluster: Mapping[str, Any], members: Iterable[str]) -> str | None:
    """The member whose turn it is: a streaming standby that keeps up, the synchronous one first, else the leader; None without either.

    `cluster` is the answer of Patroni's GET /cluster; only `members` count.
    """
    allowed = set(members)
    known = [one for one in cluster.get("members", []) if one.get("name") in allowed]
    standbys = [
        one
        for one in known
        if one.get("role") in ("sync_standby", "quorum_standby", "replica")
        and one.get("state") == "streaming"
        and isinstance(one.get("lag", 0), int)
        and one.get("lag", 0) <= LAG_BYTES
    ]
    if standbys:
        return str(min(standbys, key=lambda one: (one["role"] == "replica", one["name"]))["name"])
    leaders = [one for one in known if one.get("role") == "leader" and one.get("state") == "running"]
    return str(leaders[0]["name"]) if leaders else None


def due(backups: Sequence[Mapping[str, Any]], *, now: float, diff_every_s: int, full_every_s: int) -> str:
    """Type of the backup that `auto` takes. `backups` are those of `pgbackrest info`; ages count from their start."""

    def age(*types: str) -> float:
        return min((now - one["timestamp"]["start"] for one in backups if one["type"] in types), default=float("inf"))

    if age("full") >= full_every_s - SLACK_S:
        return "full"
    return "diff" if age("full", "diff") >= diff_every_s - SLACK_S else "incr"


def summary(backup: Mapping[str, Any]) -> dict[str, Any]:
    """A backup of `pgbackrest info` in our words: times are seconds since the epoch, sizes bytes."""
    repository = backup["info"].get("repository", {})
    return {
        "label": backup["label"],
        "type": backup["type"],
        "start": backup["timestamp"]["start"],
        "stop": backup["timestamp"]["stop"],
        "lsn_start": backup["lsn"]["start"],
        "lsn_stop": backup["lsn"]["stop"],
        "wal_start": backup["archive"]["start"],
        "wal_stop": backup["archive"]["stop"],
        "bytes": backup["info"]["size"],
        "bytes_sent": repository.get("delta", 0),
        "verified": "verified" in backup.get("annotation", {}),
        "damaged": bool(backup.get("error")),
    }


def halted(log: str) -> str | None:
    """Label of the interrupted backup that pgBackRest wanted to remove, from its log; None when it says nothing of the kind."""
    found = re.search(r"backup '([0-9]{8}-[0-9]{6}F(?:_[0-9]{8}-[0-9]{6}[DI])?)' cannot be resumed", log)
    return found.group(1) if found else None


def reason(log: str) -> str:
    """The first error of pgBackRest's log in one line: its first sentence, and what was asked of the S3 service."""
    found = re.search(r"ERROR: \[\d+\]: (.+)", log)
    request = re.search(r"\*\*\* Path/Query \*\*\*:\s+(\S+ \S+)", log)
    sentence = found.group(1) if found else (log.strip().splitlines() or ["no reason given"])[-1]
    return " ".join(sentence.split()).rstrip(":") + (f" for {request.group(1)}" if request else "")


def exposition(plan: Plan, info: Mapping[str, Any] | None, last: Mapping[str, Any] | None, waiting: int | None, *, now: float) -> str:
    """The text of the metrics. `info` is None when the repository cannot be read, `last` when this host took no backup yet, `waiting`
    when nothing is archived here."""
    scope = f'scope="{plan.stanza}"'
    families: list[tuple[str, str, list[str]]] = [
        ("phoenix_backup_repository_reachable", "Whether the repository could be read.", [f"{{{scope}}} {int(info is not None)}"]),
        ("phoenix_backup_checked_timestamp_seconds", "When this was found out.", [f"{{{scope}}} {now:.0f}"]),
    ]
    if info is not None:
        newest = {kind: summary(one) for one in info.get("backup", []) for kind in (one["type"], "any")}  # the oldest comes first
        counted = {kind: sum(one["type"] == kind for one in info.get("backup", [])) for kind in TYPES}

        def samples(name: str, *, kinds: Iterable[str] = newest) -> list[str]:
            return [f'{{{scope},type="{kind}"}} {newest[kind][name]}' for kind in kinds if kind in newest]

        families += [
            ("phoenix_backup_last_success_timestamp_seconds", "When the newest backup of the type ended.", samples("stop")),
            ("phoenix_backup_size_bytes", "Size of the database in the newest backup of the type.", samples("bytes")),
            ("phoenix_backup_sent_bytes", "What the newest backup of the type added to the repository.", samples("bytes_sent")),
            (
                "phoenix_backup_duration_seconds",
                "How long the newest backup of the type took.",
                [f'{{{scope},type="{kind}"}} {one["stop"] - one["start"]}' for kind, one in newest.items()],
            ),
            (
                "phoenix_backup_damaged",
                "Whether the newest backup holds pages with a wrong checksum.",
                [f"{{{scope}}} {int(newest['any']['damaged'])}"] if newest else [],
            ),
            ("phoenix_backup_count", "Backups in the repository.", [f'{{{scope},type="{kind}"}} {n}' for kind, n in counted.items()]),
        ]
    if last is not None:
        families += [
            (
                "phoenix_backup_last_run_success",
                "Whether this host's last attempt at a backup succeeded.",
                [f"{{{scope}}} {int(last['ok'])}"],
            ),
            ("phoenix_backup_last_run_timestamp_seconds", "When this host's last attempt ended.", [f"{{{scope}}} {last['finished']:.0f}"]),
        ]
    if waiting is not None:
        families.append(("phoenix_backup_archive_waiting_segments", "WAL segments that wait to be archived.", [f"{{{scope}}} {waiting}"]))
    lines = [
        line
        for name, text, values in families
        for line in (f"# HELP {name} {text}", f"# TYPE {name} gauge", *(f"{name}{value}" for value in values))
    ]
    return "\n".join(lines) + "\n"


class Repository:
    """pgBackRest's commands for one stanza."""

    def __init__(self, plan: Plan) -> None:
        self._command = ["pgbackrest", f"--stanza={plan.stanza}"]
        self._endpoint = plan.endpoint

    def info(self) -> dict[str, Any]:
        """What the repository says of the stanza. Raises Failed when it cannot be read."""
        # pgBackRest asks for each of several files until its time is up, which takes minutes; who is not there is found out sooner.
        host, _, port = self._endpoint.partition(":")
        try:
            socket.create_connection((host, int(port or 443)), timeout=10).close()
        except OSError as error:
            reason_ = error.strerror or str(error)
            raise Failed(f"The S3 service at {self._endpoint} does not answer ({reason_}): see {_UNREACHABLE}.") from None
        done = self._run("--io-timeout=15", "--output=json", "info")
        try:
            found: dict[str, Any] = json.loads(done.stdout)[0]
        except (ValueError, IndexError):
            raise Failed(f"The repository cannot be read ({reason(done.stderr)}): see {_UNREACHABLE}.") from None
        if found["status"]["code"] == UNREADABLE:
            details = [one["status"]["message"] for one in found.get("repo", [])] or [found["status"]["message"]]
            raise Failed(f"The repository cannot be read ({reason(f'ERROR: [099]: {details[0]}')}): see {_UNREACHABLE}.")
        return found

    def backup(self, kind: str) -> subprocess.CompletedProcess[str]:
        """Take one; its log is in `stderr` and is shown as it comes."""
        return self._run(f"--type={kind}", "--log-level-stderr=info", "backup", show=True)

    def verify(self, label: str) -> None:
        """Read a whole backup back, and remember in the repository that it was well. Raises Failed.

        What could not be read says nothing of the backup: then all of it is read a second time.
        """
        fault = self._fault(label)
        if fault is not None and not re.search(r"(?:missing|invalid): [1-9]", fault):
            print(f"Backup {label} could not be read in full ({reason(fault)}): it is read again.", file=sys.stderr, flush=True)
            fault = self._fault(label)
        if fault is not None:
            raise Failed(f"Backup {label} does not verify: {reason(fault)}: see docs/runbooks/BackupFailed.md.")
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        done = self._run(f"--set={label}", f"--annotation=verified={moment}", "annotate")
        if done.returncode != 0:
            raise Failed(f"Backup {label} verifies, and the repository does not take a note of it: {reason(done.stderr)}")

    def _fault(self, label: str) -> str | None:
        """What pgBackRest says of a backup that it reads back and finds not well; None of one that is."""
        done = self._run(f"--set={label}", "--output=text", "--verbose", "--log-level-stderr=error", "verify")
        said = done.stdout + done.stderr
        return None if done.returncode == 0 and re.search(r"^status: ok$", said, re.MULTILINE) else said

    def ask_for_removal(self, stanza: str, label: str) -> None:
        """Leave word for phoenix-retention, which alone may delete, that `label` is what an interrupted backup left."""
        done = self._run("repo-put", f"halted/{stanza}/{label}", given=f"{label}\n")
        if done.returncode != 0:
            raise Failed(f"The repository does not take the request to remove {label}: {reason(done.stderr)}")

    def holds(self, path: str) -> bool:
        """Whether there is any object below `path`, relative to the repository; what only looks like a directory is none."""
        done = self._run("repo-ls", path, "--recurse", "--output=json")
        if done.returncode != 0:
            raise Failed(f"The repository cannot be read: {reason(done.stderr)}")
        return any(one["type"] == "file" for one in json.loads(done.stdout or "{}").values())

    def _run(self, *words: str, show: bool = False, given: str = "") -> subprocess.CompletedProcess[str]:
        # Without the stanza for what is outside of it.
        command = self._command[:1] if words[0].startswith("repo-") else self._command
        with subprocess.Popen(
            [*command, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
        ) as process:
            if not show:
                out, err = process.communicate(given)
                return subprocess.CompletedProcess(words, process.returncode, out, err)
            assert process.stdin and process.stdout and process.stderr  # noqa: S101 - for the type checker; all three are pipes
            process.stdin.close()
            log = []
            try:
                for line in process.stderr:
                    log.append(line)
                    print(line, end="", file=sys.stderr, flush=True)
            except BaseException:  # stopped: pgBackRest has to end as well, in order, or it would go on by itself
                process.terminate()
                raise
            out = process.stdout.read()
        return subprocess.CompletedProcess(words, process.returncode, out, "".join(log))


def take(plan: Plan, kind: str, *, here: bool) -> dict[str, Any]:
    """One backup, or word of whose turn it is. Raises Failed."""
    if not plan.archives:
        raise Failed(f"{plan.host} is not a member of the cluster {plan.stanza}: ask one of {', '.join(plan.members)}.")
    turn = plan.host if here else choose(_patroni(plan, "/cluster"), plan.members)
    if turn is None:
        raise Failed("Patroni knows neither a leader nor a streaming standby, so there is nothing to back up: phoenix status says more.")
    if turn != plan.host:
        return {"ok": True, "taken": False, "host": turn}
    repository = Repository(plan)
    started = time.time()
    with _alone():
        if kind == "auto":
            kind = due(repository.info().get("backup", []), now=started, diff_every_s=plan.diff_every_s, full_every_s=plan.full_every_s)
        _back_up(repository, plan, kind)
        backups = repository.info().get("backup", [])
        if not backups or backups[-1]["timestamp"]["stop"] < int(started):
            raise Failed("pgBackRest ended well and the repository has no new backup: see phoenix logs backup.")
        newest = backups[-1]
        if newest["type"] == "full" or not any("verified" in one.get("annotation", {}) for one in backups):
            # All that a later backup builds on is read back once.
            repository.verify(newest["label"])
            newest = {**newest, "annotation": {**newest.get("annotation", {}), "verified": ""}}
    return {"ok": True, "taken": True, "host": plan.host, "seconds": round(time.time() - started, 1), **summary(newest)}


def _back_up(repository: Repository, plan: Plan, kind: str) -> None:
    done = repository.backup(kind)
    label = halted(done.stderr)
    if done.returncode != 0 and label:
        # pgBackRest says so under its lock of the whole cluster: nobody is at work on that backup any more.
        print(
            f"{label} was interrupted; phoenix-retention is asked to remove it, which takes up to two minutes.", file=sys.stderr, flush=True
        )
        repository.ask_for_removal(plan.stanza, label)
        end = time.monotonic() + HALTED_WAIT_S
        while repository.holds(f"backup/{plan.stanza}/{label}"):
            if time.monotonic() > end:
                raise Failed(
                    f"The remains of the interrupted backup {label} are in the way and nobody removes them: look at phoenix logs retention "
                    "on the host of group drill."
                )
            time.sleep(5)
        done = repository.backup(kind)
    if done.returncode == NOT_LATER and kind != "full":
        # Labels sort by their full backup. What was interrupted, or a clock that was ahead, left a later one: a full one gets past it.
        kind = "full"
        done = repository.backup(kind)
    if done.returncode != 0:
        raise Failed(f"pgBackRest could not take a {kind} backup: {reason(done.stderr)}")


def _patroni(plan: Plan, path: str) -> Any:
    context = ssl.create_default_context(cafile=plan.ca)
    try:
        with urllib.request.urlopen(plan.patroni + path, timeout=10, context=context) as answer:  # noqa: S310 - the deploy's https address
            return json.load(answer)
    except (OSError, ValueError) as error:
        raise Failed(f"Patroni on {plan.host} does not answer ({error}): see phoenix logs patroni.") from None


class _alone:
    """One backup at a time on this host. Raises Failed."""

    def __enter__(self) -> None:
        self._file = LOCK.open("w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed("A backup is being taken on this host already: wait for it (phoenix logs backup).") from None

    def __exit__(self, *_: object) -> None:
        self._file.close()


def become_postgres() -> None:
    """Give root away: pgBackRest's files and PostgreSQL's socket are postgres'."""
    if os.geteuid() != 0:
        return
    STATE.mkdir(mode=0o755, exist_ok=True)
    user = pwd.getpwnam("postgres")
    os.chown(STATE, user.pw_uid, user.pw_gid)
    os.initgroups(user.pw_name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    os.environ["HOME"] = user.pw_dir


def write(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace `path` in one step: a reader sees the old or the new content."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    Path(name).chmod(mode)
    Path(name).replace(path)


def metrics(plan: Plan) -> None:
    """Write the metrics; when the newest backup is of an older timeline than the leader's, ask for another at once."""
    info: dict[str, Any] | None = None
    problem = ""
    try:
        info = Repository(plan).info()
    except Failed as error:
        problem = str(error)
    try:
        last = json.loads((STATE / "last.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        last = None
    ready = Path(plan.data, "pg_wal/archive_status")
    waiting = sum(1 for one in ready.glob("*.ready")) if plan.archives and ready.is_dir() else None
    write(METRICS, exposition(plan, info, last, waiting, now=time.time()))
    if problem:
        raise Failed(problem)
    if not (plan.archives and info and info.get("backup")):
        return
    try:
        member = _patroni(plan, "/patroni")
    except Failed as error:  # as at each start of the host; an alert of its own tells when it lasts
        print(error, file=sys.stderr)
        return
    if promoted(info["backup"][-1], member):
        # What the old leader had not archived yet is missing in the archive; from the next backup on the way is whole again.
        print("A member was promoted since the newest backup: the next one is taken now.", file=sys.stderr)
        subprocess.run(["systemctl", "start", "--no-block", UNIT], check=True)


def promoted(newest: Mapping[str, Any], member: Mapping[str, Any]) -> bool:
    """Whether the member (Patroni's GET /patroni) is on a later timeline than the newest backup ended on."""
    timeline = member.get("timeline") or 0
    return member.get("state") == "running" and timeline > int(newest["archive"]["stop"][:8], 16)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    parser = argparse.ArgumentParser(description="Take a backup, or write the metrics of the backups.")
    parser.add_argument("what", choices=("auto", *TYPES, "metrics"))
    parser.add_argument("--here", action="store_true", help="take it on this host, whoever's turn it is")
    given = parser.parse_args(arguments)
    started = time.time()
    try:
        plan = Plan.read()
        if given.what == "metrics":
            metrics(plan)
            return 0
        become_postgres()
        result = take(plan, given.what, here=given.here)
    except Failed as error:
        print(str(error), file=sys.stderr)
        if given.what == "metrics":
            return 1
        result = {"ok": False, "taken": False, "type": given.what, "error": str(error)}
    if result["taken"] or not result["ok"]:
        write(STATE / "last.json", json.dumps({**result, "started": started, "finished": time.time()}))
    print(json.dumps(result))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
