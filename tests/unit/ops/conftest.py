"""What the tests of the command share: an inventory of one's own, and the command as a person runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]

INVENTORY = """
_ALL = {{
    "host_secrets_file": "{secrets}",
    "host_operator_keys": ["ssh-ed25519 AAAA... somebody@example.org"],
    "ssh_hostname": "127.0.0.1",
    "ssh_port": 1,
    "ssh_user": "root",
    "host_address": "{address}",
    {more}
}}
_HOST = ("one", _ALL)
etcd = [_HOST]
postgresql = [_HOST]
"""


@dataclass
class Ended:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Ended]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A person's environment, with a home, a cache and an age identity file of its own."""
    home = tmp_path / "home"
    home.mkdir()
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "USER": "root",
        "PYTHONPATH": str(ROOT),
        "PHOENIX_CACHE": str(tmp_path / "cache"),
        "PHOENIX_AGE_KEY_FILE": str(home / "age.key"),
    }


@pytest.fixture
def phoenix(environment: dict[str, str]) -> Command:
    """Runs `python -m ops ARGUMENTS`."""

    def run(*arguments: str, stdin: str = "", **variables: str) -> Ended:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "ops", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**environment, **variables},
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def inventory(tmp_path: Path) -> Callable[..., Path]:
    """Writes a production-like inventory whose one host does not answer; `more` are further lines of its settings."""

    def write(more: str = "", address: str = "127.0.0.1") -> Path:
        path = tmp_path / "site.py"
        path.write_text(INVENTORY.format(secrets=tmp_path / "site.secrets.yaml", more=more, address=address))
        return path

    return write
