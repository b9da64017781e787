"""Which servers the schema is tested on.

full  the PostgreSQL of the lab's vps1 with all extensions (a throwaway cluster from its packages, over SSH)
pg16  a PostgreSQL 16 on this computer, prebuilt, without most extensions: what needs a missing one is skipped by its name, nothing else
pg18  the same with PostgreSQL 18

`PHOENIX_TEST_SHELL` names another place for `full`: an argv that takes a shell script as its last word, whose loopback is ours.
Without either, the tests of `full` are skipped; with `PHOENIX_TEST_REQUIRE_LAB` set they fail.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from lab.config import Lab
from tests.exporter.cluster import find_binaries
from tests.sql.server import Machine, Server, required, running

LAB_HOST = "vps1"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "requires(*names): skipped where the server lacks one of these extensions")


def lab_machine(name: str = LAB_HOST) -> Machine | None:
    """That machine of the lab when it answers, else None."""
    config = Lab.from_environment().paths.ssh_config
    if not config.exists():
        return None
    target = ("-F", str(config), name)
    if subprocess.run(["ssh", "-o", "BatchMode=yes", *target, "true"], capture_output=True, timeout=30, check=False).returncode:
        return None
    return Machine(("ssh", *target), "postgres", ("ssh", *target))


def full_machine() -> Machine:
    """Where PostgreSQL with all extensions is."""
    if shell := os.environ.get("PHOENIX_TEST_SHELL"):
        return Machine(tuple(shlex.split(shell)), "postgres")
    machine = lab_machine()
    if machine is None:
        if os.environ.get("PHOENIX_TEST_REQUIRE_LAB"):
            pytest.fail(f"the lab's {LAB_HOST} does not answer over SSH: run 'make up'")
        pytest.skip(f"the lab's {LAB_HOST} does not answer over SSH: run 'make up'")
    return machine


@pytest.fixture(scope="session", params=["full", "pg16", "pg18"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A cluster with the schema, once per session and kind."""
    if request.param == "full":
        machine = full_machine()
        binaries = machine.run("ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1")
    else:
        if os.geteuid() != 0:
            pytest.skip("starting a server as another user needs root")
        machine = Machine(("sh", "-c"), "nobody")
        binaries = str(find_binaries(request.param.removeprefix("pg")))
    with running(request.param, machine, binaries) as made:
        yield made


@pytest.fixture(autouse=True)
def _skip_by_name(request: pytest.FixtureRequest) -> None:
    marker = request.node.get_closest_marker("requires")
    if marker and "server" in request.fixturenames:
        made: Server = request.getfixturevalue("server")
        if missing := sorted(set(marker.args) - made.extensions):
            pytest.skip(f"PostgreSQL {made.version} here has no {', '.join(missing)}")


@pytest.fixture
def admin(server: Server) -> Iterator[psycopg.Connection]:
    """The superuser: the independent witness."""
    with server.connect() as conn:
        yield conn


@pytest.fixture
def agents(admin: psycopg.Connection) -> Callable[..., SimpleNamespace]:
    """Makes an agent with a token: `.id` and `.token`. Everything tests write is cut away before each test that asks for agents."""
    admin.execute("TRUNCATE phoenix.agents, phoenix.tasks, phoenix.opportunities CASCADE")

    def make(codename: str, team: str = "iota") -> SimpleNamespace:
        insert = "INSERT INTO phoenix.agents (codename, team, role, consciousness_vector) VALUES (%s, %s, 'scout', '{}') RETURNING id"
        agent = admin.execute(insert, [codename, team]).fetchone()
        assert agent
        token = admin.execute("SELECT phoenix.issue_agent_token(%s)", [agent[0]]).fetchone()
        assert token
        return SimpleNamespace(id=agent[0], token=token[0])

    return make


@pytest.fixture(scope="session")
def pgtap() -> str:
    """pgTAP's functions as SQL, from Debian's package of this computer's release: nothing is installed on any server."""
    cache = Path(os.environ.get("PHOENIX_CACHE", "/var/cache/phoenix"))
    if not (cached := cache / "pgtap.sql").exists():
        cache.mkdir(parents=True, exist_ok=True)
        work = cache / f"pgtap.{os.getpid()}"
        work.mkdir()
        try:
            listed = subprocess.run(
                ["apt-cache", "search", "--names-only", r"^postgresql-[0-9]+-pgtap$"], capture_output=True, text=True, check=True
            )
            packages = listed.stdout.split()
            if not packages:
                pytest.fail("Debian's package lists have no pgtap: run 'apt-get update'")
            subprocess.run(["apt-get", "-q", "download", packages[0]], cwd=work, capture_output=True, check=True, timeout=120)
            subprocess.run(["dpkg-deb", "-x", str(next(work.glob("*.deb"))), "x"], cwd=work, check=True)
            script = next(path for path in work.rglob("pgtap--*.sql") if re.fullmatch(r"pgtap--\d+\.\d+\.\d+\.sql", path.name))
            script.rename(cached)
        finally:
            shutil.rmtree(work)
    return cached.read_text(encoding="utf-8")


TESTS = sorted((Path(__file__).resolve().parents[2] / "sql" / "tests").glob("[0-9]*.sql"))


def tap_script(pgtap: str, test: Path) -> str:
    """One pgTAP file as one transaction that leaves nothing behind: pgTAP and the helpers are in it too."""
    helpers = (test.parent / "helpers.sql").read_text(encoding="utf-8")
    return (
        "BEGIN;\nSET LOCAL client_min_messages = warning;\nCREATE SCHEMA tap;\nGRANT USAGE ON SCHEMA tap TO PUBLIC;\n"
        f"SET LOCAL search_path = tap, phoenix, public;\n{pgtap}\n{helpers}\n{test.read_text(encoding='utf-8')}\nROLLBACK;\n"
    )


def check_tap(lines: list[str]) -> None:
    """Fails with pgTAP's own words unless every planned assertion was made and held."""
    planned = [int(match[1]) for line in lines if (match := re.fullmatch(r"1\.\.(\d+)", line))]
    good = sum(line.startswith("ok ") for line in lines)
    wrong = [line for line in lines if line.startswith(("not ok", "#"))]
    assert planned, f"no plan among {lines[-5:]}"
    assert good == planned[0], f"{good} of {planned[0]} held\n" + "\n".join(wrong)


__all__ = ["TESTS", "check_tap", "lab_machine", "required", "tap_script"]
