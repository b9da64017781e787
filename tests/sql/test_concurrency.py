"""Figures that many writers change at once: votes, counters, claims, dependencies."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import psycopg
import pytest

from tests.sql.server import Server

Agents = Callable[..., SimpleNamespace]
THREADS = 20


def together(work: Callable[[int], None], threads: int = THREADS) -> None:
    """Run `work` in many threads that start at the same moment; the first failure is raised."""
    start = threading.Barrier(threads)

    def run(number: int) -> None:
        start.wait(30)
        work(number)

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(run, number) for number in range(threads)]:
            done.result(120)


def counts_of_votes(server: Server) -> int:
    """How many tasks tell other figures than their votes."""
    return int(
        server.ask(
            "SELECT count(*) FROM phoenix.tasks t LEFT JOIN (SELECT task_id, count(*) FILTER (WHERE vote = 1) AS up, "
            "count(*) FILTER (WHERE vote = -1) AS down FROM phoenix.task_votes GROUP BY 1) v ON v.task_id = t.id "
            "WHERE (t.upvotes, t.downvotes) IS DISTINCT FROM (coalesce(v.up, 0), coalesce(v.down, 0))"
        )
    )


def new_tasks(admin: psycopg.Connection, count: int) -> list[object]:
    rows = admin.execute("INSERT INTO phoenix.tasks (title) SELECT 'task ' || n FROM generate_series(1, %s) n RETURNING id", [count])
    return [row[0] for row in rows]


def test_votes_of_twenty_agents_at_once_are_all_counted(server: Server, admin: psycopg.Connection, agents: Agents) -> None:
    voters = [agents(f"voter {n}") for n in range(THREADS)]
    tasks = new_tasks(admin, 3)

    def vote(number: int) -> None:
        choose = random.Random(number)
        with server.connect("samurai_agent") as conn:
            for _ in range(25):
                with conn.transaction():
                    conn.execute("SELECT phoenix.act_as(%s, %s)", [voters[number].id, voters[number].token])
                    task = choose.choice(tasks)
                    if choose.random() < 0.2:
                        conn.execute("SELECT phoenix.retract_vote(%s)", [task])
                    else:
                        conn.execute("SELECT phoenix.vote_task(%s, %s)", [task, choose.choice((-1, 1))])

    together(vote)
    assert int(server.ask("SELECT count(*) FROM phoenix.task_votes")) > THREADS
    assert counts_of_votes(server) == 0


def test_statements_that_vote_on_several_tasks_do_not_deadlock(server: Server, admin: psycopg.Connection, agents: Agents) -> None:
    voters = [agents(f"voter {n}") for n in range(8)]
    tasks = new_tasks(admin, 20)

    def vote(number: int) -> None:
        choose = random.Random(number)
        with server.connect() as conn:
            for _ in range(20):
                voter, mixed = voters[number].id, choose.sample(tasks, 10)
                conn.execute(
                    "INSERT INTO phoenix.task_votes (task_id, agent_id, vote) SELECT t, %s, 1 FROM unnest(%s::uuid[]) t "
                    "ON CONFLICT DO NOTHING",
                    [voter, mixed],
                )
                conn.execute("UPDATE phoenix.task_votes SET vote = -vote WHERE agent_id = %s AND task_id = ANY(%s)", [voter, mixed])
                conn.execute("DELETE FROM phoenix.task_votes WHERE agent_id = %s AND task_id = ANY(%s)", [voter, mixed[:3]])

    together(vote, 8)
    assert counts_of_votes(server) == 0


def test_counters_are_exact_under_concurrency_and_survive_deletes(server: Server, admin: psycopg.Connection, agents: Agents) -> None:
    counters = "SELECT created, completed FROM phoenix.metrics_task_counters"
    before = admin.execute(counters).fetchone()

    def churn(number: int) -> None:
        with server.connect("architect") as conn:
            for turn in range(20):
                task = conn.execute("INSERT INTO phoenix.tasks (title) VALUES ('churn') RETURNING id").fetchone()
                assert task
                conn.execute("UPDATE phoenix.tasks SET status = 'complete' WHERE id = %s", task)
                if turn % 2:
                    conn.execute("DELETE FROM phoenix.tasks WHERE id = %s", task)
                if turn % 7 == number % 7:
                    conn.execute("SELECT phoenix.fold_task_ledger()")

    together(churn)
    after = admin.execute(counters).fetchone()
    assert before
    assert after
    assert (after[0] - before[0], after[1] - before[1]) == (THREADS * 20, THREADS * 20)
    assert server.ask("SELECT tasks FROM phoenix.metrics_task_status WHERE status = 'complete'") == THREADS * 10
    admin.execute("TRUNCATE phoenix.tasks CASCADE")
    assert admin.execute(counters).fetchone() == after
    assert server.ask("SELECT sum(tasks) FROM phoenix.metrics_task_status") == 0


def test_a_task_is_claimed_by_one_agent_only(server: Server, admin: psycopg.Connection, agents: Agents) -> None:
    crew = [agents(f"agent {n}") for n in range(THREADS)]
    task = new_tasks(admin, 1)[0]
    won: list[int] = []

    def claim(number: int) -> None:
        with server.connect("samurai_agent") as conn, conn.transaction():
            conn.execute("SELECT phoenix.act_as(%s, %s)", [crew[number].id, crew[number].token])
            row = conn.execute("SELECT phoenix.claim_task(%s)", [task]).fetchone()
            if row and row[0]:
                won.append(number)

    together(claim)
    assert len(won) == 1
    assert server.ask("SELECT assigned_to FROM phoenix.tasks WHERE id = %s", task) == crew[won[0]].id


def test_two_transactions_cannot_close_a_circle_of_dependencies(server: Server, admin: psycopg.Connection, agents: Agents) -> None:
    one, other = new_tasks(admin, 2)
    add = "INSERT INTO phoenix.task_dependencies (task_id, depends_on) VALUES (%s, %s)"
    with server.connect(autocommit=False) as first, ThreadPoolExecutor(1) as pool:
        first.execute(add, [one, other])

        def close_the_circle() -> None:
            with server.connect() as second:
                second.execute(add, [other, one])

        attempt = pool.submit(close_the_circle)
        with pytest.raises(TimeoutError):  # it waits for the first to end
            attempt.result(0.5)
        first.commit()
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
            attempt.result(30)


def test_the_same_persona_arriving_twice_at_once_is_stored_once(server: Server, admin: psycopg.Connection, agents: Agents) -> None:
    admin.execute("DELETE FROM phoenix.personas WHERE name = 'Twin'")
    refused: list[int] = []

    def insert(number: int) -> None:
        # Different quarters, so different partitions.
        with server.connect("architect") as conn:
            try:
                conn.execute(
                    "INSERT INTO phoenix.personas (name, created_at) "
                    "VALUES ('Twin', timestamptz '2025-10-02 00:00+00' + %s * INTERVAL '3 months')",
                    [number % 2 * 4],
                )
            except psycopg.errors.UniqueViolation:
                refused.append(number)

    together(insert)
    assert len(refused) == THREADS - 1
    assert server.ask("SELECT count(*) FROM phoenix.personas WHERE name = 'Twin'") == 1
