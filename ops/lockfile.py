"""Renews and checks uv.lock: `python -m ops.lockfile [--upgrade | --check]` (`make lock`).

uv writes the address of a package's registry on every line of its lock. Which registry a site uses is that site's affair (a
mirror, an air-gapped directory), and the hashes alone decide what is installed, so the addresses are taken out, together
with builds for systems Phoenix does not run on. What is left is still a lock that uv reads (docs/decisions/0400).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

from ops import bootstrap

ROOT = Path(__file__).resolve().parent.parent

_REGISTRY = re.compile(r'source = \{ registry = "[^"]+" \}')
_WHEEL = re.compile(r'    \{ (?:url = "[^"]*/|path = ")(?P<name>[^"/]+\.whl)", hash = "(?P<hash>sha256:[0-9a-f]{64})"[^}]*\},')
_SDIST = re.compile(r"sdist = \{ (?:url|path) = .*\}")
_SYSTEM = re.compile(r"(?:any|manylinux\w*(?:x86_64|aarch64)(?:\.\w+)*)$")
_PYTHON = re.compile(r"(?:py\d+(?:\.py\d+)*-none|cp3\d{1,2}(?:\.cp3\d+)*-(?:abi3|none)|cp31[1-4]-cp31[1-4])$")


def without_addresses(lock: str) -> str:
    """`lock` (text of a uv.lock) without registry addresses, source archives and wheels for other systems.

    Raises ValueError naming the package when nothing installable is left of it.
    """
    kept = []
    for line in lock.splitlines():
        if _SDIST.fullmatch(line):
            continue
        if wheel := _WHEEL.fullmatch(line):
            if _serves_us(wheel["name"]):
                kept.append(f'    {{ path = "{wheel["name"]}", hash = "{wheel["hash"]}" }},')
            continue
        kept.append(_REGISTRY.sub('source = { registry = ".wheels" }', line))
    text = "\n".join(kept) + "\n"
    for package in tomllib.loads(text)["package"]:
        if "registry" in package["source"] and not package.get("wheels"):
            raise ValueError(f"{package['name']} {package['version']} has no wheel for Linux on x86_64 or aarch64: choose another version.")
    if found := re.search(r"\w+://[^\"]+", text):
        raise ValueError(f"uv.lock still holds the address {found[0]}: uv changed its format; adapt ops/lockfile.py.")
    return text


def renew(root: Path, *, upgrade: bool) -> bool:
    """Bring `root`/uv.lock up to date with pyproject.toml; True when it changed. Works on a copy until it is complete."""
    cache = bootstrap.cache_dir()
    tools = bootstrap.installer(cache)
    lock = root / "uv.lock"
    with tempfile.TemporaryDirectory(prefix="phoenix-lock-") as scratch:
        copy = Path(scratch)
        for name in ("pyproject.toml", "exporters/pyproject.toml", "services/pyproject.toml", "uv.lock"):
            if (root / name).exists():
                (copy / name).parent.mkdir(exist_ok=True)
                shutil.copy(root / name, copy / name)
        bootstrap.call(
            [str(tools / "bin" / "uv"), "lock", "--quiet", *(["--upgrade"] if upgrade else [])],
            failing="uv.lock could not be renewed",
            env=bootstrap.uv_environment(tools, cache),
            cwd=copy,
        )
        text = without_addresses((copy / "uv.lock").read_text())
    if lock.exists() and lock.read_text() == text:
        return False
    lock.write_text(text)
    return True


def check(root: Path) -> None:
    """Raise BootstrapError or ValueError when uv.lock does not fit pyproject.toml or holds an address."""
    uv = bootstrap.installer(bootstrap.cache_dir()) / "bin" / "uv"
    # Without any of uv's settings: told of a registry it would compare addresses, and the lock has none.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    bootstrap.call(
        [str(uv), "lock", "--check", "--offline", "--quiet"],
        failing="uv.lock does not fit pyproject.toml (run 'make lock')",
        env=plain,
        cwd=root,
    )
    text = (root / "uv.lock").read_text()
    if text != without_addresses(text):
        raise ValueError("uv.lock holds registry addresses or builds nobody uses: run 'make lock'.")


def _serves_us(wheel: str) -> bool:
    """Whether a wheel's file name promises CPython 3.11-3.14 on Linux (glibc), x86_64 or aarch64."""
    *_, python, abi, system = wheel.removesuffix(".whl").split("-")
    return bool(_SYSTEM.match(system) and _PYTHON.match(f"{python}-{abi}"))


def main(arguments: list[str] | None = None) -> int:
    """Renew or check; 0 done, 1 failed."""
    parser = argparse.ArgumentParser(prog="python -m ops.lockfile", description="Renew uv.lock, without registry addresses.")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--upgrade", action="store_true", help="take the newest versions pyproject.toml allows")
    choice.add_argument("--check", action="store_true", help="change nothing; fail when uv.lock is out of date")
    options = parser.parse_args(arguments)
    try:
        if options.check:
            check(ROOT)
        else:
            changed = renew(ROOT, upgrade=options.upgrade)
            print("uv.lock renewed." if changed else "uv.lock is up to date.", file=sys.stderr)
    except (bootstrap.BootstrapError, ValueError) as error:
        print(f"phoenix: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
