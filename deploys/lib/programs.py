"""Our own Python programs on a host: a user for each, its wheels, and an environment that holds exactly them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyinfra.api import operation

from deploys.lib import artifacts, facts, findings, hosts, wheels
from deploys.lib.ahead import Question, ask, asks
from deploys.lib.operations import Commands, upload

PACKAGES = ["python3-venv"]


def known(*, user: str, **_: Any) -> Question:
    """Whether the system has this user."""
    return facts.Output, {"script": f"id -u {user}"}


@asks(known)
@operation()
def account(user: str) -> Commands:
    """The system has this user, which nobody can log in as."""
    if ask(known(user=user)).endswith(facts.FAILED):
        findings.report(f"user {user} is missing")
        yield f"useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin {user}"


def installed(member: wheels.Member, home: str) -> str:
    """`home`/venv holds the program, for the present host's machine. Returns the file that changes when the program does."""

    def bundle() -> Path:
        return wheels.bundle(member, artifacts.cache(), python="3.13", platform=hosts.resources().machine)

    upload(name="Wheels", source=bundle, directory=f"{home}/wheels")
    environment(name="Environment of exactly these wheels", home=home, program=member.name)
    return f"{home}/venv/.phoenix-digest"


def _stamps(home: str) -> tuple[str, str]:
    return f"{home}/venv/.phoenix-digest", f"{home}/wheels/.phoenix-digest"


def _is_of_wheels(*, home: str, program: str, **_: Any) -> Question:
    stamp, wanted = _stamps(home)
    return facts.Output, {"script": f"cmp -s {stamp} {wanted} && test -x {home}/venv/bin/{program}"}


@asks(_is_of_wheels)
@operation()
def environment(home: str, program: str) -> Commands:
    """`venv` beside the wheels holds exactly what they hold; made anew, whole or not at all, when they change."""
    stamp, wanted = _stamps(home)
    if not ask(_is_of_wheels(home=home, program=program)).endswith(facts.FAILED):
        return
    findings.report(f"the environment of {program} is not of the present wheels")
    # A virtual environment knows its own path: it is built in place, and the stamp that makes it valid comes last.
    yield (
        f"set -e; rm -rf {home}/venv; python3 -m venv --without-scm-ignore-files {home}/venv; "
        f"{home}/venv/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --no-index --find-links {home}/wheels "
        f"--require-hashes -r {home}/wheels/requirements.txt; cp {wanted} {stamp}"
    )
