"""The scratch cluster: a backup brought to life beside everything else, checked, and thrown away.

It listens on a socket in its own directory only, archives nothing, runs no jobs and no subscriptions, and has its own configuration
outside of the data directory; what the backup carries along of the old server's configuration is not read.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psycopg
from drill_config import Config
from drill_errors import DrillFailed, first_line
from drill_leader import Witness

PORT = 5432
"""Only part of the socket's name."""
SUPERUSER = "postgres"
NEVER_LOADED = frozenset({"pg_cron"})
"""Libraries of the leader whose work must not be done twice."""
POLL_S = 0.1
REMOVAL_S = 30.0

Run = Callable[[list[str]], subprocess.CompletedProcess[str]]


def configuration(
    config: Config, root: Path, witness: Witness, *, restore_command: str, timeline: int, controlled: Mapping[str, int]
) -> str:
    """postgresql.conf of the scratch cluster. `controlled` are the least values that its control file asks for, by parameter."""
    libraries = [name.strip() for name in witness.parameters.get("shared_preload_libraries", "").split(",") if name.strip()]
    values: dict[str, str | int] = {
        "listen_addresses": "",
        "port": PORT,
        "unix_socket_directories": str(root / "socket"),
        "unix_socket_permissions": "0700",
        "hba_file": str(root / "pg_hba.conf"),
        "ident_file": str(root / "pg_ident.conf"),
        "shared_preload_libraries": ",".join(name for name in libraries if name not in NEVER_LOADED),
        "shared_buffers": f"{config.memory_mb // 4}MB",
        "maintenance_work_mem": f"{config.memory_mb // 8}MB",
        "huge_pages": "off",
        "max_parallel_workers_per_gather": config.processes,
        "autovacuum": "off",
        "jit": "off",
        "archive_mode": "off",
        "max_logical_replication_workers": 0,
        "restore_command": restore_command,
        "recovery_target_lsn": witness.lsn,
        # The witness saw what was committed before this position, so recovery stops in front of the record that begins there.
        "recovery_target_inclusive": "off",
        "recovery_target_timeline": str(timeline),
        "recovery_target_action": "pause",
        "hot_standby": "on",
        "logging_collector": "off",
        "log_destination": "stderr",
        "lc_messages": "C",
        **{name: max(int(witness.parameters.get(name, 0)), least) for name, least in controlled.items()},
    }
    if "timescaledb" in libraries:
        values |= {
            "timescaledb.license": witness.parameters.get("timescaledb.license", "timescale"),
            "timescaledb.telemetry_level": "off",
            "timescaledb.max_background_workers": 0,
        }
    return "".join(f"{name} = '{str(value).replace(chr(39), chr(39) * 2)}'\n" for name, value in values.items())


CONTROLLED = {
    "max_connections setting": "max_connections",
    "max_worker_processes setting": "max_worker_processes",
    "max_wal_senders setting": "max_wal_senders",
    "max_prepared_xacts setting": "max_prepared_transactions",
    "max_locks_per_xact setting": "max_locks_per_transaction",
}
"""Lines of pg_controldata and the parameters that must not be lower."""


def controlled(controldata: str) -> dict[str, int]:
    """The least values that a control file asks for, by parameter, of what pg_controldata prints."""
    lines = dict(line.split(":", 1) for line in controldata.splitlines() if ":" in line)
    return {name: int(lines[label]) for label, name in CONTROLLED.items()}


