"""Agents over real logins: what a hostile one can try with the shared role samurai_agent, also behind a transaction pooler."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import psycopg
import pytest

from tests.sql.server import Server

Agents = Callable[..., SimpleNamespace]


@pytest.fixture
def agent_login(server: Server, agents: Agents) -> Iterator[psycopg.Connection]:
    """One connection as samurai_agent, as a pooler would hand it to one agent after the other."""
    with server.connect("samurai_agent") as conn:
        yield conn


def titles(conn: psycopg.Connection) -> list[str]:
    return [row[0] for row in conn.execute("SELECT title FROM phoenix.tasks ORDER BY title")]


def act_as(conn: psycopg.Connection, agent: SimpleNamespace, token: str | None = None) -> bool:
    row = conn.execute("SELECT phoenix.act_as(%s, %s)", [agent.id, agent.token if token is None else token]).fetchone()
    return bool(row and row[0])


@pytest.fixture
def two(admin: psycopg.Connection, agents: Agents) -> tuple[SimpleNamespace, SimpleNamespace]:
    """Two agents with a task each."""
    ann, bob = agents("ann"), agents("bob")
    for agent, title in ((ann, "of ann"), (bob, "of bob")):
        admin.execute("INSERT INTO phoenix.tasks (title, created_by) VALUES (%s, %s)", [title, agent.id])
    return ann, bob


def test_an_identity_ends_with_its_transaction(agent_login: psycopg.Connection, two: tuple[SimpleNamespace, SimpleNamespace]) -> None:
    ann, bob = two
    for agent, expected in ((ann, ["of ann"]), (bob, ["of bob"])):
        with agent_login.transaction():
            assert act_as(agent_login, agent)
            assert titles(agent_login) == expected
        assert titles(agent_login) == []


def test_an_agent_cannot_read_anothers_tasks_by_claiming_its_id(
    agent_login: psycopg.Connection, two: tuple[SimpleNamespace, SimpleNamespace]
) -> None:
    ann, bob = two
    agent_login.execute("SELECT set_config('phoenix.agent_id', %s, false)", [str(bob.id)])
    assert titles(agent_login) == []
    agent_login.execute("SELECT set_config('phoenix.agent_token', %s, false)", [ann.token])
    assert titles(agent_login) == [], "ann's token with bob's id"
    with agent_login.transaction():
        assert not act_as(agent_login, bob, ann.token)
        assert titles(agent_login) == []
    with agent_login.transaction():
        assert act_as(agent_login, ann)
        agent_login.execute("SELECT set_config('phoenix.agent_id', %s, true)", [str(bob.id)])
        assert titles(agent_login) == [], "after a proper log-in"


@pytest.mark.parametrize("claim", ["", "x", "'; DROP TABLE tasks --", "00000000-0000-0000-0000-000000000000", "\N{SNOWMAN}" * 100])
def test_a_malformed_identity_is_nobody_and_no_error(agent_login: psycopg.Connection, claim: str) -> None:
    agent_login.execute("SELECT set_config('phoenix.agent_id', %s, false), set_config('phoenix.agent_token', %s, false)", [claim, claim])
    assert titles(agent_login) == []


def test_a_condition_with_a_side_effect_meets_no_hidden_row(
    agent_login: psycopg.Connection, two: tuple[SimpleNamespace, SimpleNamespace]
) -> None:
    ann, _ = two
    with agent_login.transaction():
        act_as(agent_login, ann)
        # Division fails only if the condition is evaluated on bob's row before row security hides it.
        assert agent_login.execute(
            "SELECT title FROM phoenix.tasks WHERE 1 / (CASE WHEN title = 'of bob' THEN 0 ELSE 1 END) = 1"
        ).fetchall() == [("of ann",)]


def test_agents_cannot_leave_their_role_or_read_credentials(agent_login: psycopg.Connection) -> None:
    for statement in (
        "SET ROLE phoenix_owner",
        "SET ROLE phoenix_board",
        "SET SESSION AUTHORIZATION architect",
        "SELECT * FROM phoenix.agent_credentials",
        "CREATE TEMPORARY TABLE tasks (id uuid)",
        "CREATE TABLE public.tasks (id uuid)",
        "CREATE FUNCTION phoenix.current_agent_id() RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'",
        "ALTER TABLE phoenix.tasks NO FORCE ROW LEVEL SECURITY",
        "SET session_replication_role = replica",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            agent_login.execute(statement.encode())


def test_switching_row_security_off_is_an_error_and_shows_nothing(agent_login: psycopg.Connection) -> None:
    agent_login.execute("SET row_security = off")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        titles(agent_login)


def test_revoked_expired_and_decommissioned_end_at_once(
    agent_login: psycopg.Connection, admin: psycopg.Connection, two: tuple[SimpleNamespace, SimpleNamespace], agents: Agents
) -> None:
    ann, bob = two
    with agent_login.transaction():
        assert act_as(agent_login, ann)
        assert titles(agent_login) == ["of ann"]
        admin.execute("SELECT phoenix.revoke_agent_tokens(%s)", [ann.id])
        assert titles(agent_login) == [], "in the middle of a transaction"
    with agent_login.transaction():
        assert not act_as(agent_login, ann)
    short = admin.execute("SELECT phoenix.issue_agent_token(%s, '300 ms')", [ann.id]).fetchone()
    assert short
    with agent_login.transaction():
        assert act_as(agent_login, ann, short[0])
        time.sleep(0.4)
        assert titles(agent_login) == [], "after it expired, in the same transaction"
    admin.execute("UPDATE phoenix.agents SET decommissioned_at = now() WHERE id = %s", [bob.id])
    with agent_login.transaction():
        assert not act_as(agent_login, bob)


def test_only_the_digest_of_a_token_is_stored(server: Server, agents: Agents) -> None:
    ann = agents("ann")
    assert len(bytes.fromhex(ann.token)) == 32
    assert (
        server.ask(
            "SELECT count(*) FROM phoenix.agent_credentials WHERE agent_id = %s AND token_sha256 = sha256(%s)", ann.id, ann.token.encode()
        )
        == 1
    )
    assert server.ask("SELECT count(*) FROM phoenix.agent_credentials c WHERE strpos(c::text, %s) > 0", ann.token) == 0


def test_public_api_reads_its_views_and_no_table(server: Server, two: tuple[SimpleNamespace, SimpleNamespace]) -> None:
    with server.connect("public_api") as conn:
        assert conn.execute("SELECT count(*) FROM public_task_board").fetchone() == (2,)
        for table in ("tasks", "personas", "agents", "opportunities", "consciousness_timeline", "federation_dashboard"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(f"SELECT * FROM phoenix.{table}".encode())
