"""Disks of the machines: made from the base system, given an identity, seeded from the package cache and harvested."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from lab import leftovers, mirror, shell
from lab.config import Lab
from lab.machines import Machine

_ARCHIVES = Path("var/cache/apt/archives")
_LISTS = Path("var/lib/apt/lists")
_GONE = "root.gone"
_KEEP_S = 30 * 24 * 3600


def make(lab: Lab, machine: Machine, base: Path, sources: Sequence[mirror.Source]) -> None:
    """Make the disk of `machine` from the archive `base`. A disk that was left half-made is thrown away first.

    The disk counts only once it has its final name, so a try that is killed at any moment leaves nothing that boots.
    """
    root = lab.paths.root(machine.name)
    part = root.with_name("root.part")
    leftovers.end_processes(part)
    leftovers.remove_tree(part)
    part.mkdir(parents=True, mode=0o755)
    tar = ["tar", "-C", str(part), "--numeric-owner", "--xattrs", "--xattrs-include=*", "-I", "zstd", "-xpf", str(base)]
    try:
        shell.run(tar)
        _identify(lab, machine, part, sources)
        _seed(lab, part)
        part.rename(root)
    except BaseException:
        leftovers.remove_tree(part)
        raise


def discard(lab: Lab, name: str) -> None:
    """Make the disk of machine `name` no disk any more, in one step: what is left half-removed must not boot again."""
    root = lab.paths.root(name)
    if root.is_dir():
        remove_discarded(lab, name)
        root.rename(root.with_name(_GONE))


def remove_discarded(lab: Lab, name: str) -> None:
    """Free the space of a discarded disk. After the new one is made, not before: ext4 without a journal will not reuse
    an inode for half a minute after its deletion, and searching past ten thousand of them makes a new disk take 10 s."""
    leftovers.remove_tree(lab.paths.machine(name) / _GONE)


def _identify(lab: Lab, machine: Machine, root: Path, sources: Sequence[mirror.Source]) -> None:
    """What makes the base system this machine: names, keys, where its packages come from."""
    _write(root / "etc/hostname", f"{machine.name}\n")
    # Its own identity from the first boot, so that no first-boot questions are asked and journals do not mix.
    _write(root / "etc/machine-id", f"{uuid.uuid4().hex}\n", 0o444)
    _write(root / "etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
    _write(root / "etc/default/locale", "LANG=C.UTF-8\n")
    (root / "etc/apt/sources.list").unlink(missing_ok=True)
    _write(root / "etc/apt/sources.list.d/debian.sources", debian_sources(sources, lab.gateway))
    transport = mirror.seen_from_machine(mirror.transport_settings(), lab.gateway)
    _write(root / "etc/apt/apt.conf.d/10mirror", transport + 'Acquire::Languages "none";\n')
    for old in (root / "etc/ssh").glob("ssh_host_*"):
        old.unlink()
    host_key = lab.paths.host_key(machine.name)
    _write(root / "etc/ssh/ssh_host_ed25519_key", host_key.read_text(), 0o600)
    _write(root / "etc/ssh/ssh_host_ed25519_key.pub", host_key.with_suffix(".pub").read_text())
    key_only = "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    _write(root / "etc/ssh/sshd_config.d/10-key-only.conf", key_only)
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    _write(root / "root/.ssh/authorized_keys", lab.paths.ssh_key.with_suffix(".pub").read_text(), 0o600)
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (wants / "systemd-networkd.service").symlink_to("/usr/lib/systemd/system/systemd-networkd.service")


def configure(lab: Lab, machine: Machine, mtu: int, resolvers: str) -> None:
    """Write what depends on this computer's network of today; called before every start of the machine."""
    root = lab.paths.root(machine.name)
    _write(root / "etc/systemd/network/10-lab.network", network_unit(lab.address(machine), lab.gateway, mtu))
    _write(root / "etc/resolv.conf", resolvers)
    introduce(lab, machine)


