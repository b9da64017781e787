"""The base system: a minimal Debian server, built once from this computer's own mirror and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from lab import leftovers, mirror, shell
from lab.config import SUITE
from lab.errors import LabError

# What a Debian server has on its first day, and no more: what a service needs, its deploy installs.
PACKAGES = (
    "systemd", "systemd-sysv", "libpam-systemd", "dbus", "openssh-server", "python3", "sudo", "ca-certificates",
    "iproute2", "iputils-ping", "procps", "nftables", "kmod", "less", "netbase", "tzdata",
)  # fmt: skip
# Raised when the steps below change in a way that the recipe's data does not show.
_EDITION = 1
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\s(.+?)-----END CERTIFICATE-----", re.DOTALL)


def local_authorities(
    bundle: Path = Path("/etc/ssl/certs/ca-certificates.crt"), shipped: Path = Path("/usr/share/ca-certificates")
) -> list[str]:
    """The certificate authorities (PEM) that this computer trusts beyond those Debian ships.

    A network that inspects TLS adds one here; the machines of the lab sit in the same network and must trust it too.
    """
    if not bundle.is_file() or not shipped.is_dir():
        return []
    known = {body for file in shipped.rglob("*.crt") for body in _certificates(file.read_text(errors="replace"))}
    found = [body for body in _certificates(bundle.read_text(errors="replace")) if body not in known]
    return [f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n" for body in dict.fromkeys(found)]


def _certificates(text: str) -> list[str]:
    return ["\n".join(match.split()) for match in _CERTIFICATE.findall(text)]


def archive_path(cache: Path, sources: Sequence[mirror.Source], transport: str, authorities: Sequence[str]) -> Path:
    """The file in the cache that holds the base system made of exactly these ingredients."""
    recipe = json.dumps([_EDITION, SUITE, PACKAGES, [source.one_line() for source in sources], transport, list(authorities)])
    return cache / f"base-{SUITE}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.tar.zst"


def ensure(cache: Path, progress: Callable[[str], None]) -> tuple[Path, list[mirror.Source]]:
    """The base system's archive, built when the cache has none (20 to 60 s), and the archives it was made from.

    Raises LabError when no mirror answers or the build fails; a build that was killed leaves nothing that counts.
    """
    sources = mirror.discover(SUITE)
    transport = mirror.transport_settings()
    authorities = local_authorities()
    archive = archive_path(cache, sources, transport, authorities)
    if not archive.is_file():
        progress(f"building the base system (Debian {SUITE}) from {sources[0].uri}, once: 20 to 60 s")
        _build(archive, sources, transport, authorities)
    return archive, sources


def _build(archive: Path, sources: Sequence[mirror.Source], transport: str, authorities: Sequence[str]) -> None:
    work = archive.parent / "base-build"
    leftovers.end_processes(work)
    leftovers.remove_tree(work)
    local = work / "ca-certificates"
    local.mkdir(parents=True)
    for number, certificate in enumerate(authorities, 1):
        (local / f"lab-computer-{number}.crt").write_text(certificate)
    part = work / "root.tar.zst"
    argv = ["mmdebstrap", "--mode=root", "--variant=apt", f"--include={','.join(PACKAGES)}"]
    # The time-outs keep a dead mirror from holding the whole run for minutes.
    for option in (*transport.splitlines(), 'Acquire::Retries "2";', 'Acquire::http::Timeout "30";'):
        argv.append(f"--aptopt={option}")
    if authorities:
        argv.append(f"--customize-hook=copy-in {local} /usr/local/share")
        argv.append('--customize-hook=chroot "$1" update-ca-certificates')
    argv += [SUITE, str(part), *(source.one_line() for source in sources)]
    try:
        done = shell.run(argv, timeout_s=900, check=False, env={"TMPDIR": str(work)})
        if done.returncode != 0:
            said = done.stderr.splitlines()
            failures = " / ".join([line for line in said if line.startswith("E:")][:2] or said[-2:])
            raise LabError(f"base system: mmdebstrap failed: {failures}: mend that and try again")
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(archive)
    finally:
        leftovers.remove_tree(work)
