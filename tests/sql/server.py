"""Throwaway PostgreSQL clusters for the schema's tests, where PostgreSQL is: on a lab machine over SSH, or on this computer.

A cluster of its own and not the lab's: tests drop jobs, lock tables and log in as every role. What the lab's own server was made into by
the deploy is looked at by test_deployed.py.
"""

from __future__ import annotations

import re
import secrets
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.exporter.cluster import free_port, migrations

SQL = Path(__file__).resolve().parents[2] / "sql"
# Before the migrations, as the deploy makes them; pg_cron can only be in the one database that cron.database_name names.
EXTENSIONS = ("pgcrypto", "pg_stat_statements", "vector", "timescaledb", "pg_cron", "amcheck", "pgaudit")
PRELOADED = ("timescaledb", "pg_cron", "pgaudit", "pg_stat_statements")
LOGINS = ("architect", "samurai_agent", "monitor", "public_api", "stream", "n8n_flows")
ROLES = """
    CREATE ROLE phoenix_owner NOLOGIN;
    CREATE ROLE architect LOGIN IN ROLE phoenix_owner;
    CREATE ROLE samurai_agent LOGIN;
    CREATE ROLE monitor LOGIN IN ROLE pg_monitor;
    CREATE ROLE public_api LOGIN;
    CREATE ROLE stream LOGIN;
    CREATE ROLE drill LOGIN;
    CREATE ROLE graph LOGIN;
    CREATE ROLE pgbouncer LOGIN;
    CREATE ROLE n8n_flows LOGIN;
"""


