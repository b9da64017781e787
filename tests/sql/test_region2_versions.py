"""Publication, subscription, roles and guard as the deploy writes them, between two real servers of each version that is not the lab's.

Of 16 the slot is made beforehand, as Patroni makes its permanent ones. What a failover does to the slot is asked of the lab's hosts
(tests/hosts/test_region2.py).
"""

from __future__ import annotations

import os
import runpy
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import psycopg
import pytest

from deploys.lib import region2
from deploys.lib.settings import GROUP_DATA
from deploys.postgresql import publication, roles, subscription
from tests.exporter.cluster import UNPRIVILEGED, Cluster, running_cluster

DECLARED = region2.spelled(runpy.run_path(str(GROUP_DATA / "region2.py"))["region2_tables"])
PASSWORD = "a-password-of-the-test"


@dataclass
class Pair:
    """A publisher, its subscriber, and a superuser's session at each."""

    version: int
    home: psycopg.Connection[tuple[object, ...]]
    copy: psycopg.Connection[tuple[object, ...]]

    def arrives(self, query: str, wanted: object) -> None:
        """Wait until the copy answers `wanted`."""
        end = time.monotonic() + 60
        while (found := one(self.copy, query)) != wanted:
            if time.monotonic() > end:
                said = list(self.copy.execute("SELECT subname, apply_error_count, sync_error_count FROM pg_stat_subscription_stats"))
                pytest.fail(f"{query}: {found}, not {wanted} within 60 s; {said}")
            time.sleep(0.1)


def one(connection: psycopg.Connection[tuple[object, ...]], query: str) -> object:
    row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def prepared(cluster: Cluster, stack: ExitStack) -> psycopg.Connection[tuple[object, ...]]:
    """A session at `cluster`, which now decodes, and has the roles."""
    with cluster.admin() as connection:
        connection.execute("ALTER SYSTEM SET wal_level = logical")
    cluster.stop()
    cluster.start()
    session = stack.enter_context(cluster.admin())
    for role in roles.ROLES:
        if role.group == "region2":
            for _, sql in roles.repairs(role, None, password=PASSWORD if role.password else None):
                session.execute(sql.encode())
    return session


@pytest.fixture(scope="module", params=[16, 18])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    if os.geteuid() != 0:
        pytest.skip("starting a server as another user needs root")
    version = int(request.param)
    with ExitStack() as stack:
        publisher, subscriber = (stack.enter_context(running_cluster(str(version))) for _ in range(2))
        home, copy = prepared(publisher, stack), prepared(subscriber, stack)
        bare = {"granted": None, "granted_columns": None}
        for _, sql in publication.changes(
            DECLARED, {"publication": None, "published": {}, "tables": dict.fromkeys(DECLARED, bare), "enters": False}
        ):
            home.execute(sql.encode())
        if permanent := region2.permanent_slots(version, "phoenix"):
            ((name, slot),) = permanent.items()
            home.execute("SELECT pg_create_logical_replication_slot(%s, %s)", [name, slot["plugin"]])
        home.execute("INSERT INTO food_companies (name) VALUES ('before')")
        home.execute("INSERT INTO tasks (title) VALUES ('before')")
        for _, sql in subscription.guards(DECLARED, {"guard": None, "guarded": {}}):
            copy.execute(sql.encode())
        passfile = subscriber.directory / "pgpass"
        passfile.write_text(f"*:*:*:{region2.LOGIN}:{PASSWORD}\n")
        passfile.chmod(0o600)
        shutil.chown(passfile, UNPRIVILEGED, "nogroup")
        conninfo = (
            f"host=127.0.0.1 port={publisher.port} dbname=phoenix user={region2.LOGIN} passfile={passfile} options='-c row_security=off'"
        )
        for sql in subscription.create(conninfo, region2.subscription_options(version), own_slot=not permanent).split(";\n"):
            copy.execute(sql.encode())
        made = Pair(version, home, copy)
        made.arrives("SELECT count(*) FROM pg_subscription_rel WHERE srsubstate = 'r'", len(DECLARED))
        try:
            yield made
        finally:
            copy.execute("DROP SUBSCRIPTION region2")


