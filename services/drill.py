#!/usr/bin/python3 -sE
"""The restore drill: bring the newest backup to life beside the platform, prove that it holds what the leader held, throw it away.

    drill.py [--json]      start phoenix-drill.service (or join the drill that runs), wait, print its receipt
    drill.py --in-unit     the drill itself, as the unit runs it
    drill.py --clean       remove what a killed drill left; the unit does it when it ends, and the next drill before it begins
    drill.py --check       log in to the leader, and do no more; for a deploy, as root

Exit codes: 0 the drill succeeded, 1 it failed, 2 a precondition is not met and nothing was done. Each end has one sentence.
What is measured, and how: docs/drill.md.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeVar

import drill_config
import drill_fingerprint as fingerprint
import drill_leader as leader
import drill_receipt as receipts
import psycopg
from drill_config import Config
from drill_errors import DrillFailed, DrillRefused, Interrupted, first_line
from drill_repository import Backup, Repository, environment, lsn_number
from drill_scratch import Scratch

CONFIG = Path("/etc/phoenix-drill/config.json")
UNIT = "phoenix-drill.service"
SCRATCH = "scratch"
"""Name of the scratch cluster's directory."""
STOPPING = (signal.SIGTERM, signal.SIGINT)
DONE, FAILED, REFUSED = 0, 1, 2
MB = 1024 * 1024
WAL_ON_DISK_MB = 1536
"""What a recovering server keeps of the WAL that it replays, at most: max_wal_size (1 GB) and half of it over."""

T = TypeVar("T")


