"""Programs that no Debian package has, made ready on the computer that deploys; a cache keeps them, hosts need no way to their source.

Java programs come from the Maven repository: a pom.xml names them, a list of digests beside it pins them; a packed one has a
line for both. Go programs are built from the
module that a version and its checksum name. A mirror or an air-gapped site configures Maven (`~/.m2/settings.xml`) and Go (`GOPROXY`) as
usual, or fills the cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ops import bootstrap

_SIGNATURE = re.compile(r"META-INF/[^/]+\.(SF|RSA|DSA|EC)", re.IGNORECASE)


class ArtifactError(Exception):
    """An artifact cannot be had; the text says which, why, and what to do."""


def cache() -> Path:
    """Where downloads are kept between runs: outside the checkout."""
    return bootstrap.cache_dir()


@dataclass(frozen=True)
class GoProgram:
    """A program that is built from source."""

    module: str
    version: str
    checksum: str
    """Of the module's source, as `go.sum` has it: what a proxy hands out instead is refused."""
    package: str
    """Import path of the program inside the module."""
    go: tuple[int, int]
    """The oldest Go that builds it."""
    also: tuple[str, ...] = ()
    """Import paths of further programs of the module that are built with it."""
    stamps: tuple[tuple[str, str], ...] = ()
    """Variables of the source that its own build sets, such as what it gives as its version."""
    as_requirement: bool = False
    """Built as what an empty module requires: Go installs no program by name whose module replaces others."""

    @property
    def name(self) -> str:
        """File name of the program."""
        return self.package.rsplit("/", 1)[1]


def go_program(program: GoProgram) -> Path:
    """A directory with nothing but the built program and those built with it, statically linked for this computer's processor.

    Raises ArtifactError."""
    directory = cache() / "go" / f"{program.name}-{program.version}-{platform.machine()}"
    if directory.exists():
        return directory
    with bootstrap.locked(directory.parent):
        return directory if directory.exists() else _build(program, directory)


