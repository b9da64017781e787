"""A Python environment with Kafka's client on the host, of the locked version and of nothing else: Debian's is too old to manage users."""

from __future__ import annotations

import hashlib
import tempfile
import tomllib
from pathlib import Path

from pyinfra import host
from pyinfra.api import operation

from deploys.lib import artifacts, facts, findings, hosts, wheels
from deploys.lib.operations import Commands, upload
from deploys.lib.settings import ROOT
from ops import bootstrap

PACKAGES = ["python3-venv"]
PACKAGE = "confluent-kafka"
HOME = "/opt/phoenix/kafka-client"
PYTHON = f"{HOME}/venv/bin/python"
DIGEST = f"{HOME}/venv/.phoenix-digest"


def installed() -> None:
    """`PYTHON` imports confluent_kafka."""
    upload(name="Kafka's client", source=_bundle, directory=f"{HOME}/wheels")
    environment(name="Environment of exactly this client")


def _bundle() -> Path:
    """The locked wheel for the present host's machine, and `requirements.txt` with its hash."""
    return bundle(artifacts.cache(), python="3.13", platform=hosts.resources().machine)


def bundle(cache: Path, *, python: str, platform: str) -> Path:
    """A directory with the wheel of PACKAGE that uv.lock names, for CPython `python` on `platform`. Raises wheels.BundleError."""
    if platform not in wheels.PLATFORMS:
        raise wheels.BundleError(f"{PACKAGE} is not built for {platform} ({' or '.join(wheels.PLATFORMS)}): check the host's architecture.")
    requirement = _requirement()
    key = hashlib.sha256(requirement.encode()).hexdigest()[:16]
    directory = cache / "bundles" / f"kafka-client-{key}-py{python}-{platform}"
    if directory.is_dir():
        return directory
    try:
        with bootstrap.locked(directory.parent):
            if not directory.is_dir():
                _make(directory, cache, requirement, python, platform)
    except bootstrap.BootstrapError as error:
        raise wheels.BundleError(str(error)) from error
    return directory


def _requirement() -> str:
    """PACKAGE with its version and the hashes of its wheels, as pip reads it."""
    locked = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    (package,) = [one for one in locked if one["name"] == PACKAGE]
    assert not package.get("dependencies"), f"{PACKAGE} has dependencies now: take them into the bundle"  # noqa: S101
    hashes = " ".join(f"--hash={wheel['hash']}" for wheel in package["wheels"])
    return f"{PACKAGE}=={package['version']} {hashes}\n"


def _make(directory: Path, cache: Path, requirement: str, python: str, platform: str) -> None:
    tools = bootstrap.installer(cache)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".making-") as scratch:
        target = Path(scratch) / "bundle"
        target.mkdir(mode=0o755)
        (target / "requirements.txt").write_text(requirement)
        bootstrap.call(
            [str(tools / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
            + ["--require-hashes", "--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
            + [f"--abi=cp{python.replace('.', '')}"]
            + [f"--platform={tag}" for tag in wheels._tags(platform)]
            + ["--dest", str(target), "--requirement", str(target / "requirements.txt")],
            failing=f"{PACKAGE} for Python {python} on {platform} could not be fetched",
        )
        for file in target.iterdir():
            file.chmod(0o644)
        target.rename(directory)


@operation()
def environment() -> Commands:
    """`venv` beside the wheels holds exactly what they hold; made anew, whole or not at all, when they change."""
    wanted = f"{HOME}/wheels/.phoenix-digest"
    if not host.get_fact(facts.Output, script=f"cmp -s {DIGEST} {wanted} && test -x {PYTHON}").endswith(facts.FAILED):
        return
    findings.report("the environment of Kafka's client is not of the present wheels")
    # A virtual environment knows its own path: it is built in place, and the stamp that makes it valid comes last.
    yield (
        f"set -e; rm -rf {HOME}/venv; python3 -m venv --without-scm-ignore-files {HOME}/venv; "
        f"{HOME}/venv/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --no-index --find-links {HOME}/wheels "
        f"--require-hashes -r {HOME}/wheels/requirements.txt; cp {wanted} {DIGEST}"
    )
