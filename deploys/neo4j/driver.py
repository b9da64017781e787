"""Neo4j's Python driver for the host's own programs; no Debian package has it. It is pure Python: a directory in PYTHONPATH is enough."""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from pathlib import Path

from deploys.lib.artifacts import ArtifactError
from deploys.lib.settings import ROOT
from ops import bootstrap

WANTED = ("neo4j", "pytz")
_QUIETLY = ("--disable-pip-version-check", "download", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:")


def directory(cache: Path) -> Path:
    """A directory with the driver of uv.lock, unpacked. Raises ArtifactError."""
    key = hashlib.sha256((ROOT / "uv.lock").read_bytes() + repr(WANTED).encode()).hexdigest()[:16]
    made = cache / "neo4j-driver" / key
    if made.exists():
        return made
    try:
        with bootstrap.locked(made.parent):
            if not made.exists():
                _make(made, cache)
    except bootstrap.BootstrapError as error:
        raise ArtifactError(str(error)) from error
    return made


def _make(made: Path, cache: Path) -> None:
    tools = bootstrap.installer(cache)
    locked = bootstrap.call(
        [str(tools / "bin" / "uv"), "export", "--frozen", "--no-dev", "--no-emit-workspace", "--no-header", "--no-annotate"],
        failing="the driver's version could not be read from uv.lock",
        env=bootstrap.uv_environment(tools, cache),
        cwd=ROOT,
    )
    pinned = [entry for entry in locked.replace("\\\n", " ").splitlines() if entry.split("==")[0] in WANTED]
    if len(pinned) != len(WANTED):
        raise ArtifactError(f"uv.lock does not pin {' and '.join(WANTED)}: run 'make lock'.")
    partial = made.with_name(f"{made.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    requirements = partial / "requirements.txt"
    requirements.write_text("\n".join(entry.split(" ;")[0] + " " + entry[entry.index("--hash") :] for entry in pinned))
    bootstrap.call(
        [str(tools / "bin" / "python"), "-m", "pip", *_QUIETLY, "--dest", str(partial), "--requirement", str(requirements)],
        failing="Neo4j's Python driver could not be fetched",
    )
    requirements.unlink()
    for wheel in list(partial.glob("*.whl")):
        if not wheel.name.endswith("-none-any.whl"):
            raise ArtifactError(f"{wheel.name} is not pure Python: it cannot be used on a host unpacked.")
        with zipfile.ZipFile(wheel) as content:
            content.extractall(partial)
        wheel.unlink()
    partial.rename(made)
