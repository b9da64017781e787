"""Operations: the few things that a deploy does to a host, each idempotent. When there is nothing to do each is one question, and all of
a host's together are one round trip (`ahead`).

pyinfra's own file operations upload by way of a predictable name below /tmp and are not atomic; its package and service operations
cost a round trip for each file, package or property, and forget a restart that an earlier, failed run still owed. These do not.
"""

from __future__ import annotations

import hashlib
import shlex
import tarfile
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from pyinfra import context, host
from pyinfra.api import StringCommand, operation
from pyinfra.api.command import FileUploadCommand, PyinfraCommand, QuoteString

from deploys.lib import facts, findings
from deploys.lib.ahead import Question, ask, asks
from deploys.lib.rendering import TEMPLATES, environment

Commands = Generator[PyinfraCommand | str, None, None]

_ENVIRONMENT = environment(TEMPLATES)


def template(path: str, /, **values: Any) -> Callable[[], str]:
    """Content of `templates/<path>` with `values`, rendered when the operation runs. A value may be a function, called then."""

    def render() -> str:
        return _ENVIRONMENT.get_template(path).render({key: value() if callable(value) else value for key, value in values.items()})

    return render


@dataclass(frozen=True)
class File:
    """A file of the host. `content` may be a function, called when the operation runs (with the host's facts at hand)."""

    path: str
    content: str | Callable[[], str]
    user: str = "root"
    group: str = "root"
    mode: str = "644"


@dataclass(frozen=True)
class Directory:
    """A directory of the host."""

    path: str
    user: str = "root"
    group: str = "root"
    mode: str = "755"


def _text(content: str | Callable[[], str]) -> str:
    text = content() if callable(content) else content
    return text if text.endswith("\n") else text + "\n"  # stdin of pyinfra ends every line


def _paths(*, entries: list[File | Directory], **_: Any) -> Question:
    return facts.PathStates, {"paths": [entry.path for entry in entries]}


@asks(_paths)
@operation()
def files(entries: list[File | Directory]) -> Commands:
    """The host has these files and directories, with this content, owner and mode.

    A file is written beside its place and renamed onto it, so that readers see the old or the new one, and a full disk leaves the old.
    Content goes over stdin: it is in no argument list, log or predictable temporary file.
    """
    current = ask(_paths(entries=entries))
    commands: list[PyinfraCommand | str] = []  # all before the first is run: a dry run looks no further than that one
    for entry in entries:
        state = current.get(entry.path)
        owner = (entry.user, entry.group, entry.mode)
        quoted = shlex.quote(entry.path)
        if isinstance(entry, Directory):
            if state is None or state.kind != "directory":
                findings.report(f"directory {entry.path} is missing")
                commands.append(f"install -d -o {entry.user} -g {entry.group} -m {entry.mode} {quoted}")
            elif (state.user, state.group, state.mode) != owner:
                findings.report(f"directory {entry.path} is {state.user}:{state.group} {state.mode}")
                commands.append(f"chown {entry.user}:{entry.group} {quoted} && chmod {entry.mode} {quoted}")
            continue
        text = _text(entry.content)
        if state is None or state.kind != "file" or state.digest != hashlib.sha256(text.encode()).hexdigest():
            findings.report(f"file {entry.path} " + ("is missing" if state is None else "has other content"))
            commands.append(StringCommand(write_command(entry), _stdin=text))
        elif (state.user, state.group, state.mode) != owner:
            findings.report(f"file {entry.path} is {state.user}:{state.group} {state.mode}")
            commands.append(f"chown {entry.user}:{entry.group} {quoted} && chmod {entry.mode} {quoted}")
    yield from commands


