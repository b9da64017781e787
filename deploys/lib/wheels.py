"""Our own programs as files a host can install without a network: their wheels, every locked dependency, and the hashes."""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from deploys.lib.settings import ROOT
from ops import bootstrap

# Wheels may be built against any glibc up to that of the oldest Debian we deploy to (12: 2.36).
_NEWEST_GLIBC = 36
_OLDEST_GLIBC = 5
_PLAIN = ("--no-header", "--no-annotate")
PLATFORMS = ("x86_64", "aarch64")


@dataclass(frozen=True)
class Member:
    """A program of this checkout: a member of uv's workspace (pyproject.toml)."""

    name: str
    """Of the project and of its command, `phoenix-exporter`."""
    directory: str
    """Below the checkout."""
    needs: tuple[Member, ...] = ()
    """Other members whose code it uses."""

    @property
    def package(self) -> str:
        """The Python package."""
        return self.name.replace("-", "_")

    @property
    def all(self) -> tuple[Member, ...]:
        """What it needs, and itself."""
        return (*self.needs, self)


EXPORTER = Member("phoenix-exporter", "exporters")
STREAM = Member("phoenix-stream", "services", needs=(EXPORTER,))


class BundleError(Exception):
    """The bundle cannot be made; the message names the thing, the reason and the next step."""


def bundle(member: Member, cache: Path, python: str = "3.13", platform: str = "x86_64") -> Path:
    """A directory with the member's wheel, the locked wheels it needs and `requirements.txt` with their hashes.

    For hosts with CPython `python` ("3.11" to "3.14") on `platform` ("x86_64" or "aarch64"), whatever this computer is. A host
    installs it with `pip install --no-index --find-links DIR --require-hashes -r DIR/requirements.txt`.

    Kept below `cache` under a name made from the lock, the member's source and the target, so the same source always
    gives the same path, and a path never changes its content. Raises BundleError.
    """
    if platform not in PLATFORMS:
        raise BundleError(f"{member.name} is not built for {platform} ({' or '.join(PLATFORMS)}): check the host's architecture.")
    key = hashlib.sha256(f"{python} {platform}\n".encode() + _sources(member)).hexdigest()[:16]
    bundles = cache / "bundles"
    made = bundles / f"{member.name}-{key}-py{python}-{platform}"
    if made.is_dir():
        return made
    try:
        with bootstrap.locked(bundles):
            if not made.is_dir():
                _make(member, made, cache, python, platform)
    except bootstrap.BootstrapError as error:
        raise BundleError(str(error)) from error
    except OSError as error:
        raise BundleError(f"{bundles} cannot be written ({error.strerror}): free space or set PHOENIX_CACHE.") from error
    return made


def _sources(member: Member) -> bytes:
    """Everything the bundle is made from, as one string of bytes."""
    files = [ROOT / "uv.lock"]
    for one in member.all:
        files.append(ROOT / one.directory / "pyproject.toml")
        package = ROOT / one.directory / one.package
        files += sorted(path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return b"".join(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes() for path in files)


def _make(member: Member, made: Path, cache: Path, python: str, platform: str) -> None:
    tools = bootstrap.installer(cache)
    uv, env = str(tools / "bin" / "uv"), bootstrap.uv_environment(tools, cache)
    with tempfile.TemporaryDirectory(dir=made.parent, prefix=".making-") as scratch:
        target = Path(scratch) / "bundle"
        target.mkdir(mode=0o755)
        requirements = bootstrap.call(
            [uv, "export", "--frozen", f"--package={member.name}", "--no-dev", "--no-emit-workspace", *_PLAIN],
            failing=f"the dependencies of {member.name} could not be read from uv.lock",
            env=env,
            cwd=ROOT,
        )
        # pip judges markers by the Python it runs on, not by the one it downloads for: fetch everything it might
        # need; the host's own pip then reads the markers.
        everything = Path(scratch) / "everything.txt"
        everything.write_text(re.sub(r" ;[^\\\n]*", " ", requirements))
        bootstrap.call(
            [str(tools / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
            + ["--require-hashes", "--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
            + [f"--abi=cp{python.replace('.', '')}", "--abi=abi3", "--abi=none"]
            + [f"--platform={tag}" for tag in _tags(platform)]
            + ["--dest", str(target), "--requirement", str(everything)],
            failing=f"the dependencies of {member.name} for Python {python} on {platform} could not be fetched",
        )
        own = "".join(_build(one, target, uv, env) for one in member.all)
        (target / "requirements.txt").write_text(requirements + own)
        for file in target.iterdir():
            file.chmod(0o644)
        target.rename(made)  # the move that makes it visible, whole or not at all


def _build(member: Member, target: Path, uv: str, env: dict[str, str]) -> str:
    """Build the member's wheel into `target`; its line of requirements."""
    bootstrap.call(
        [uv, "build", "--quiet", "--wheel", "--out-dir", str(target), str(ROOT / member.directory)],
        failing=f"{member.name} could not be built from {member.directory}/",
        env=env,
        cwd=ROOT,
    )
    (target / ".gitignore").unlink(missing_ok=True)  # uv build leaves one
    (wheel,) = target.glob(f"{member.package}-*.whl")
    version = wheel.name.split("-")[1]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"{member.name}=={version} \\\n    --hash=sha256:{digest}\n"


def _tags(platform: str) -> list[str]:
    """pip's platform tags for glibc hosts, newest first."""
    return [f"manylinux_2_{minor}_{platform}" for minor in range(_NEWEST_GLIBC, _OLDEST_GLIBC - 1, -1)] + [f"manylinux2014_{platform}"]
