"""What operations ask first is asked at once, and no answer outlives a change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploys.lib.ahead import NEXT, Answers
from deploys.lib.settings import ROOT

PROGRAM = """
import getpass, grp, os, sys
sys.path.insert(0, {root!r})
from pyinfra.operations import server
from deploys.lib.operations import File, files

me = dict(user=getpass.getuser(), group=grp.getgrgid(os.getgid()).gr_name)
for name in "abc":
    files(name=f"File {{name}}", entries=[File(f"{where}/{{name}}", name, **me)])
    if name == os.environ.get("SPOIL_AFTER"):
        server.shell(name="Somebody else's work", commands="echo spoiled >{where}/c")
"""


@pytest.fixture
def deploy(tmp_path: Path) -> Path:
    (tmp_path / "deploy.py").write_text(PROGRAM.format(root=str(ROOT), where=tmp_path))
    return tmp_path / "deploy.py"


def round_trips(deploy: Path, **environment: str) -> int:
    """Runs the deploy on this computer. How many commands that took."""
    command = [sys.executable, "-m", "pyinfra", "@local", str(deploy), "-y", "--debug"]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(deploy.parent), **environment}
    done = subprocess.run(command, cwd=deploy.parent, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr.count("Running command on localhost")


def held(deploy: Path) -> str:
    return "".join((deploy.parent / name).read_text() for name in "abc")


def test_operations_with_nothing_to_do_are_one_round_trip_together(deploy: Path) -> None:
    assert round_trips(deploy) > 3
    assert held(deploy) == "a\nb\nc\n"
    assert round_trips(deploy) == 1


def test_what_an_earlier_operation_changed_is_seen(deploy: Path) -> None:
    round_trips(deploy)
    round_trips(deploy, SPOIL_AFTER="a")
    assert held(deploy) == "a\nb\nc\n", "c was well when all were asked"


def test_what_was_changed_between_two_deploys_is_repaired(deploy: Path) -> None:
    round_trips(deploy)
    (deploy.parent / "b").write_text("other")
    round_trips(deploy)
    assert held(deploy) == "a\nb\nc\n"


def test_answers_are_told_apart_whatever_they_are() -> None:
    commands = ["printf 'one\\ntwo\\n'", "true", "printf 'no end'", "printf '\\n\\n'", "echo last # a comment", "false"]
    done = subprocess.run(["sh", "-c", Answers().command(commands)], capture_output=True, text=True, check=True)
    assert Answers().process(done.stdout.splitlines()) == [["one", "two"], [], ["no end"], ["", ""], ["last"], []]
    assert NEXT in done.stdout