def test_rows_under_row_security_are_in_the_initial_copy_and_arrive_later(pair: Pair) -> None:
    pair.arrives("SELECT count(*) FROM tasks WHERE title = 'before'", 1)
    pair.arrives("SELECT count(*) FROM food_companies WHERE name = 'before'", 1)
    pair.home.execute("INSERT INTO tasks (title) VALUES ('after')")
    pair.arrives("SELECT count(*) FROM tasks WHERE title = 'after' AND hot_score > 0", 1)


def test_what_reaches_a_person_stays_at_home(pair: Pair) -> None:
    pair.home.execute(
        "INSERT INTO personas (name, linkedin_url, email_encrypted, email_hash, email_key_id) "
        "VALUES ('Probe', 'https://example.org/in/probe', decode(repeat('01', 40), 'hex'), decode(repeat('ab', 32), 'hex'), 1)"
    )
    pair.arrives("SELECT num_nonnulls(linkedin_url, email_encrypted, email_hash, email_key_id) FROM personas WHERE name = 'Probe'", 0)
    pair.arrives("SELECT count(*) FROM persona_registry", one(pair.home, "SELECT count(*) FROM persona_registry"))


def test_nothing_else_writes_the_copy(pair: Pair) -> None:
    for sql in ("INSERT INTO food_companies (name) VALUES ('here')", "DELETE FROM tasks", "TRUNCATE task_votes"):
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="is a copy"):
            pair.copy.execute(sql.encode())


def test_a_truncate_is_followed_although_rows_reference_each_other(pair: Pair) -> None:
    pair.home.execute("INSERT INTO agents (codename, team, role, consciousness_vector) VALUES ('a', 'iota', 'scout', '{}')")
    pair.home.execute("INSERT INTO task_votes (task_id, agent_id, vote) SELECT t.id, a.id, 1 FROM tasks t, agents a")
    pair.arrives("SELECT count(*) > 0 FROM task_votes", True)
    pair.home.execute("TRUNCATE agents, tasks CASCADE")
    pair.arrives("SELECT (SELECT count(*) FROM agents) + (SELECT count(*) FROM tasks) + (SELECT count(*) FROM task_votes)", 0)
    pair.home.execute("INSERT INTO tasks (title) VALUES ('after the truncate')")
    pair.arrives("SELECT count(*) FROM tasks", 1)


def test_partitions_of_the_copy_are_its_own(pair: Pair) -> None:
    """A row of an old quarter finds the default partition here, and its own once the copy's job has made it."""
    pair.home.execute("INSERT INTO personas (name, created_at) VALUES ('Old', '2001-02-03 00:00+00')")
    pair.arrives("SELECT tableoid::regclass::text FROM personas WHERE name = 'Old'", "personas_default")
    pair.copy.execute("SELECT ensure_persona_partitions()")
    assert one(pair.copy, "SELECT tableoid::regclass::text FROM personas WHERE name = 'Old'") == "personas_2001_q1"
    pair.home.execute("UPDATE personas SET trust_score = 0.25 WHERE name = 'Old'")
    pair.arrives("SELECT trust_score FROM personas WHERE name = 'Old'", 0.25)


def test_the_copy_never_failed(pair: Pair) -> None:
    assert one(pair.copy, "SELECT apply_error_count + sync_error_count FROM pg_stat_subscription_stats") == 0


def test_a_login_that_row_security_applies_to_fails_instead_of_copying_less(pair: Pair, request: pytest.FixtureRequest) -> None:
    pair.home.execute("ALTER ROLE subscriber NOBYPASSRLS")
    request.addfinalizer(lambda: pair.home.execute("ALTER ROLE subscriber BYPASSRLS"))
    pair.home.execute("SET ROLE subscriber")
    request.addfinalizer(lambda: pair.home.execute("RESET ROLE"))
    pair.home.execute("SET row_security = off")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        pair.home.execute("SELECT count(*) FROM phoenix.tasks")
