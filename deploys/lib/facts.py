"""Facts: what a host is like now. Each reads in one round trip everything that an operation needs."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pyinfra.api import FactBase


@dataclass(frozen=True)
class PathState:
    """One path as it is: `kind` is file, directory, link or other; `digest` is a file's SHA-256 in hexadecimal."""

    kind: str
    user: str
    group: str
    mode: str
    digest: str = ""


class PathStates(FactBase[dict[str, PathState]]):
    """State of each of the given paths that exists."""

    default = dict

    def command(self, paths: list[str]) -> str:
        quoted = " ".join(shlex.quote(path) for path in paths)
        # %F is a translated text.
        return f"LC_ALL=C stat -c '%F|%U|%G|%a|%n' -- {quoted} 2>/dev/null; sha256sum -- {quoted} 2>/dev/null; true"

    def process(self, output: list[str]) -> dict[str, PathState]:
        digests: dict[str, str] = {}
        stats: dict[str, list[str]] = {}
        for line in output:
            if line.count("|") >= 4:
                *fields, path = line.split("|", 4)
                stats[path] = fields
            else:
                digest, _, path = line.partition("  ")
                digests[path] = digest
        kinds = {"regular file": "file", "regular empty file": "file", "directory": "directory", "symbolic link": "link"}
        return {
            path: PathState(kinds.get(kind, "other"), user, group, mode, digests.get(path, ""))
            for path, (kind, user, group, mode) in stats.items()
        }


class PackageVersions(FactBase[dict[str, str]]):
    """Installed version of each of the given Debian packages that is installed."""

    default = dict

    def command(self, packages: list[str]) -> str:
        return f"dpkg-query -W -f='${{Package}} ${{Version}} ${{db:Status-Status}}\\n' {shlex.join(packages)} 2>/dev/null; true"

    def process(self, output: list[str]) -> dict[str, str]:
        rows = [line.split(" ") for line in output]
        return {package: version for package, version, status in rows if status == "installed"}


@dataclass(frozen=True)
class HostFacts:
    """Resources of a host: RAM in MB, cores, free disk of the root file system in MB; which Debian it runs, on which processor.

    `client` is the address from which the present SSH session comes and `ssh_port` the port it came to, both empty when it does not say
    (after sudo).
    """

    memory_mb: int
    cores: int
    free_mb: int
    debian: str
    machine: str
    client: str
    ssh_port: str


class Resources(FactBase[HostFacts]):
    """What the host has to offer."""

    def command(self) -> str:
        return (
            "awk '/^MemTotal/ {print \"memory \" int($2/1024)}' /proc/meminfo; echo cores $(nproc); "
            "df -Pm / | awk 'NR==2 {print \"free \" $4}'; "
            # Also a host that is no Debian, and lacks the program or the file, has to answer: it is refused by name.
            "(. /etc/os-release; echo debian $ID-$VERSION_ID) 2>/dev/null; "
            "echo machine $(uname -m); set -- $SSH_CONNECTION; echo client $1; echo ssh_port $4"
        )

    def process(self, output: list[str]) -> HostFacts:
        said = {key: value for key, _, value in (line.strip().partition(" ") for line in output)}
        return HostFacts(
            memory_mb=int(said.get("memory") or 0),
            cores=int(said.get("cores") or 1),
            free_mb=int(said.get("free") or 0),
            debian=said.get("debian") or "an unknown system",
            machine=said.get("machine", ""),
            client=said.get("client", ""),
            ssh_port=said.get("ssh_port", ""),
        )


@dataclass(frozen=True)
class UnitState:
    """A systemd unit, and the newest of the files whose change it has to take over. Times are seconds since the epoch."""

    load: str
    active: str
    enabled: str
    needs_daemon_reload: bool
    in_container: bool
    started_at: float
    reloaded_at: float
    changed_at: dict[str, float]
    """Modification time of each watched file that exists."""


class Unit(FactBase[UnitState]):
    """State of one unit. `watched` are files that it reads."""

    @staticmethod
    def default() -> UnitState:
        """Of a host where systemd says nothing: to a deploy that only looks, the unit is not there."""
        return Unit().process(["LoadState=not-found"])

    def command(self, unit: str, watched: list[str]) -> str:
        files = " ".join(shlex.quote(path) for path in watched) or "/dev/null"
        return (
            f"systemctl show {shlex.quote(unit)} --timestamp=us+utc "
            "-p LoadState -p ActiveState -p UnitFileState -p NeedDaemonReload -p InactiveExitTimestamp; "
            "systemd-detect-virt --container --quiet && echo container=yes; "
            "export LC_ALL=C; "  # the decimal point of %.Y
            f"stat -c 'reloaded %.Y' {reload_stamp(unit)} 2>/dev/null; stat -Lc 'file %.Y %n' -- {files} 2>/dev/null; true"
        )

    def process(self, output: list[str]) -> UnitState:
        properties: dict[str, str] = {}
        reloaded_at = 0.0
        changed_at: dict[str, float] = {}
        for line in output:
            if line.startswith("reloaded "):
                reloaded_at = float(line.split(" ")[1])
            elif line.startswith("file "):
                _, time, path = line.split(" ", 2)
                changed_at[path] = float(time)
            else:
                key, _, properties[key] = line.partition("=")
        return UnitState(
            load=properties.get("LoadState", ""),
            active=properties.get("ActiveState", ""),
            enabled=properties.get("UnitFileState", ""),
            needs_daemon_reload=properties.get("NeedDaemonReload") == "yes",
            in_container=properties.get("container") == "yes",
            started_at=_timestamp(properties.get("InactiveExitTimestamp", "")),
            reloaded_at=reloaded_at,
            changed_at={path: time for path, time in changed_at.items() if path != "/dev/null"},
        )


def reload_stamp(unit: str) -> str:
    """The file whose time says when Phoenix last made `unit` read its configuration again."""
    return f"/run/phoenix-reloaded-{unit}"


def _timestamp(text: str) -> float:
    """Seconds since the epoch of systemd's "Mon 2026-11-23 14:29:12.123456 UTC"; 0.0 for none."""
    if not text or text == "n/a":
        return 0.0
    return datetime.strptime(text.split(" ", 1)[1], "%Y-%m-%d %H:%M:%S.%f UTC").replace(tzinfo=UTC).timestamp()


class Output(FactBase[str]):
    """What a read-only shell command prints; ends with `FAILED` when it fails. For checks that have no fact of their own."""

    def command(self, script: str) -> str:
        return f"({script}) || echo PHOENIX-FAILED"

    def process(self, output: list[str]) -> str:
        return "\n".join(output)

    @staticmethod
    def default() -> str:
        return ""


FAILED = "PHOENIX-FAILED"


class Json(FactBase[Any]):
    """The JSON that a read-only shell command prints; None when it prints none (a service that is down, a missing program)."""

    def command(self, script: str) -> str:
        return f"({script}) 2>/dev/null || true"

    def process(self, output: list[str]) -> Any:
        try:
            return json.loads("\n".join(output))
        except ValueError:
            return None