def write_command(entry: File) -> str:
    """Shell that writes stdin to the entry's path atomically."""
    quoted, parent = shlex.quote(entry.path), shlex.quote(str(Path(entry.path).parent))
    return (
        f"(umask 022 && mkdir -p {parent}) && umask 077 && t=$(mktemp {parent}/.phoenix.XXXXXXXX) && "
        f'trap \'rm -f "$t"\' EXIT && cat >"$t" '
        f'&& chown {entry.user}:{entry.group} "$t" && chmod {entry.mode} "$t" && mv -fT "$t" {quoted}'
    )


def _listed(*, directory: str, **_: Any) -> Question:
    return facts.Output, {"script": f"ls -A {shlex.quote(directory)} 2>/dev/null || true"}


@asks(_listed)
@operation()
def nothing_else(directory: str, names: list[str]) -> Commands:
    """`directory` holds no file but these: what an earlier version of the platform left there goes."""
    present = ask(_listed(directory=directory)).splitlines()
    extra = [f"{directory}/{name}" for name in sorted(set(present) - set(names))]
    for path in extra:
        findings.report(f"{path} belongs to nothing")
    if extra:
        yield f"rm -f -- {shlex.join(extra)}"


def _versions(*, names: list[str], **_: Any) -> Question:
    return facts.PackageVersions, {"packages": sorted(names)}


@asks(_versions)
@operation()
def packages(names: list[str]) -> Commands:
    """The host has these Debian packages. Their services are not started by the installation: the deploy starts them, configured."""
    installed = ask(_versions(names=names))
    missing = sorted(set(names) - installed.keys())
    if not missing:
        return
    findings.report(f"packages missing: {', '.join(missing)}")
    no_source = f"Failed to read the package sources of {host.name}: check its network and /etc/apt/sources.list.d, then deploy again."
    no_package = f"Failed to install {', '.join(missing)} on {host.name}: apt says why above; './phoenix deploy -v' shows all of it."
    # policy-rc.d answering 101 keeps packages from starting their services unconfigured, some of them on public addresses.
    yield (
        "set -e; export DEBIAN_FRONTEND=noninteractive; policy=/usr/sbin/policy-rc.d; "
        "printf '#!/bin/sh\\nexit 101\\n' >$policy; chmod 755 $policy; trap 'rm -f $policy' EXIT; "
        "dpkg --configure -a; "  # what an interrupted run left half-installed
        f"apt-get -q -o DPkg::Lock::Timeout=120 -o APT::Update::Error-Mode=any update || {{ echo {shlex.quote(no_source)} >&2; exit 1; }}; "
        "apt-get -qy -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "
        f"install --no-install-recommends {shlex.join(missing)} || {{ echo {shlex.quote(no_package)} >&2; exit 1; }}"
    )


def _running(*, unit: str, restart_on: Sequence[str] = (), reload_on: Sequence[str] = (), **_: Any) -> Question:
    return facts.Unit, {"unit": unit, "watched": [*restart_on, *reload_on]}


@asks(_running)
@operation()
def service(
    unit: str,
    *,
    restart_on: Sequence[str] = (),
    reload_on: Sequence[str] = (),
    enabled: bool = True,
    restart_if: Callable[[], bool] | None = None,
    in_container: bool = True,
) -> Commands:
    """The unit runs, is enabled, and has read the present content of its files.

    What it has read is judged by time: a file of `restart_on` newer than the unit's start restarts it, one of `reload_on` newer than
    its start and its last reload reloads it. So a run that failed between writing and restarting is made good by the next.
    With `in_container=False` a container is left without it: what looks after a kernel has no business there.
    """
    state = ask(_running(unit=unit, restart_on=restart_on, reload_on=reload_on))
    if state.in_container and not in_container:
        return
    if state.load == "not-found" and not context.state.is_executing:
        findings.report(f"{unit} does not exist")
        yield f"systemctl enable --now {unit}"
        return
    commands: list[str] = []  # all before the first is run, as in `files`
    if state.needs_daemon_reload or state.load == "not-found":
        commands.append("systemctl daemon-reload")
    if enabled and state.enabled not in ("enabled", "static", "generated", "alias", "indirect"):
        findings.report(f"{unit} is not enabled")
        commands.append(f"systemctl --quiet enable {unit}")
    stale = [path for path in restart_on if state.changed_at.get(path, 0.0) > state.started_at]
    if state.active not in ("active", "activating", "reloading"):
        findings.report(f"{unit} is {state.active}")
        commands.append(f"systemctl reset-failed {unit} 2>/dev/null; systemctl restart {unit}")
    elif stale or state.needs_daemon_reload or (restart_if is not None and restart_if()):
        findings.report(f"{unit} runs with an older {', '.join(stale) or 'unit file'}")
        commands.append(f"systemctl restart {unit}")
    else:
        stale = [path for path in reload_on if state.changed_at.get(path, 0.0) > max(state.started_at, state.reloaded_at)]
        if stale:
            findings.report(f"{unit} has not read the present {', '.join(stale)}")
            stamp = facts.reload_stamp(unit)  # its time is taken before the reload: what is written meanwhile counts as unread
            commands.append(f"touch {stamp}.new && systemctl reload {unit} && mv {stamp}.new {stamp}")
    yield from commands


