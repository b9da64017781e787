"""What is repaired of a role, and by which SQL: a table of everything somebody could have done to it by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from deploys.lib import scram
from deploys.lib.generated import POSTGRESQL_LOGINS
from deploys.postgresql.psql import identifier, literal
from deploys.postgresql.roles import RESERVED_CONNECTIONS, ROLES, Role, limited, repairs

PASSWORD = "a-good_password"
ROLE = Role("probe", connections=10, member_of=("readers",), settings={"statement_timeout": "10s"})
VERIFIER = scram.verifier(PASSWORD)
MEMBER = {"inherit": True, "set": True, "admin": False}


def present(**differing: Any) -> dict[str, Any]:
    """A row of the catalogue for ROLE as it has to be, but for what differs."""
    return {
        "login": True,
        "replication": False,
        "connections": 10,
        "verifier": VERIFIER,
        "powers": False,
        "bypass_rls": False,
        "member_of": {"readers": MEMBER},
        "settings": ["statement_timeout=10s"],
        "elsewhere": [],
        **differing,
    }


def test_a_role_as_described_needs_nothing() -> None:
    assert repairs(ROLE, present(), password=PASSWORD) == []


@pytest.mark.parametrize(
    ("differing", "what", "sql"),
    [
        (
            {"powers": True},
            "has other attributes",
            "NOSUPERUSER NOCREATEDB NOCREATEROLE INHERIT LOGIN NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 10",
        ),
        ({"bypass_rls": True}, "has other attributes", "NOBYPASSRLS"),
        ({"login": False}, "has other attributes", "INHERIT LOGIN NOREPLICATION"),
        ({"replication": True}, "has other attributes", "NOREPLICATION"),
        ({"connections": -1}, "has other attributes", "CONNECTION LIMIT 10"),
        ({"verifier": scram.verifier("another")}, "has another password", 'ALTER ROLE "probe" PASSWORD \'SCRAM-SHA-256$'),
        ({"verifier": None}, "has another password", "PASSWORD 'SCRAM-SHA-256$"),
        ({"verifier": "md5a3556571e93b0d20722ba62be61e8c2d"}, "has another password", "PASSWORD 'SCRAM-SHA-256$"),
        ({"member_of": {}}, "is not in readers", 'GRANT "readers" TO "probe" WITH INHERIT TRUE, SET TRUE, ADMIN FALSE;'),
        ({"member_of": {"readers": {**MEMBER, "admin": True}}}, "is in readers with other options", "ADMIN FALSE;"),
        ({"member_of": {"readers": {**MEMBER, "inherit": False}}}, "is in readers with other options", "INHERIT TRUE"),
        (
            {"member_of": {"readers": MEMBER, "pg_write_all_data": MEMBER}},
            "is in pg_write_all_data",
            'REVOKE "pg_write_all_data" FROM "probe";',
        ),
        (
            {"settings": []},
            "has other session defaults",
            'ALTER ROLE "probe" RESET ALL; ALTER ROLE "probe" SET "statement_timeout" = \'10s\';',
        ),
        ({"settings": ["statement_timeout=10s", "search_path=evil"]}, "has other session defaults", 'ALTER ROLE "probe" RESET ALL;'),
        (
            {"elsewhere": ["phoenix"]},
            "has session defaults of its own in phoenix",
            'ALTER ROLE "probe" IN DATABASE "phoenix" RESET ALL;',
        ),
    ],
)
def test_what_differs_is_named_and_mended_alone(differing: dict[str, Any], what: str, sql: str) -> None:
    ((found, statement),) = repairs(ROLE, present(**differing), password=PASSWORD)
    assert found == what
    assert sql in statement
    assert PASSWORD not in statement


def test_a_missing_role_is_made_first_and_then_given_everything() -> None:
    found = repairs(ROLE, None, password=PASSWORD)
    assert [what for what, _ in found] == [
        "is missing",
        "has other attributes",
        "has another password",
        "is not in readers",
        "has other session defaults",
    ]
    assert found[0][1] == 'CREATE ROLE "probe";'


def test_a_role_without_login_gets_no_password() -> None:
    role = Role("probe", login=False)
    assert [what for what, _ in repairs(role, None, password=None)] == ["is missing", "has other attributes"]


def test_the_schemas_owner_is_the_board_only_when_it_says_so() -> None:
    (owner,) = [role for role in ROLES if role.name == "phoenix_owner"]
    statements = [sql for _, sql in repairs(owner, None, password=None)]
    assert 'GRANT "phoenix_board" TO "phoenix_owner" WITH INHERIT FALSE, SET TRUE, ADMIN FALSE;' in statements


def test_a_password_that_somebody_gave_a_background_role_goes() -> None:
    (repair,) = repairs(replace(ROLE, password=False), present(), password=None)
    assert repair == ("has a password", 'ALTER ROLE "probe" PASSWORD NULL;')
    assert repairs(replace(ROLE, password=False), present(verifier=None), password=None) == []


def test_every_login_has_a_generated_password_and_nobody_else_has() -> None:
    assert sorted(POSTGRESQL_LOGINS) == sorted(role.name for role in ROLES if role.login and role.password)


def test_groups_come_before_their_members() -> None:
    names = [role.name for role in ROLES]
    for role in ROLES:
        assert all(group.startswith("pg_") or names.index(group) < names.index(role.name) for group in role.member_of)


def test_text_and_names_cannot_leave_their_quotes() -> None:
    assert literal("a'; DROP ROLE x; --") == "'a''; DROP ROLE x; --'"
    assert identifier('a"; DROP ROLE x; --') == '"a""; DROP ROLE x; --"'


@pytest.mark.parametrize("max_connections", [20, 200, 1000])
def test_agents_and_the_public_together_leave_connections_for_architect(max_connections: int) -> None:
    limits = [limited(role, max_connections).connections for role in ROLES if role.connection_share is not None]
    assert len(limits) == 2
    assert all(limit >= 3 for limit in limits)
    assert sum(limits) <= max_connections - RESERVED_CONNECTIONS - 3
