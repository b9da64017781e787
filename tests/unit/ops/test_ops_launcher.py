"""./phoenix from a bare Python, in a copy of the checkout. Packages come from the cache of this computer, or the network."""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploys.lib import wheels
from ops import bootstrap
from tests.unit.ops.conftest import ROOT

BARE = str(Path(sys.executable).resolve())  # the interpreter behind the virtual environment


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("phoenix", "uv.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, copy)
    for name in ("ops", "exporters", "services", "deploys", "inventory", "lab"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return copy


def start(checkout: Path, *arguments: str, cwd: Path = Path("/"), **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **variables}
    env.pop("PYTHONPATH", None)
    command = [BARE, "-IS", str(checkout / "phoenix"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=cwd, timeout=300)


def test_first_start_makes_the_environment_and_later_ones_are_quick(checkout: Path) -> None:
    first = start(checkout, "--help")
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("usage: phoenix")
    assert first.stderr.startswith("Preparing the Python environment from uv.lock")
    again = start(checkout, "--help")
    assert (again.returncode, again.stderr) == (0, "")
    venv_python = checkout / ".venv" / "bin" / "python"
    listed = subprocess.run(
        [venv_python, "-c", "import importlib.metadata as m; print(*sorted(d.name for d in m.distributions()))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert {"pyinfra", "psycopg-binary", "phoenix-exporter"} <= set(listed.stdout.split())

    # CPU time, the least of several: what the launcher costs, whatever else this computer is doing.
    def cpu_ms(command: list[str]) -> float:
        times = []
        for _ in range(7):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={"PYTHONPATH": str(checkout)})
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == 0
            times.append((usage.ru_utime + usage.ru_stime) * 1000)
        return min(times)

    through = cpu_ms([BARE, "-IS", str(checkout / "phoenix"), "--help"])
    direct = cpu_ms([str(venv_python), "-P", "-m", "ops", "--help"])
    assert through - direct < 50


def test_environment_that_lost_a_package_or_the_marker_is_mended(checkout: Path) -> None:
    start(checkout, "--help")
    python = checkout / ".venv" / "bin" / "python"
    rich = subprocess.run([python, "-c", "import rich; print(rich.__path__[0])"], capture_output=True, text=True, check=True)
    metadata = next(Path(rich.stdout.strip()).parent.glob("rich-*.dist-info"))
    shutil.rmtree(rich.stdout.strip())
    shutil.rmtree(metadata)
    (checkout / ".venv" / ".phoenix").unlink()
    mended = start(checkout, "status", "-i", "/nonexistent.py")
    assert "does not exist" in mended.stderr
    subprocess.run([python, "-c", "import rich"], check=True)


def test_two_first_starts_at_once_both_end_well(checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv", ignore_errors=True)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [BARE, "-IS", str(checkout / "phoenix"), "--help"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) for _ in range(2)]
    outputs = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("Preparing" in stderr for _, stderr in outputs) == 1


def test_interrupted_checkout_is_one_sentence(checkout: Path, tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    shutil.copytree(checkout, partial, ignore=shutil.ignore_patterns(".venv"))
    (partial / "uv.lock").unlink()
    ended = start(partial, "--help")
    assert ended.returncode == 1
    assert ended.stderr == f"phoenix: {partial}/uv.lock is missing, the checkout is not whole: get it again.\n"


def test_without_network_the_reason_and_the_next_step_are_told(checkout: Path, tmp_path: Path) -> None:
    offline = tmp_path / "offline"
    shutil.copytree(checkout, offline, ignore=shutil.ignore_patterns(".venv"))
    empty = tmp_path / "mirror"
    empty.mkdir()
    no_index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(empty), "PHOENIX_CACHE": str(tmp_path / "cache")}
    ended = start(offline, "--help", **no_index)
    assert ended.returncode == 1
    told = ended.stderr.splitlines()[-1]
    assert "phoenix: uv, which installs the Python packages, could not be fetched: " in told
    assert told.endswith("run the same command again.")


def test_launcher_can_be_read_by_a_python_too_old_to_run_it() -> None:
    ast.parse((ROOT / "phoenix").read_text(), feature_version=(3, 6))


def test_pips_mirror_is_used_for_everything(tmp_path: Path) -> None:
    settings = bootstrap._mirror(
        {"index-url": "https://mirror.example/simple", "find-links": f"{tmp_path} /nonexistent", "no-index": "true"}
    )
    assert settings == {"UV_DEFAULT_INDEX": "https://mirror.example/simple", "UV_FIND_LINKS": str(tmp_path), "UV_NO_INDEX": "1"}
    assert bootstrap._mirror({}) == {}


def test_exporter_bundle_installs_without_a_network(tmp_path: Path) -> None:
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    bundle = wheels.bundle(wheels.EXPORTER, bootstrap.cache_dir(), python=python, platform=os.uname().machine)
    assert wheels.bundle(wheels.EXPORTER, bootstrap.cache_dir(), python=python, platform=os.uname().machine) == bundle
    requirements = (bundle / "requirements.txt").read_text()
    for wheel in bundle.glob("*.whl"):
        assert hashlib.sha256(wheel.read_bytes()).hexdigest() in requirements, wheel.name
    subprocess.run([BARE, "-m", "venv", str(tmp_path / "venv")], check=True)
    pip = [str(tmp_path / "venv/bin/python"), "-m", "pip", "--isolated", "install", "--quiet", "--no-index", "--require-hashes"]
    subprocess.run([*pip, "--find-links", str(bundle), "-r", str(bundle / "requirements.txt")], check=True)
    subprocess.run([str(tmp_path / "venv/bin/python"), "-I", "-c", "import phoenix_exporter, psycopg"], check=True)


def test_bundle_for_the_other_processor_holds_its_binaries() -> None:
    bundle = wheels.bundle(wheels.EXPORTER, bootstrap.cache_dir(), python="3.13", platform="aarch64")
    (binary,) = bundle.glob("psycopg_binary-*.whl")
    assert "cp313" in binary.name
    assert "aarch64" in binary.name
    with pytest.raises(wheels.BundleError, match="riscv64"):
        wheels.bundle(wheels.EXPORTER, bootstrap.cache_dir(), platform="riscv64")