class Drill:
    """One run. `run` does the steps one after the other and notes each in the receipt."""

    def __init__(self, config: Config, receipt: receipts.Receipt, scratch: Scratch, repository: Repository) -> None:
        self._config = config
        self._receipt = receipt
        self._scratch = scratch
        self._repository = repository
        self._over = threading.Event()
        self._seconds: dict[str, float] = {}

    def run(self) -> None:
        """Raises DrillFailed, DrillRefused or Interrupted; the receipt then says how far it came."""
        receipt = self._receipt
        with ThreadPoolExecutor(max_workers=1) as pool:
            try:
                with leader.opened(self._config) as source:
                    backup = self._step("look for a backup", lambda: self._backup(source.lsn))
                    marker = source.marker()
                    receipt.lsn = {"witness": source.lsn, "marker": marker.lsn, "segment": marker.segment}
                    archived = pool.submit(
                        self._repository.wait_for, marker.segment, backup.archive, since=marker.committed_at, stopped=self._over.is_set
                    )
                    witness = self._step("count and hash on the leader", source.witness)
                receipt.leader, receipt.witnessed = witness.host, witness.tables
                self._scratch.make()
                self._step("restore", lambda: self._repository.restore(backup, self._scratch.data, self._scratch.tablespaces))
                receipt.rpo_seconds = self._step("wait for the archive", archived.result)
                self._step("recover", lambda: self._recover(witness, marker.timeline))
                self._step("compare", self._compare)
                self._step("promote and write", self._promote)
                receipt.rto_seconds = sum(self._seconds[name] for name in ("restore", "recover", "promote and write"))
                self._step("amcheck", self._scratch.amcheck)
                self._step("stop", self._scratch.stop)
                receipt.blocks_verified = self._step("checksums", self._scratch.checksums)
            finally:
                self._over.set()  # or leaving the pool would wait for the archive
                if self._scratch.root.exists():
                    self._step("remove the scratch cluster", self._scratch.remove)

    def _backup(self, lsn: str) -> Backup:
        backup = self._repository.newest_backup(lsn)
        self._receipt.backup = {
            "label": backup.label,
            "type": backup.kind,
            "finished_at": backup.finished_at,
            "bytes": backup.bytes,
            "stop_lsn": backup.stop_lsn,
        }
        wal_mb = min((lsn_number(lsn) - lsn_number(backup.stop_lsn)) // MB, WAL_ON_DISK_MB)
        needed_mb = backup.bytes // MB + wal_mb + self._config.min_free_mb
        free_mb = shutil.disk_usage(self._config.directory).free // MB
        if free_mb < needed_mb:
            raise DrillRefused(
                f"{self._config.host} has {free_mb} MB free below {self._config.directory}, and the drill needs {needed_mb} MB: "
                "free some, or set drill_directory to a bigger disk."
            )
        return backup

    def _recover(self, witness: leader.Witness, timeline: int) -> None:
        self._scratch.start(witness, timeline)
        self._receipt.lsn["replayed"] = self._scratch.recovered(self._over.is_set)

    def _compare(self) -> None:
        with self._scratch.connect(self._config.database) as session:
            for setting in fingerprint.SESSION:
                session.execute(setting.encode())
            self._receipt.restored = leader.contents(session, self._config.schema)
        found = fingerprint.differences(self._receipt.witnessed, self._receipt.restored)
        self._receipt.lost_rows = fingerprint.lost_rows(found)
        if found:
            shown = "; ".join(str(one) for one in found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")
            raise DrillFailed(
                f"The restored cluster does not hold what the leader held at {self._receipt.lsn['witness']}: {shown}. "
                "Take a full backup ('./phoenix backup full') and drill again."
            )

    def _promote(self) -> None:
        self._scratch.promote()
        self._scratch.write()

    def _step(self, name: str, work: Callable[[], T]) -> T:
        say(f"{name} ...")
        began, ok = time.monotonic(), False
        try:
            value = work()
            ok = True
        except psycopg.Error as error:
            raise DrillFailed(f"The step '{name}' fails: {first_line(error)}: see 'phoenix logs drill'.") from error
        finally:
            self._seconds[name] = time.monotonic() - began
            self._receipt.steps.append(receipts.Step(name, self._seconds[name], ok))
        say(f"{name}: {self._seconds[name]:.1f} s")
        return value


def in_unit(config: Config) -> int:
    """Drill once, keep the receipt and the metrics. Returns the exit code."""
    directory = Path(config.directory)
    with locked(directory):
        clean(config)
        archive = receipts.Archive(directory, config.keep_receipts)
        receipt = receipts.Receipt(host=config.host, stanza=config.stanza, started=time.time())
        archive.begin(receipt)
        programs = Programs(os.environ | {"LC_ALL": "C.UTF-8"} | environment(config, directory / SCRATCH))
        scratch = Scratch(config, directory / SCRATCH, programs.environment, programs.run)
        try:
            Drill(config, receipt, scratch, Repository(config, programs.run)).run()
            receipt.ok = True
        except (DrillFailed, DrillRefused) as error:
            receipt.error, receipt.refused = str(error), isinstance(error, DrillRefused)
        except Interrupted:
            receipt.error = "The drill was told to stop: by hand, by a shutdown, or because it took longer than drill_timeout_s."
        except Exception as error:
            receipt.error = f"The drill has a fault of its own ({type(error).__name__}: {first_line(error)}): see 'phoenix logs drill'."
            raise
        finally:
            receipt.finished = time.time()
            path = archive.finish(receipt)
            say(_verdict(receipt))
            say(f"Receipt: {path}, and {path.with_suffix('.md').name} to read.")
    return DONE if receipt.ok else REFUSED if receipt.refused else FAILED


def clean(config: Config) -> None:
    """Remove what a killed drill left, and finish its receipt. The caller holds the lock."""
    directory = Path(config.directory)
    archive = receipts.Archive(directory, config.keep_receipts)
    programs = Programs(os.environ)
    Scratch(config, directory / SCRATCH, programs.environment, programs.run).remove()
    if forgotten := archive.forgotten():
        forgotten.error, forgotten.finished = receipts.FORGOTTEN, time.time()
        archive.finish(forgotten)
        say(f"The drill of {time.strftime('%F %T', time.gmtime(forgotten.started))} UTC was killed; what it left is removed.")


def check(config: Config) -> int:
    """Log in to the leader. Returns the exit code."""
    try:
        with leader.connect(config) as session:
            say(f"{session.info.host} leads {config.stanza}, and takes {config.user} in.")
    except psycopg.Error as error:
        raise DrillRefused(
            f"No leader of {config.stanza} takes {config.user} in ({first_line(error)}): './phoenix deploy' mends the login."
        ) from None
    return DONE


def through_unit(config: Config, *, as_json: bool) -> int:
    """Start the unit, or join the drill that runs; show its journal on stderr and print its receipt. Returns the exit code."""
    began = time.time()
    journal = subprocess.Popen(["journalctl", "--follow", "--lines=0", "--output=cat", f"--unit={UNIT}"], stdout=sys.stderr)
    try:
        started = subprocess.run(["systemctl", "start", UNIT], capture_output=True, text=True, check=False)
    finally:
        journal.terminate()
        journal.wait()
    path = Path(config.directory) / "receipt.json"
    try:
        text = path.read_text(encoding="utf-8")
        receipt = receipts.read(text)
    except (OSError, ValueError, KeyError, TypeError):
        receipt = None
    if receipt is None or receipt.finished is None or receipt.finished < began:
        raise DrillRefused(f"{UNIT} does not run ({first_line(started.stderr)}): see 'systemctl status {UNIT}'.")
    print(json.dumps(json.loads(text)) if as_json else receipts.page(receipt), end="\n" if as_json else "")
    return DONE if receipt.ok else REFUSED if receipt.refused else FAILED


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Only one at a time. Raises DrillRefused when a drill runs."""
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DrillRefused("A drill runs already: wait for its end, 'systemctl status phoenix-drill' shows it.") from None
        yield


@dataclass(frozen=True)
class Programs:
    """Runs programs in one environment."""

    environment: Mapping[str, str]

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a program to its end and keep what it says. It is killed when the drill is interrupted."""
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=self.environment)


def say(text: str) -> None:
    """A line of progress, for the journal."""
    print(text, file=sys.stderr, flush=True)


def _verdict(receipt: receipts.Receipt) -> str:
    if not receipt.ok:
        return f"Drill {'refused' if receipt.refused else 'failed'}: {receipt.error}"
    return (
        f"Drill passed: {receipt.rows} rows in {len(receipt.witnessed)} tables are there, none lost; "
        f"RPO {receipt.rpo_seconds:.1f} s, RTO {receipt.rto_seconds:.1f} s."
    )


def _stop(_: int, __: FrameType | None) -> NoReturn:
    for one in STOPPING:
        signal.signal(one, signal.SIG_IGN)  # once is enough: cleaning up must not be interrupted
    raise Interrupted


def main(arguments: list[str]) -> int:
    """Run one command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="drill.py", description="The restore drill.")
    parser.add_argument("--config", type=Path, default=CONFIG, help=f"settings (default: {CONFIG})")
    parser.add_argument("--json", action="store_true", help="print the receipt as one JSON object")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--in-unit", action="store_true", help="drill here and now; only the unit has the secrets for it")
    what.add_argument("--check", action="store_true", help="log in to the leader, and do no more")
    what.add_argument("--clean", action="store_true", help="remove what a killed drill left")
    options = parser.parse_args(arguments)
    for number in STOPPING:
        signal.signal(number, _stop)
    try:
        config = drill_config.load(options.config)
        if options.in_unit:
            return in_unit(config)
        if options.clean:
            with locked(Path(config.directory)):
                clean(config)
            return DONE
        if options.check:
            return check(config)
        return through_unit(config, as_json=options.json)
    except DrillRefused as error:
        say(f"drill: {error}")
        if options.json:
            print(json.dumps({"ok": False, "refused": True, "error": str(error)}))
        return REFUSED
    except Interrupted:
        return FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
