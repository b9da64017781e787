"""A restore beside everything else, to look into: what the archive alone gives back, to a moment or to its end.

On purpose without the platform's own code for restores (`phoenix restore`, the drill service): it is the witness of what they rest on.
Only pgBackRest and the server are used, with the host's configuration.
"""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass

from tests.drills.cluster import DATABASE, Cluster
from tests.drills.machines import Machine, wait_until

ROOT = "/var/lib/postgresql/drill-scratch"

# Without hot_standby the server does not ask for the leader's max_connections and the like, and needs little of a busy host.
_OPTIONS = {
    "listen_addresses": "",
    "unix_socket_directories": ROOT,
    "archive_mode": "off",
    "hot_standby": "off",
    "shared_buffers": "64MB",
    "huge_pages": "off",
    "shared_preload_libraries": "",
    "autovacuum": "off",
    "fsync": "off",
}


class Gone(Exception):
    """The restored server has ended by itself; the text has its last words."""


@dataclass(frozen=True)
class Restored:
    """How long it took, in seconds: to fetch the files, and to replay up to the target."""

    restore_s: float
    recovery_s: float


@dataclass(frozen=True)
class Scratch:
    """A copy of `cluster` on `machine`, which needs a configuration of pgBackRest and the same major version of PostgreSQL."""

    cluster: Cluster
    machine: Machine

    def restore(self, kind: str, target: str | None = None) -> Restored:
        """Bring the data to `target` of `kind` time or lsn, or to the end of the archive (`default`), and open them for reading.

        What an earlier restore left is gone on with: pgBackRest compares every file's checksum and fetches what differs. Raises DrillError.
        """
        self.stop()
        self._prepare()
        words = self._pgbackrest("--delta", f"--type={kind}", *(["--target-action=promote", f"--target={target}"] if target else []))
        started = time.monotonic()
        self._run(shlex.join([*words, "restore"]), 600)
        restored = time.monotonic()
        # The backup's own configuration is that of a member, which this is not. Into the socket's directory nobody but postgres gets.
        emptied = "".join(f": > {ROOT}/data/{name} && " for name in ("postgresql.conf", "pg_ident.conf"))
        self._run(f"{emptied}echo 'local all all peer' > {ROOT}/data/pg_hba.conf && rm -f {ROOT}/data/standby.signal", 30)
        options = " ".join(f"-c {name}={shlex.quote(value)}" for name, value in _OPTIONS.items())
        # pg_ctl waits until the server has begun, and not for the end of a recovery without hot_standby: then sessions get in.
        self._run(f"{self._bin}/pg_ctl start -D {ROOT}/data -w -l {ROOT}/log -o {shlex.quote(options)} >/dev/null 2>&1 || true", 100)
        wait_until(self._opens, seconds=300, what="the restored cluster's recovery has ended", every_s=0.2)
        return Restored(restored - started, time.monotonic() - restored)

    def begin_restore(self, seconds: float) -> bool:
        """Kill a restore after so many seconds, with all its processes. Gives whether it was still at work."""
        self.stop()
        self._prepare()
        words = shlex.join([*self._pgbackrest("--delta", "--type=default"), "restore"])
        ended = self.machine.run(f"cd / && timeout -s KILL {seconds} runuser -u postgres -- {words} >/dev/null 2>&1; echo $?", check=False)
        # runuser dies first; what it started must not go on writing beside the next restore.
        self.machine.run(f"pkill -KILL -f -- '--pg1-path={ROOT}/data' || true", check=False)
        return ended.strip() != "0"

    def rows(self, table: str) -> list[int]:
        """The ids in a ledger's table; none when it was not made yet at that moment."""
        exists = self._query(f"SELECT to_regclass('{table}') IS NOT NULL")
        return [int(line) for line in self._query(f"SELECT id FROM {table} ORDER BY id").split()] if exists == "t" else []

    def stop(self) -> None:
        """Stop the server, if it runs; its files stay for the next restore."""
        self.machine.run(f"cd / && runuser -u postgres -- {self._bin}/pg_ctl stop -D {ROOT}/data -m immediate -w >/dev/null 2>&1 || true")

    def remove(self) -> None:
        """Stop it and throw everything away."""
        self.stop()
        self.machine.run(f"rm -rf {ROOT}")

    def _prepare(self) -> None:
        # WAL that was fetched ahead for an earlier target is of another course: pgBackRest would wait a minute for what comes after it.
        self._run(f"rm -rf {ROOT}/spool && mkdir -p -m 700 {ROOT}/data {ROOT}/spool {ROOT}/lock", 30)

    def _opens(self) -> bool:
        """Whether sessions get in. Raises Gone when the server has ended: there is nothing to wait for."""
        if self.machine.run(f"cd / && runuser -u postgres -- {self._bin}/pg_ctl status -D {ROOT}/data >/dev/null 2>&1; echo $?") != "0":
            raise Gone(f"{self.machine.name}: the restored cluster has ended: {self.machine.run(f'tail -n 5 {ROOT}/log', check=False)}")
        return self.machine.run(self._psql, stdin="SELECT 1", check=False) == "1"

    @property
    def _bin(self) -> str:
        return f"/usr/lib/postgresql/{self.cluster.postgresql.version}/bin"

    def _pgbackrest(self, *words: str) -> list[str]:
        own = [f"--pg1-path={ROOT}/data", f"--spool-path={ROOT}/spool", f"--lock-path={ROOT}/lock"]
        return ["pgbackrest", f"--stanza={self.cluster.postgresql.cluster_name}", *own, "--log-level-stderr=error", *words]

    def _run(self, command: str, timeout_s: float) -> str:
        return self.machine.run(f"cd / && runuser -u postgres -- sh -c {shlex.quote(command)}", timeout_s=timeout_s)

    @property
    def _psql(self) -> str:
        return f"cd / && runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -h {ROOT} -d {DATABASE} -f -"

    def _query(self, sql: str) -> str:
        return self.machine.run(self._psql, stdin=sql)