class Scratch:
    """The cluster in `root`. `run` runs a program, `environment` is the server's, with what its restore_command needs.

    `remove` is safe at any time, also on what an earlier, interrupted drill left.
    """

    def __init__(self, config: Config, root: Path, environment: Mapping[str, str], run: Run) -> None:
        self._config = config
        self._environment = environment
        self._run = run
        self._server: subprocess.Popen[bytes] | None = None
        self.root = root
        self.data = root / "data"
        self.tablespaces = root / "tablespaces"
        self._log = root / "postgresql.log"

    def make(self) -> None:
        """Empty directories, for the drill's user alone."""
        for directory in (self.root, self.data, self.tablespaces, *(self.root / name for name in ("socket", "lock", "spool"))):
            directory.mkdir(mode=0o700)

    def start(self, witness: Witness, timeline: int) -> None:
        """Start the restored cluster, in recovery up to the witness' position on `timeline`. Raises DrillFailed."""
        said = self._run([f"{self._config.bin_dir}/pg_controldata", "-D", str(self.data)])
        if said.returncode != 0:
            raise DrillFailed(f"The restored cluster has no readable control file ({first_line(said.stderr)}): the backup is damaged.")
        least = controlled(said.stdout)
        fetch = f'{self._config.pgbackrest} --pg1-path={self.data} archive-get %f "%p"'
        text = configuration(self._config, self.root, witness, restore_command=fetch, timeline=timeline, controlled=least)
        (self.root / "postgresql.conf").write_text(text, encoding="utf-8")
        (self.root / "pg_hba.conf").write_text("local all all peer map=drill\n", encoding="utf-8")
        own = pwd.getpwuid(os.geteuid()).pw_name
        (self.root / "pg_ident.conf").write_text(f"drill {own} {SUPERUSER}\n", encoding="utf-8")
        # PostgreSQL reads this one always; what somebody set by ALTER SYSTEM is none of the drill's.
        (self.data / "postgresql.auto.conf").write_text("", encoding="utf-8")
        (self.data / "standby.signal").unlink(missing_ok=True)
        (self.data / "recovery.signal").touch(mode=0o600)
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                [f"{self._config.bin_dir}/postgres", "-D", str(self.data), "-c", f"config_file={self.root / 'postgresql.conf'}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
            )

    def recovered(self, stopped: Callable[[], bool]) -> str:
        """Wait until recovery pauses at its target. Returns the position that it reached. Raises DrillFailed."""
        until = time.monotonic() + self._config.recovery_timeout_s
        while not stopped():
            self._alive()
            if time.monotonic() > until:
                raise DrillFailed(
                    f"The scratch cluster has not reached the marker after {self._config.recovery_timeout_s} s: raise "
                    "drill_recovery_timeout_s, or take backups more often."
                )
            try:
                with self.connect(SUPERUSER) as session:
                    row = session.execute("SELECT pg_get_wal_replay_pause_state(), pg_last_wal_replay_lsn()").fetchone()
            except psycopg.OperationalError:  # it does not take sessions before it is consistent
                row = None
            if row and row[0] == "paused":
                return str(row[1])
            time.sleep(POLL_S)
        return ""

    def connect(self, database: str) -> psycopg.Connection:
        """A superuser's session. Raises psycopg.Error."""
        return psycopg.connect(
            host=str(self.root / "socket"), port=PORT, user=SUPERUSER, dbname=database, application_name="phoenix-drill", connect_timeout=5
        )

    def promote(self) -> None:
        """End recovery; the cluster then takes writes. Raises DrillFailed."""
        with self.connect(SUPERUSER) as session:
            session.autocommit = True
            row = session.execute("SELECT pg_promote(true, %s)", (self._config.recovery_timeout_s,)).fetchone()
        if not row or not row[0]:
            raise DrillFailed(f"The scratch cluster cannot be promoted ({self._last_words()}): run the drill again.")

    def write(self) -> None:
        """Commit a row. Raises psycopg.Error. In a database of its own accord: triggers of the platform's may need libraries left out."""
        with self.connect(SUPERUSER) as session:
            session.execute("CREATE TABLE drill_write (written timestamptz NOT NULL DEFAULT now())")
            session.execute("INSERT INTO drill_write DEFAULT VALUES")

    def amcheck(self) -> None:
        """Check every table and B-tree index of every database. Raises DrillFailed with what pg_amcheck found first."""
        words = [f"{self._config.bin_dir}/pg_amcheck", "--all", "--install-missing", f"--jobs={self._config.processes}"]
        words += ["--heapallindexed"] if self._config.heapallindexed else []
        done = self._run([*words, f"--host={self.root / 'socket'}", f"--port={PORT}", f"--username={SUPERUSER}"])
        if done.returncode != 0:
            raise DrillFailed(f"amcheck finds the restored data damaged: {_first_finding(done.stdout, done.stderr)}")

    def stop(self) -> None:
        """Stop the cluster cleanly, so that its files are complete. Raises DrillFailed."""
        if self._server is None or self._server.poll() is not None:
            raise DrillFailed(f"The scratch cluster has stopped by itself ({self._last_words()}): run the drill again.")
        self._server.send_signal(signal.SIGINT)
        self._server.wait()
        self._server = None

    def checksums(self) -> int:
        """Verify the checksum of every page of the stopped cluster. Returns the number of pages. Raises DrillFailed."""
        done = self._run([f"{self._config.bin_dir}/pg_checksums", "--check", "-D", str(self.data)])
        if done.returncode != 0:
            raise DrillFailed(f"The restored data has damaged pages: {first_line(done.stderr or done.stdout)}.")
        match = re.search(r"Blocks scanned:\s+(\d+)", done.stdout)
        return int(match[1]) if match else 0

    def remove(self) -> None:
        """Kill what runs and remove the directory."""
        if self._server is not None and self._server.poll() is None:
            # All its processes: they notice the postmaster's death and end; nothing here has to be kept.
            self._server.kill()
            self._server.wait()
        self._server = None
        until = time.monotonic() + REMOVAL_S
        while self.root.exists():
            try:
                shutil.rmtree(self.root)
            except OSError:  # what was killed has not quite ended, and still makes files
                if time.monotonic() > until:
                    raise
                time.sleep(POLL_S)

    def _alive(self) -> None:
        if self._server is None or self._server.poll() is not None:
            raise DrillFailed(f"The scratch cluster does not come up ({self._last_words()}): run the drill again, or take a new backup.")

    def _last_words(self) -> str:
        """The newest error of the server's log."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines() if self._log.exists() else []
        errors = [line for line in lines if re.search(r"\b(PANIC|FATAL|ERROR):", line)]
        return first_line(re.sub(r"^.*?\b(PANIC|FATAL|ERROR):\s+", "", errors[-1])) if errors else "it says nothing"


def _first_finding(stdout: str, stderr: str) -> str:
    """The first object that pg_amcheck complains of, in one line."""
    lines = [line.strip() for line in (stdout + "\n" + stderr).splitlines() if line.strip()]
    return " ".join(lines[:2]).rstrip(".") + "."
