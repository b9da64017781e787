"""What this computer must have before a lab can be made, and how the lab gets it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from lab import shell
from lab.config import Lab
from lab.errors import LabError, LabRefused

# program -> the Debian package that has it
_PROGRAMS = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "zstd": "zstd",
    "tar": "tar",
    "taskset": "util-linux",
}
# What a machine grows to with a platform on it, and what the base system takes while it is built.
_DISK_GB = 2
_CACHE_GB = 1
_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
_INOTIFY_INSTANCES = 1024  # a machine with the platform on it takes about 30; the kernel's default is 128
_KEYRING_PACKAGE = "debian-archive-keyring"


def require_root() -> None:
    """Raise LabRefused unless this is the superuser."""
    if os.geteuid() != 0:
        raise LabRefused("lab: machines need the superuser: run the same command as root, for example with sudo")


def missing_packages() -> list[str]:
    """The Debian packages whose programs this computer lacks."""
    missing = {package for program, package in _PROGRAMS.items() if not shell.has(program)}
    if not Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists():
        missing.add(_KEYRING_PACKAGE)
    return sorted(missing)


def ensure_tools(progress: Callable[[str], None]) -> None:
    """Install the packages the lab needs where they are missing.

    Raises LabRefused on a computer without apt-get, LabError when the installation fails.
    """
    missing = missing_packages()
    if not missing:
        return
    if not shell.has("apt-get"):
        raise LabRefused(f"lab: this computer lacks {', '.join(missing)} and has no apt-get: run it on Debian 12 or 13")
    progress(f"installing on this computer: {', '.join(missing)}")
    apt = ["apt-get", "-y", "-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=2"]
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    install = [*apt, "--no-install-recommends", "install", *missing]
    # Where the installed systemd lags behind the mirror, the first install can stop half-way in dpkg; mended, the
    # second goes through.
    attempts = [
        [[*apt, "update"], install],
        [["dpkg", "--configure", "-a"], [*apt, "--fix-broken", "install"], install],
    ]
    said = ""
    for steps in attempts:
        for step in steps:
            done = shell.run(step, check=False, timeout_s=900, env=env)
            said = shell.last_words(done)
        if not missing_packages():
            return
    raise LabError(f"apt-get install {' '.join(missing_packages())}: failed: {said}: mend that and try again")


def allow_watches() -> None:
    """Let this computer's kernel hand out enough inotify instances: machines share them, and a systemd that gets none starts half.

    The limit is only raised, and stays so until this computer restarts: other labs may need it.
    """
    if int(_INOTIFY.read_text()) < _INOTIFY_INSTANCES:
        _INOTIFY.write_text(f"{_INOTIFY_INSTANCES}\n")


def require_space(lab: Lab, disks: int) -> None:
    """Raise LabRefused when that many new disks, or the base system they are made from, would not fit."""
    for path, needed_gb in ((lab.paths.state, _DISK_GB * disks), (lab.paths.cache, _CACHE_GB)):
        present = next(place for place in (path, *path.parents) if place.exists())
        free_gb = shutil.disk_usage(present).free / 1024**3
        if free_gb < needed_gb:
            raise LabRefused(f"{path}: {free_gb:.1f} GiB free, {needed_gb} GiB needed: make room there and try again")


@contextlib.contextmanager
def only_one(lab: Lab) -> Iterator[None]:
    """Hold the lab for this process: raises LabRefused when another one is making or removing machines."""
    name = hashlib.sha256(str(lab.paths.state).encode()).hexdigest()[:8]
    path = Path(f"/run/phoenix-lab-{name}.lock")
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise LabRefused(f"lab: process {holder} is making or removing machines: wait until it is done") from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
        lock.truncate(0)