@dataclass(frozen=True)
class Machine:
    """Where commands run: `shell` is the argv that takes a shell script as its last word."""

    shell: tuple[str, ...]
    user: str
    """Who PostgreSQL runs as; it refuses root."""
    ssh: tuple[str, ...] = ()
    """The argv of ssh, when the machine's loopback is not ours."""

    def run(self, script: str, stdin: str = "", timeout_s: float = 120) -> str:
        """Output of a script run as root; fails the test with what it said otherwise."""
        done = subprocess.run([*self.shell, script], input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def as_postgres(self, command: Sequence[str], stdin: str = "", timeout_s: float = 120) -> str:
        """Output of a command run as the user that PostgreSQL runs as."""
        return self.run(f"cd / && runuser -u {self.user} -- {shlex.join(command)}", stdin, timeout_s)

    @contextmanager
    def reach(self, port: int) -> Iterator[int]:
        """A port of this computer that leads to `port` on the machine's loopback."""
        if not self.ssh:
            yield port
            return
        local = free_port()
        forward = [
            self.ssh[0],
            "-N",
            "-o",
            "ControlPath=none",
            "-o",
            "ExitOnForwardFailure=yes",
            "-L",
            f"127.0.0.1:{local}:127.0.0.1:{port}",
        ]
        tunnel = subprocess.Popen([*forward, *self.ssh[1:]], stdin=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 15
            while tunnel.poll() is None and time.monotonic() < until:
                with suppress(OSError), socket.create_connection(("127.0.0.1", local), timeout=1):
                    break
                time.sleep(0.05)
            assert tunnel.poll() is None, f"ssh -L to port {port} ended with {tunnel.returncode}"
            yield local
        finally:
            tunnel.terminate()
            tunnel.wait(10)


@dataclass
class Server:
    """A running cluster with the schema in database phoenix, every role with the same random password."""

    name: str
    port: int
    password: str = field(repr=False)

    def connect(self, user: str = "postgres", *, database: str = "phoenix", autocommit: bool = True, **more: Any) -> psycopg.Connection:
        """A connection of its own over TCP with a password, as a client has it."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=user,
            password=self.password,
            dbname=database,
            autocommit=autocommit,
            connect_timeout=15,
            **more,
        )

    def ask(self, query: str, *values: object) -> Any:
        """One value, as the superuser: the independent witness."""
        with self.connect() as conn:
            row = conn.execute(query.encode(), values or None).fetchone()
        return row[0] if row else None

    @cached_property
    def extensions(self) -> frozenset[str]:
        """Names of what can be installed here."""
        with self.connect() as conn:
            return frozenset(row[0] for row in conn.execute("SELECT name FROM pg_available_extensions"))

    @cached_property
    def version(self) -> str:
        return str(self.ask("SHOW server_version")).split()[0]

    @cached_property
    def timescale_licence(self) -> bool:
        return bool(self.ask("SELECT current_setting('timescaledb.license', true) = 'timescale'"))

    def lacks(self, text: str) -> str | None:
        """Why a file headed by `-- requires: …` cannot run here, or None."""
        missing = sorted(required(text) - self.extensions)
        return f"PostgreSQL {self.version} here has no {', '.join(missing)}" if missing else None

    def apply(self, path: Path, user: str = "architect") -> None:
        """One migration file as Flyway applies it: one transaction, as architect in the role of the owner."""
        with self.connect(user, autocommit=False) as conn:
            conn.execute("SET ROLE phoenix_owner")
            conn.execute(path.read_bytes())

    def files(self, pattern: str = "") -> list[Path]:
        """The migrations that can be applied here, in order."""
        return [path for path in migrations() if path.name.startswith(pattern) and not self.lacks(path.read_text(encoding="utf-8"))]


def required(text: str) -> frozenset[str]:
    """The extensions named in the first line of a file."""
    first = re.match(r"-- requires: (.+)", text)
    return frozenset(name.strip() for name in first[1].split(",")) if first else frozenset()


@contextmanager
def running(name: str, machine: Machine, binaries: str) -> Iterator[Server]:
    """A cluster made, started and given the schema; stopped and removed at the end."""
    password = secrets.token_urlsafe(18)
    directory = machine.as_postgres(["mktemp", "-d", "-t", "phoenix-sql.XXXXXX"])
    control = [f"{binaries}/pg_ctl", "-D", f"{directory}/data", "-w", "-t", "60"]
    started = False
    try:
        machine.as_postgres(["sh", "-c", f"cat > {directory}/password"], stdin=password)
        initdb = [f"{binaries}/initdb", "-D", f"{directory}/data", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-k"]
        machine.as_postgres([*initdb, "--auth=scram-sha-256", f"--pwfile={directory}/password"])
        libraries = machine.run(f"ls $({binaries}/pg_config --pkglibdir 2>/dev/null || echo {binaries}/../lib/postgresql)")
        preload = [library for library in PRELOADED if re.search(rf"^{library}\.so$", libraries, re.MULTILINE)]
        for port in (20_000 + secrets.randbelow(10_000) for _ in range(5)):
            settings = {
                "port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": directory, "fsync": "off", "max_connections": 60,
                "shared_buffers": "64MB", "max_worker_processes": 24, "shared_preload_libraries": ",".join(preload), "timezone": "UTC",
                "cron.database_name": "phoenix", "cron.use_background_workers": "on", "timescaledb.telemetry_level": "off",
            }  # fmt: skip
            lines = "".join(f"{key} = '{value}'\n" for key, value in settings.items())
            machine.as_postgres(["sh", "-c", f"cat > {directory}/data/postgresql.auto.conf"], stdin=lines)
            with suppress(AssertionError):  # the port may be taken: try the next
                machine.as_postgres([*control, "-l", f"{directory}/log", "start"])
                started = True
                break
        assert started, machine.run(f"cat {directory}/log")
        with machine.reach(port) as local:
            server = Server(name, local, password)
            prepare(server)
            yield server
    finally:
        if started:
            machine.as_postgres([*control, "-m", "immediate", "stop"])
        machine.run(f"rm -rf {directory}")


def prepare(server: Server) -> None:
    """Roles, extensions, bootstrap.sql and all migrations: the way of a deploy."""
    with server.connect(database="postgres") as conn:
        conn.execute(ROLES)
        for login in LOGINS:
            conn.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(login), server.password))
        conn.execute("CREATE DATABASE phoenix OWNER phoenix_owner")
    with server.connect() as conn:
        for extension in EXTENSIONS:
            if extension in server.extensions and (extension != "pgaudit" or server.name == "full"):
                conn.execute(
                    f"CREATE EXTENSION IF NOT EXISTS {extension} SCHEMA {'pg_catalog' if extension == 'pg_cron' else 'public'}".encode()
                )
    with server.connect() as conn:
        conn.execute((SQL / "bootstrap.sql").read_bytes())
    for path in server.files():
        server.apply(path)
