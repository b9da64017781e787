"""Java programs from the Maven repository: a pom.xml names them, a list of digests beside it pins them, a cache keeps them.

The computer that deploys resolves them, with Debian's `maven`; hosts need no way to the repository. A mirror or an air-gapped site
configures Maven as usual (`~/.m2/settings.xml`) or fills the cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from ops import bootstrap


class ArtifactError(Exception):
    """An artifact cannot be had; the text says which, why, and what to do."""


def cache() -> Path:
    """Where downloads are kept between runs: outside the checkout."""
    return bootstrap.cache_dir()


def jars(pom: Path) -> Path:
    """A directory with the jars of `pom`, exactly those of `jars.sha256` beside it. Raises ArtifactError."""
    pins = pom.with_name("jars.sha256").read_text(encoding="utf-8")
    key = hashlib.sha256(pom.read_bytes() + pins.encode()).hexdigest()[:16]
    directory = cache() / "jars" / f"{pom.parent.name}-{key}"
    if directory.exists():
        return directory
    _need_maven(pom)
    partial = directory.with_name(f"{directory.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={partial}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        reason = next((line for line in result.stdout.splitlines() if "ERROR" in line), "no reason given")
        raise ArtifactError(f"Maven cannot resolve {pom} ({reason.strip()}): check the network, or Maven's mirror settings.")
    expected = {name: digest for digest, name in (line.split("  ") for line in pins.splitlines())}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in partial.glob("*.jar")}
    if found != expected:
        differing = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        shutil.rmtree(partial)
        raise ArtifactError(f"{pom}: {', '.join(differing)} are not what jars.sha256 pins: find out why before you trust the repository.")
    partial.rename(directory)
    return directory


def _need_maven(pom: Path) -> None:
    """Debian's Maven, installed when it is missing and this is root."""
    if shutil.which("mvn") is not None:
        return
    install = ["apt-get", "install", "-qq", "--yes", "--no-install-recommends", "maven"]
    if os.geteuid() == 0 and shutil.which("apt-get") is not None:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update", "-qq"], install):
            subprocess.run(command, env=environment, capture_output=True, check=False)
    if shutil.which("mvn") is None:
        raise ArtifactError(f"{pom} needs Maven on the computer that deploys: run 'apt-get install --no-install-recommends maven' as root.")
