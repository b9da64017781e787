"""A connection to the leader's PostgreSQL as a client has it: TLS checked, password from the store, through an SSH tunnel."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

from deploys.lib.pki import CERTIFICATE_SECRET
from deploys.lib.secrets import SecretError
from deploys.lib.settings import HostSettings, Platform, PlatformHost, PostgresqlSettings
from ops import inventory
from ops.errors import Failed, Refused
from ops.shells import DATABASE, leader

TUNNEL_TIMEOUT_S = 15.0


@contextmanager
def connect(platform: Platform, user: str) -> Iterator[psycopg.Connection]:
    """An autocommit connection as `user` to the database of `platform`, closed with its tunnel at the end of the `with`.

    Raises Refused when the store lacks the password or the authority's certificate, Failed when the server is not reached.
    """
    store = inventory.secrets(platform)
    try:
        password, authority = store.get(f"postgresql/{user}"), store.get(CERTIFICATE_SECRET)
    except SecretError as error:
        raise Refused(str(error)) from error
    target = leader(platform)
    with tempfile.TemporaryDirectory(prefix="phoenix-psql-") as scratch, tunnel(target) as port:
        root_certificate = Path(scratch) / "ca.crt"
        root_certificate.write_text(authority)
        try:
            connection = psycopg.connect(
                host=target[HostSettings].address,  # what the certificate is checked against; the tunnel is where it goes
                hostaddr="127.0.0.1",
                port=port,
                dbname=DATABASE,
                user=user,
                password=password,
                sslmode="verify-full",
                sslrootcert=str(root_certificate),
                connect_timeout=10,
                application_name="phoenix",
                autocommit=True,
            )
        except psycopg.OperationalError as error:
            reason = str(error).strip().splitlines()[0]
            raise Failed(f"PostgreSQL on {target.name} refuses {user} ({reason}): see './phoenix status'.") from error
        with connection:
            yield connection


@contextmanager
def tunnel(target: PlatformHost, *, port: int | None = None) -> Iterator[int]:
    """A free local port that leads to PostgreSQL on `target`, or to another `port` there, while the `with` lasts. Raises Failed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        local = int(free.getsockname()[1])
    destination = f"{target[HostSettings].address}:{port or target[PostgresqlSettings].port}"
    options = ["-N", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{local}:{destination}"]
    process = subprocess.Popen(
        inventory.ssh(target, *options), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        _wait_until_open(process, local, target.name)
        yield local
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        if process.poll() is None:
            process.kill()
            process.wait()


def _wait_until_open(process: subprocess.Popen[str], port: int, name: str) -> None:
    until = time.monotonic() + TUNNEL_TIMEOUT_S
    while time.monotonic() < until:
        if process.poll() is not None:
            said = process.stderr.read().strip().splitlines() if process.stderr else []
            reason = said[-1] if said else f"ssh ended with {process.returncode}"
            raise Failed(f"{name} cannot be reached over SSH ({reason}): check that it is up with './phoenix status'.")
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise Failed(f"the SSH tunnel to {name} did not open within {TUNNEL_TIMEOUT_S:.0f} s: check that it is up.")
