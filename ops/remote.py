"""Commands on hosts, one SSH connection each, with an end in sight: what a verb asks of a host or does to it."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from deploys.lib.settings import PlatformHost
from ops import inventory
from ops.errors import Failed
from ops.probe import TLS

T = TypeVar("T")

SSH_FAILED = 255
CURL = f"curl -sS --cacert {TLS}/ca.crt --cert {TLS}/host.crt --key {TLS}/host.key"
"""curl with the identity of the host it runs on."""


class Unreachable(Failed):
    """The host gave no answer over SSH, or the connection to it was lost: what was begun there may or may not have been done."""


@dataclass(frozen=True)
class Done:
    """A command that ended on a host."""

    code: int
    out: str
    err: str

    @property
    def reason(self) -> str:
        """The line that says why it failed."""
        said = [line.strip() for line in (self.err or self.out).strip().splitlines() if line.strip()]
        return (said or [f"exit code {self.code}"])[-1].rstrip(".")


def ask(target: PlatformHost, script: str, *, user: str = "root", stdin: str = "", timeout_s: float = 60) -> Done:
    """Run shell text on `target` as `user` and give what came of it, whatever it was. Raises Unreachable."""
    shell = ["sh", "-c", script]
    words = inventory.as_root(target, shell) if user == "root" else inventory.as_user(target, user, shell)
    options = ["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]
    try:
        done = subprocess.run(
            [*inventory.ssh(target, *options), words], input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise Unreachable(f"{target.name} gave no answer within {timeout_s:.0f} s: check that it is up with './phoenix status'.") from None
    result = Done(done.returncode, done.stdout, done.stderr)
    if result.code == SSH_FAILED:
        raise Unreachable(f"{target.name} cannot be reached over SSH ({result.reason}): check that it is up.")
    return result


def run(target: PlatformHost, script: str, *, what: str, user: str = "root", stdin: str = "", timeout_s: float = 60) -> str:
    """The output of shell text that has to succeed; `what` was tried, for the error. Raises Failed, Unreachable."""
    done = ask(target, script, user=user, stdin=stdin, timeout_s=timeout_s)
    if done.code != 0:
        raise Failed(f"{target.name}: {what} failed ({done.reason}): see './phoenix logs {target.name}'.")
    return done.out


def follow(target: PlatformHost, script: str, *, what: str, user: str = "root", said: Callable[[str], None]) -> str:
    """As `run`, for what takes its time: each line of its stderr is handed to `said` as it comes, and there is no time-out.

    A connection that is lost is noticed within 15 s.
    """
    shell = ["sh", "-c", script]
    words = inventory.as_root(target, shell) if user == "root" else inventory.as_user(target, user, shell)
    options = ["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]
    process = subprocess.Popen(
        [*inventory.ssh(target, *options), words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None and process.stderr is not None  # noqa: S101 - asked for above
    lines: list[str] = []
    try:
        with ThreadPoolExecutor(max_workers=1) as pool:
            out = pool.submit(process.stdout.read)
            for line in process.stderr:
                lines.append(line.rstrip("\n"))
                said(lines[-1])
            code = process.wait()
            result = Done(code, out.result(), "\n".join(lines))
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if code == SSH_FAILED:
        raise Unreachable(f"the connection to {target.name} was lost ({result.reason}): {what} may still be going on there.")
    if code != 0:
        raise Failed(f"{target.name}: {what} failed ({result.reason}): see './phoenix logs {target.name}'.")
    return result.out


def sql(target: PlatformHost, statements: str, *, port: int, database: str = "postgres", what: str, timeout_s: float = 60) -> str:
    """What PostgreSQL on `target` answers its superuser over the socket: unaligned, without headings. Raises Failed, Unreachable."""
    psql = shlex.join(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-p", str(port), "-d", database, "-f", "-"])
    return run(target, psql, what=what, user="postgres", stdin=statements, timeout_s=timeout_s).strip()


def value(text: str, *, what: str) -> Any:
    """`text` as JSON. Raises Failed."""
    try:
        return json.loads(text)
    except ValueError:
        raise Failed(f"{what} gave no JSON: run the same command with -v, and look at its journal.") from None


def together(work: Callable[[PlatformHost], T], targets: Sequence[PlatformHost]) -> dict[str, T]:
    """`work` for all of `targets` at the same time; its results by the hosts' names. The first error of them is raised at the end."""
    with ThreadPoolExecutor(max_workers=max(1, len(targets))) as pool:
        futures = {target.name: pool.submit(work, target) for target in targets}
    return {name: future.result() for name, future in futures.items()}
