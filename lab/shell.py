"""Running this computer's programs: always from a list, never through a shell, with errors that name the program."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from lab.errors import LabError

# A root shell reached by `su` may lack the sbin directories, where ip, nft and chroot live.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for every program started here: the caller's, with a full PATH and untranslated messages."""
    path = os.environ.get("PATH", "")
    return {**os.environ, "PATH": f"{path}:{_PATH}" if path else _PATH, "LC_ALL": "C.UTF-8", **(extra or {})}


def has(program: str) -> bool:
    """Whether this computer has `program`."""
    return shutil.which(program, path=environment()["PATH"]) is not None


def run(
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    timeout_s: float = 120,
    check: bool = True,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `argv` to its end and return what it said.

    Raises LabError with the program's last words when it fails (unless `check` is off), takes longer than `timeout_s`
    seconds, or does not exist.
    """
    try:
        done = subprocess.run(
            list(argv),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env=environment(env),
        )
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]}: not found on this computer: install it and try again") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(argv[:3])}: no end after {timeout_s:.0f} s: try again") from error
    if check and done.returncode != 0:
        raise LabError(f"{' '.join(argv[:3])}: failed with code {done.returncode}: {last_words(done)}")
    return done


def last_words(done: subprocess.CompletedProcess[str], lines: int = 3) -> str:
    """The last non-empty lines a program wrote, on one line: what a person needs to see of a failure."""
    said = [line.strip() for line in (done.stderr or done.stdout or "").splitlines() if line.strip()]
    return " / ".join(said[-lines:]) or "it said nothing"
