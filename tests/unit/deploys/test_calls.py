"""What is replaced in pyinfra is there, gives the same answers, and is replaced once."""

from __future__ import annotations

import subprocess
import sys

from deploys.lib.settings import ROOT

PROGRAM = """
from pyinfra.api import arguments, facts, util
before = arguments.all_global_arguments()
def here(): return util.get_caller_frameinfo()
def caller(): return here()
first = caller()
from deploys.lib import calls
calls.make_lean(); calls.make_lean()
second = caller()
assert (first.filename, first.function, first.lineno) == (second.filename, second.function, second.lineno)
assert arguments.all_global_arguments() == before
assert arguments.all_global_arguments() is arguments.all_global_arguments()
print("same")
"""


def test_pyinfra_gets_the_same_answers_without_reading_source() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("same", 0), done.stderr
