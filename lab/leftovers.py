"""Clearing away what a killed run left behind: its children that still work, stale mounts, half-made trees."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

from lab import shell


def end_processes(directory: Path) -> None:
    """End the processes that still work on `directory`, a work directory which nobody but the lab knows.

    A run that is killed does not take its children with it: an unpacking tar or a bootstrap would go on writing.
    """
    for _ in range(20):
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal() and _works_on(entry, directory)]
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def remove_tree(path: Path) -> None:
    """Remove a directory and everything below it, after unmounting whatever is still mounted there.

    Without that a removal would reach through a stale mount into what is mounted.
    """
    for point in sorted(mounts_below(path, Path("/proc/self/mountinfo").read_text()), key=len, reverse=True):
        shell.run(["umount", "--lazy", point], check=False)
    if path.exists():
        shutil.rmtree(path)


def mounts_below(path: Path, mountinfo: str) -> list[str]:
    """The mount points at or below `path` in the text of /proc/self/mountinfo, which writes blanks as octal escapes."""
    points = [line.split()[4].encode().decode("unicode_escape") for line in mountinfo.splitlines()]
    return [point for point in points if Path(point).is_relative_to(path)]


def _works_on(process: Path, directory: Path) -> bool:
    try:
        argv = (process / "cmdline").read_bytes().decode(errors="replace")
        places = [str((process / link).readlink()) for link in ("cwd", "root")]
    except OSError:
        return False  # it ended while we looked, or is the kernel's
    return int(process.name) != os.getpid() and any(str(directory) in text for text in (argv, *places))