def _build(program: GoProgram, directory: Path) -> Path:
    _need_go(program)
    source = f"{program.module}@{program.version}"
    found = _go(["mod", "download", "-json", source], what=f"fetch {source}")
    if (checksum := json.loads(found).get("Sum")) != program.checksum:
        raise ArtifactError(f"{source} has checksum {checksum}, not {program.checksum}: find out why before you trust its source.")
    partial = directory.with_name(f"{directory.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    flags = ["-trimpath", " ".join(["-ldflags=-s -w", *(f"-X {variable}={value}" for variable, value in program.stamps)])]
    packages = [program.package, *program.also]
    # Without cgo it needs no library of the host it runs on; some minutes of all cores are not worth a stall of everything else here.
    if program.as_requirement:
        with tempfile.TemporaryDirectory(prefix="phoenix-build-") as module:
            major, minor = program.go
            text = f"module build.invalid\n\ngo {major}.{minor}\n\nrequire {program.module} {program.version}\n"
            Path(module, "go.mod").write_text(text, encoding="utf-8")
            build = ["build", "-mod=mod", *flags, "-o", f"{partial}/", *packages]
            _go(build, what=f"build {source}", directory=module, CGO_ENABLED="0")
    else:
        install = ["install", *flags, *(f"{package}@{program.version}" for package in packages)]
        _go(install, what=f"build {source}", GOBIN=str(partial), CGO_ENABLED="0")
    partial.rename(directory)
    return directory


def _go(arguments: list[str], *, what: str, directory: str = "/", **environment: str) -> str:
    command = ["nice", "-n", "10", "go", *arguments]
    result = subprocess.run(command, env={**os.environ, **environment}, cwd=directory, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ArtifactError(f"Go cannot {what} ({reason}): check the network, or GOPROXY.")
    return result.stdout


def _need_go(program: GoProgram) -> None:
    """A Go that is new enough; Debian's, installed when there is none and this is root."""
    _need("go", "golang-go")
    wanted = ".".join(str(part) for part in program.go)
    if shutil.which("go") is None:
        raise ArtifactError(
            f"{program.name} is built with Go {wanted} or newer on the computer that deploys, which has none: install it (Debian's "
            "golang-go, or go.dev's), or copy the built program into the cache (docs/backup.md)."
        )
    version = subprocess.run(["go", "env", "GOVERSION"], cwd="/", capture_output=True, text=True, check=False).stdout
    numbers = re.match(r"go(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < program.go:
        raise ArtifactError(
            f"{program.name} needs Go {wanted} and the computer that deploys has {version.strip() or 'one that does not say its version'}: "
            "install a newer one, or copy the built program into the cache (docs/backup.md)."
        )


def jars(pom: Path) -> Path:
    """A directory with the jars of `pom`, exactly those of `jars.sha256` beside it but for their signatures. Raises ArtifactError."""
    pins = pom.with_name("jars.sha256").read_text(encoding="utf-8")
    key = hashlib.sha256(b"unsigned" + pom.read_bytes() + pins.encode()).hexdigest()[:16]
    directory = cache() / "jars" / f"{pom.parent.name}-{key}"
    if directory.exists():
        return directory
    with bootstrap.locked(directory.parent):
        return directory if directory.exists() else _resolve(pom, pins, directory)


def _resolve(pom: Path, pins: str, directory: Path) -> Path:
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
    for path in partial.glob("*.jar"):
        unsign(path)
    partial.rename(directory)
    return directory


def unsign(jar: Path) -> None:
    """Remove the signatures of a jar that is known by its digest. A JVM checks each class of a signed jar whenever it loads one, and keeps
    none of them in an archive of classes (docs/decisions/0616)."""
    with zipfile.ZipFile(jar) as signed:
        if not any(map(_SIGNATURE.fullmatch, signed.namelist())):
            return
        new = jar.with_suffix(".unsigned")
        with zipfile.ZipFile(new, "w") as unsigned:
            for entry in signed.infolist():
                if not _SIGNATURE.fullmatch(entry.filename):
                    unsigned.writestr(entry, signed.read(entry))
    new.replace(jar)


def archive(pins: Path) -> Path:
    """A directory with what is packed in a tar archive of the Maven repository; `pins` names it: digest, two blanks, coordinates.

    Raises ArtifactError.
    """
    digest, coordinates = pins.read_text(encoding="utf-8").strip().split("  ")
    _, artifact, version, *_ = coordinates.split(":")
    directory = cache() / "archives" / f"{artifact}-{version}-{digest[:16]}"
    if directory.exists():
        return directory
    with bootstrap.locked(directory.parent):
        return directory if directory.exists() else _unpack(pins, coordinates, digest, directory)


def _unpack(pins: Path, coordinates: str, digest: str, directory: Path) -> Path:
    _need_maven(pins)
    partial = directory.with_name(f"{directory.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    command = ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={coordinates}", f"-DoutputDirectory={partial}"]
    result = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    if result.returncode != 0:
        reason = next((line for line in result.stdout.splitlines() if "ERROR" in line), "no reason given")
        raise ArtifactError(f"Maven cannot fetch {coordinates} ({reason.strip()}): check the network, or Maven's mirror settings.")
    (packed,) = partial.iterdir()
    found = hashlib.sha256(packed.read_bytes()).hexdigest()
    if found != digest:
        shutil.rmtree(partial)
        raise ArtifactError(
            f"{coordinates} has digest {found}, not the one that {pins} pins: find out why before you trust the repository."
        )
    with tarfile.open(packed) as content:
        content.extractall(partial, filter="data")
    packed.unlink()
    partial.rename(directory)
    return directory


def _need_maven(pom: Path) -> None:
    """Debian's Maven, installed when it is missing and this is root."""
    _need("mvn", "maven")
    if shutil.which("mvn") is None:
        raise ArtifactError(f"{pom} needs Maven on the computer that deploys: run 'apt-get install --no-install-recommends maven' as root.")


def _need(program: str, package: str) -> None:
    """Install Debian's package of a program that is missing, where this is Debian and root."""
    if shutil.which(program) is not None or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-qq", "--yes", "--no-install-recommends", package]
    for command in (["apt-get", "update", "-qq"], install):
        subprocess.run(command, env=environment, capture_output=True, check=False)
