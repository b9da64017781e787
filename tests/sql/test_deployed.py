"""The same assertions on the database that the deploy left, on whichever host leads. Each file is a transaction that is rolled back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploys.lib.settings import ROOT, load
from tests.sql.conftest import TESTS, check_tap, lab_machine, tap_script
from tests.sql.server import Machine


@pytest.fixture(scope="module")
def deployed() -> Machine:
    """The member of the lab's cluster that leads."""
    if not os.environ.get("PHOENIX_TEST_SHELL"):
        members = [host.name for host in load(ROOT / "inventory" / "lab.py").group("postgresql") if "region2" not in host.groups]
        for machine in filter(None, map(lab_machine, members)):
            if psql(machine, "SELECT pg_is_in_recovery()") == ["f"]:
                return machine
    if os.environ.get("PHOENIX_TEST_REQUIRE_LAB"):
        pytest.fail("no leader of the lab's cluster answers over SSH: run 'make up'")
    pytest.skip("no leader of the lab's cluster answers over SSH: run 'make up'")


def psql(machine: Machine, script: str) -> list[str]:
    """Lines that psql prints for a script, as the superuser."""
    return machine.as_postgres(["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", "phoenix", "-f", "-"], stdin=script).splitlines()


@pytest.mark.parametrize("test", TESTS, ids=lambda path: path.stem)
def test_deployed_schema(deployed: Machine, pgtap: str, test: Path) -> None:
    check_tap(psql(deployed, tap_script(pgtap, test)))


def test_every_migration_is_in_the_history_with_its_phase(deployed: Machine) -> None:
    sql = TESTS[0].parents[1]
    files = [path.name.split("__")[0].removeprefix("V") for path in (*sql.glob("V*__*.sql"), *sql.glob("cypher/V*__*.cypher"))]
    shown = psql(
        deployed, "SELECT version || ' ' || fibonacci_phase FROM phoenix.schema_version WHERE applied_at <= now() + INTERVAL '1 minute'"
    )
    assert sorted(shown) == sorted(f"{version} {version.split('.')[0]}" for version in files)
