"""Real runs of pyinfra on this computer (its @local connector), and what we understand of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ops import deploy, pyinfra_run
from ops.errors import DONE, FAILED, REFUSED
from tests.unit.ops.conftest import ROOT

DEPLOY = """
import shlex
from pathlib import Path
from pyinfra.api import OperationError, StringCommand, deploy, operation
from deploys.lib import findings

@operation()
def has(path, text):
    if not Path(path).exists():
        findings.report(f"{{path}} is missing")
        yield StringCommand(f"printf '%s' {{shlex.quote(text)}} >{{path}}")

@operation()
def fails():
    yield "echo 'the disk is full: free some.' >&2; false"

    if Path(path).exists():
        yield "true"

@deploy("Host is fit for a deploy")
def preflight():
    fails(name="Disk")

{body}
"""

Runner = Callable[..., pyinfra_run.Run]


@pytest.fixture
def pyinfra(tmp_path: Path) -> Runner:
    def run(body: str, **options: object) -> pyinfra_run.Run:
        inventory, site = tmp_path / "here.py", tmp_path / "site.py"
        inventory.write_text('here = ["@local"]\n')
        site.write_text(DEPLOY.format(body=body))
        return pyinfra_run.run(inventory, ["@local"], site=site, **options)  # type: ignore[arg-type]

    return run


def test_counts_what_changed_and_reports_nothing_the_second_time(pyinfra: Runner, tmp_path: Path) -> None:
    target = tmp_path / "made"
    steps: list[pyinfra_run.Step] = []
    first = pyinfra(f'has(name="File | made", path={str(target)!r}, text="a")', on_step=steps.append)
    assert target.read_text() == "a"
    assert first.ok
    assert first.hosts["@local"] == pyinfra_run.HostRun(changed=1, failed=0)
    assert first.findings == [pyinfra_run.Finding("@local", "File | made", f"{target} is missing")]
    assert [(step.host, step.operation, step.outcome) for step in steps] == [("@local", "File | made", "changed")]
    assert deploy.exit_code(first) == DONE
    second = pyinfra(f'has(name="File | made", path={str(target)!r}, text="a")')
    assert second.ok
    assert second.changed == 0
    assert second.findings == []


def test_dry_run_names_the_difference_and_leaves_it(pyinfra: Runner, tmp_path: Path) -> None:
    target = tmp_path / "made"
    result = pyinfra(f'has(name="File", path={str(target)!r}, text="a")\nfails(name="Other")', dry=True)
    assert not target.exists()
    assert result.ok
    assert deploy.differences(result) == [
        deploy.Difference("@local", "File", f"{target} is missing"),
        deploy.Difference("@local", "Other", "would change"),
    ]


def test_failing_operation_is_told_with_its_own_words(pyinfra: Runner, tmp_path: Path) -> None:
    target = tmp_path / "made"
    steps: list[pyinfra_run.Step] = []
    result = pyinfra(f'has(name="File", path={str(target)!r}, text="a")\nfails(name="Disk")', on_step=steps.append)
    assert result.problems == ["@local: Disk: the disk is full: free some."]
    assert result.hosts["@local"] == pyinfra_run.HostRun(changed=1, failed=1)
    assert (steps[-1].outcome, steps[-1].detail) == ("failed", "the disk is full: free some.")
    assert deploy.exit_code(result) == FAILED


def test_what_the_preflight_stops_counts_as_refused(pyinfra: Runner) -> None:
    result = pyinfra("preflight()")
    assert result.problems == ["@local: Host is fit for a deploy | Disk: the disk is full: free some."]
    assert deploy.exit_code(result) == REFUSED


def test_the_preflight_of_the_deploys_is_called_what_we_think_it_is() -> None:
    assert f'@deploy("{deploy.PREFLIGHT}")' in (ROOT / "deploys" / "base.py").read_text()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('raise OperationError("setting x is wrong: mend it.")', "setting x is wrong: mend it."),
        ("from deploys.lib.secrets import SecretError\nraise SecretError('no secret y: add it.')", "no secret y: add it."),
        ("1 / 0", "the deploy broke off with ZeroDivisionError: division by zero: run it again with -v for the whole log."),
    ],
)
def test_a_deploy_that_breaks_off_before_it_begins_touched_nothing(pyinfra: Runner, body: str, says: str) -> None:
    result = pyinfra(body)
    assert result.problems == [says]
    assert deploy.exit_code(result) == REFUSED


def test_host_that_does_not_answer_is_told_once(tmp_path: Path) -> None:
    inventory, site = tmp_path / "there.py", tmp_path / "site.py"
    inventory.write_text('there = [("gone", {"ssh_hostname": "127.0.0.1", "ssh_port": 1})]\n')
    site.write_text("")
    result = pyinfra_run.run(inventory, ["gone"], site=site)
    (problem,) = result.problems
    assert problem.startswith("gone cannot be reached over SSH")
    assert "port 1" in problem
    assert deploy.exit_code(result) == REFUSED


def test_limit_leaves_the_other_hosts_alone(tmp_path: Path) -> None:
    inventory, site, target = tmp_path / "both.py", tmp_path / "site.py", tmp_path / "made"
    inventory.write_text('both = ["@local", ("gone", {"ssh_hostname": "127.0.0.1", "ssh_port": 1})]\n')
    site.write_text(DEPLOY.format(body=f'has(name="File", path={str(target)!r}, text="a")'))
    result = pyinfra_run.run(inventory, ["@local", "gone"], limit=["@local"], site=site)
    assert result.ok
    assert list(result.hosts) == ["@local"]
    assert target.exists()


def test_conditional_and_hidden_differences() -> None:
    result = pyinfra_run.Run(
        {"a": pyinfra_run.HostRun(), "b": pyinfra_run.HostRun()},
        findings=[pyinfra_run.Finding("b", "Check", "service is down"), pyinfra_run.Finding("a", "Write", "x differs")],
        plan=json.loads(
            '[{"names": ["Write"], "hosts_with_change": ["a"], "hosts_with_conditional_change": []},'
            ' {"names": ["Restart"], "hosts_with_change": [], "hosts_with_conditional_change": ["a", "b"]}]'
        ),
    )
    assert deploy.differences(result) == [
        deploy.Difference("a", "Write", "x differs"),
        deploy.Difference("a", "Restart", "would change", conditional=True),
        deploy.Difference("b", "Restart", "would change", conditional=True),
        deploy.Difference("b", "Check", "service is down"),
    ]


def test_data_of_one_run_reaches_the_deploy_as_it_was_given(pyinfra: Runner, tmp_path: Path) -> None:
    target = tmp_path / "lost"
    body = f'from pyinfra import host\nhas(name="File", path={str(target)!r}, text=",".join(host.data.get("etcd_lost", ["nobody"])))'
    assert pyinfra(body, data={"etcd_lost": ["vps2", "vps3"]}).ok
    assert target.read_text() == "vps2,vps3"