def introduce(lab: Lab, machine: Machine) -> None:
    """Tell `machine` the names of all machines: adds what its /etc/hosts lacks, leaves the rest of the file alone."""
    hosts = lab.paths.root(machine.name) / "etc/hosts"
    text = hosts.read_text()
    names = {name for line in text.splitlines() for name in line.partition("#")[0].split()[1:]}
    lines = [f"{lab.address(other)}\t{other.name}" for other in lab.machines if other.name not in names]
    if lines:
        _write(hosts, text.rstrip("\n") + "\n" + "\n".join(lines) + "\n")


def network_unit(address: str, gateway: str, mtu: int) -> str:
    """The systemd-networkd unit of the only interface: inside the machine, so that it survives a reboot from inside."""
    return (
        "[Match]\nName=host0\n\n"
        f"[Link]\nMTUBytes={mtu}\n\n"
        f"[Network]\nAddress={address}/24\nGateway={gateway}\nLinkLocalAddressing=no\nIPv6AcceptRA=no\nLLDP=no\n"
    )


def debian_sources(sources: Sequence[mirror.Source], gateway: str) -> str:
    """The machine's /etc/apt/sources.list.d/debian.sources; `gateway` is this computer's address as the machine sees it."""
    return "\n".join(
        f"Types: deb\nURIs: {mirror.seen_from_machine(source.uri, gateway)}\nSuites: {source.suite}\n"
        f"Components: {' '.join(source.components)}\nSigned-By: {mirror.KEYRING}\n"
        for source in sources
    )


def _seed(lab: Lab, root: Path) -> None:
    """Give a new disk the packages and package lists that earlier machines downloaded; apt takes what still fits."""
    for directory in (_ARCHIVES, _LISTS):
        target = root / directory
        (target / "partial").mkdir(parents=True, exist_ok=True)
        for file in _files(_cache(lab, directory)):
            _link(file, target / file.name)


def harvest(lab: Lab, name: str) -> int:
    """Take the packages and lists that machine `name` downloaded into the cache. Returns how many packages were new.

    Each machine has its own directory and locks, so all may run apt at the same time, also now: apt renames a file to
    its final name when it is complete, and only those are taken. They are on disk before they count, because apt
    compares no more than the size of a package it already has.
    """
    root = lab.paths.root(name)
    new = 0
    for directory in (_ARCHIVES, _LISTS):
        cache = _cache(lab, directory)
        cache.mkdir(parents=True, exist_ok=True)
        for file in _files(root / directory):
            kept = cache / file.name
            if directory is _ARCHIVES and kept.exists():
                os.utime(kept)
                continue
            new += directory is _ARCHIVES
            part = cache / f".{file.name}.part"
            part.unlink(missing_ok=True)
            _link(file, part)
            with part.open("rb") as taken:
                os.fsync(taken.fileno())
            part.replace(kept)
    return new


def prune(lab: Lab) -> None:
    """Drop packages that no machine had for 30 days, base systems as old as that, and leavings of killed harvests."""
    old = [*_cache(lab, _ARCHIVES).glob("*"), *lab.paths.cache.glob("base-*.tar.zst")]
    old = [file for file in old if time.time() - file.stat().st_mtime > _KEEP_S]
    leavings = [file for directory in (_ARCHIVES, _LISTS) for file in _cache(lab, directory).glob(".*.part")]
    for file in {*old, *leavings}:
        file.unlink(missing_ok=True)


def _cache(lab: Lab, directory: Path) -> Path:
    return lab.paths.cache / "apt" / directory.name


def _files(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return [
        Path(entry.path)
        for entry in os.scandir(directory)
        if entry.is_file(follow_symlinks=False)
        and entry.name != "lock"
        and entry.stat(follow_symlinks=False).st_size
        and not entry.name.startswith(".")
    ]


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file of a machine in one step. Never follows a link the machine may have put there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.lab")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "w") as file:
        file.write(text)
    part.chmod(mode)
    part.replace(path)