def _unread(*, units: list[str], **_: Any) -> Question:
    return facts.Output, {"script": f"systemctl show -p NeedDaemonReload {shlex.join(units)} | grep yes || true"}


@asks(_unread)
@operation()
def units_read(units: list[str]) -> Commands:
    """systemd knows these units, which a timer or a person starts, as their files now say."""
    if ask(_unread(units=units)):
        findings.report(f"systemd has not read the present {' or '.join(units)}")
        yield "systemctl daemon-reload"


def _stamp(directory: str) -> str:
    return f"{directory}/.phoenix-digest"


def _stamped(*, directory: str, **_: Any) -> Question:
    return facts.PathStates, {"paths": [_stamp(directory)]}


@asks(_stamped)
@operation()
def upload(source: Callable[[], Path], directory: str, pattern: str = "**/*") -> Commands:
    """The host has the files of a local directory at `directory`, all of them or the old ones; their digest is kept beside them.

    `source` is called when the operation runs and only then: it may have to download or build first.
    """
    local = source()
    entries = sorted(path for path in local.glob(pattern) if path.is_file())
    digest = hashlib.sha256()
    for path in entries:
        digest.update(f"{path.relative_to(local)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    text = digest.hexdigest() + "\n"
    state = ask(_stamped(directory=directory)).get(_stamp(directory))
    if state and state.digest == hashlib.sha256(text.encode()).hexdigest():
        return
    findings.report(f"{directory} is " + ("out of date" if state else "missing"))
    new, old = f"{directory}.new", f"{directory}.old"
    yield f"rm -rf {new} {old} && install -d -m 755 {new}"
    yield FileUploadCommand(_archive(local, entries), f"{new}/.archive.tar", remote_temp_filename=f"{new}/.archive.tar")
    yield f"cd {new} && tar -xf .archive.tar --no-same-owner && rm .archive.tar && chmod -R u=rwX,go=rX ."
    yield StringCommand(f"cat >{new}/.phoenix-digest", _stdin=text)
    yield f"if test -e {directory}; then mv -T {directory} {old}; fi && mv -T {new} {directory} && rm -rf {old}"


def _archive(local: Path, entries: list[Path]) -> BytesIO:
    """The files as one tar archive: one transfer instead of one for each file."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in entries:
            archive.add(path, arcname=str(path.relative_to(local)))
    buffer.seek(0)
    return buffer


@operation()
def together() -> Commands:
    """No host goes on before all have come here: pyinfra keeps hosts in step only at operations that they share, and this is one."""
    host.noop("every host has come this far")
    yield from ()


def refusal(message: str) -> StringCommand:
    """A command that fails on the host with `message`: the thing, the reason, the next step. Stops this host, not the others."""
    return StringCommand("printf '%s\\n'", QuoteString(message), ">&2; false")
