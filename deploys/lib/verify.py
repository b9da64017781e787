"""Checks at the end of a deploy: it ends green only when the service answers. A check that passes is not a change."""

from __future__ import annotations

from pyinfra import context, host
from pyinfra.api import operation

from deploys.lib import facts, findings
from deploys.lib.operations import Commands, refusal


@operation()
def answers(script: str, *, seconds: int, problem: str, at_work: str = "false") -> Commands:
    """The shell `script` succeeds within `seconds`; otherwise the host fails with `problem` (the thing, the reason, the next step).

    As long as the shell `at_work` succeeds the seconds do not count: it says that what is waited for takes its time and goes on.
    """
    patience = seconds if context.state.is_executing else 0
    working = f"{{ {at_work}; }} >/dev/null 2>&1 && end=$(($(date +%s) + {patience})); " if patience else ""
    loop = (
        f"end=$(($(date +%s) + {patience})); until {{ {script}; }} >/dev/null 2>&1; do "
        f"{working}test $(date +%s) -lt $end || exit 1; sleep 0.5; done"
    )
    if host.get_fact(facts.Output, script=loop).endswith(facts.FAILED):
        findings.report(problem)
        yield refusal(problem)
