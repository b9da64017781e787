"""Redis ends equal to PostgreSQL, whatever happened on the way: real servers, random faults, and PostgreSQL's own decoding as the stream.

Every round is another one; a failure names its seed. PHOENIX_ROUNDS says how many (docs/decisions/0601-seq-in-a-rebuild.md).
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

import psycopg
import pytest
import redis
from phoenix_stream import hormones

from tests.exporter.cluster import Cluster

ROUNDS = int(os.environ.get("PHOENIX_ROUNDS", "8"))
AGENTS = 40
WRITERS = 3
LOAD_S = 1.2


class Stream:
    """The outbox, in commit order, written to Redis by a consumer that lags, repeats itself, and gets events sent twice."""

    def __init__(self, cluster: Cluster, port: int, seed: int) -> None:
        self._database = cluster.admin()
        self._client = redis.Redis(port=port, decode_responses=True)
        self._random = random.Random(seed)
        self._topic: list[hormones.Change] = []
        self._position = 0
        self._database.execute("SELECT pg_create_logical_replication_slot('outbox', 'test_decoding')")

    def step(self) -> bool:
        """Take what was committed, apply some of it. Whether there was anything to do."""
        changes = self._database.execute("SELECT data FROM pg_logical_slot_get_changes('outbox', NULL, 500)").fetchall()
        seqs = [int(found[1]) for (text,) in changes if (found := re.match(r"table phoenix\.outbox: INSERT: seq\[bigint\]:(\d+) ", text))]
        rows = {
            seq: hormones.change(data["agent_id"], seq, data["levels"], datetime.fromisoformat(at))
            for seq, data, at in self._database.execute(
                "SELECT seq, payload -> 'data', payload ->> 'occurred_at' FROM phoenix.outbox "
                "WHERE type = 'hormone.cascade' AND seq = ANY (%s)",
                [seqs],
            )
        }
        self._topic += [rows[seq] for seq in seqs if seq in rows]  # the topic has no events of others
        if self._topic and self._random.random() < 0.05:  # Connect was killed and sends again what it had not noted
            self._topic += self._topic[-self._random.randint(1, 100) :]
        if self._random.random() < 0.05:  # so was the worker
            self._position = max(0, self._position - self._random.randint(1, 200))
        some = self._topic[self._position : self._position + self._random.choice((1, 7, 500))]
        hormones.write(self._client, some)
        self._position += len(some)
        return bool(changes or some)

    def run(self, stop: threading.Event) -> None:
        """Go on until told to stop, at an uneven pace."""
        while not stop.is_set():
            if not self.step() or self._random.random() < 0.1:
                stop.wait(self._random.choice((0, 0.01, 0.1)))

    def drain(self) -> None:
        """Until nothing is left."""
        while self.step():
            pass

    def close(self) -> None:
        self._database.execute("SELECT pg_drop_replication_slot('outbox')")
        self._database.close()
        self._client.close()


def live(cluster: Cluster, seed: int, stop: threading.Event) -> None:
    """What happens in PostgreSQL: cascades, levels written by hand, agents that come, go and return; some transactions take their time."""
    chance = random.Random(seed)
    statements: list[tuple[str, Callable[[], list[object]]]] = [
        (
            "SELECT phoenix.cascade_hormone(%s, %s)",
            lambda: [chance.choice(hormones.HORMONES), chance.choice((-0.3, 0.1, 0.25))],
        ),
        (
            "UPDATE phoenix.agents SET hormone_levels = jsonb_set(hormone_levels, '{cortisol}', to_jsonb(%s::float8)) "
            "WHERE id = (SELECT id FROM phoenix.agents ORDER BY random() LIMIT 1)",
            lambda: [chance.random()],
        ),
        (
            "UPDATE phoenix.agents SET decommissioned_at = CASE WHEN decommissioned_at IS NULL THEN now() END "
            "WHERE id = (SELECT id FROM phoenix.agents ORDER BY random() LIMIT 1)",
            list,
        ),
        (
            "INSERT INTO phoenix.agents (codename, team, role, consciousness_vector) SELECT gen_random_uuid()::text, 'iota', 'scout', '{}'",
            list,
        ),
        ("DELETE FROM phoenix.agents WHERE id = (SELECT id FROM phoenix.agents ORDER BY random() LIMIT 1)", list),
    ]
    with cluster.admin() as connection:
        while not stop.is_set():
            with suppress(psycopg.errors.DeadlockDetected), connection.transaction():
                for _ in range(chance.choice((1, 1, 2))):
                    statement, values = chance.choices(statements, weights=(6, 10, 2, 1, 0.5))[0]
                    connection.execute(statement.encode(), values())
                if chance.random() < 0.1:
                    time.sleep(chance.random() * 0.1)


def damage(client: Any, chance: random.Random) -> None:
    """What happens to Redis."""
    keys = [hormones.key(name) for name in ("11111111-1111-4111-8111-111111111111",)] + sorted(client.keys("hormone:*"))
    some = chance.sample(keys, k=min(len(keys), 8))
    what = chance.randrange(5)
    if what == 0:
        client.flushall()
    elif what == 1:
        client.delete(*some)
    for key in some:
        if what == 2:
            client.hset(key, "seq", 10**9)
        elif what == 3:
            client.hset(key, mapping=dict.fromkeys(hormones.HORMONES, "9.5"))
        elif what == 4:
            client.hset(key, mapping={"seq": chance.randrange(10**6), "cortisol": "7"})


@contextmanager
def running(*works: Callable[[threading.Event], None]) -> Iterator[None]:
    """Each work in a thread of its own; what one raises is raised at the end."""
    stop, faults = threading.Event(), list[BaseException]()

    def kept(work: Callable[[threading.Event], None]) -> None:
        try:
            work(stop)
        except BaseException as fault:  # told at the end
            faults.append(fault)

    threads = [threading.Thread(target=kept, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if faults:
        raise faults[0]


@pytest.mark.parametrize("seed", random.SystemRandom().sample(range(10**6), ROUNDS))
def test_redis_ends_equal_to_postgresql(
    seed: int, cluster: Cluster, client: Any, database: psycopg.Connection[Any], redis_port: int
) -> None:
    chance = random.Random(seed)
    stream = Stream(cluster, redis_port, seed)

    def rebuilding(stop: threading.Event) -> None:
        with cluster.admin() as own, redis.Redis(port=redis_port, decode_responses=True) as its:
            while not stop.is_set():
                hormones.rebuild(its, own)
                stop.wait(chance.random() * 0.2)

    def comparing(stop: threading.Event) -> None:
        with cluster.admin() as own, redis.Redis(port=redis_port, decode_responses=True) as its:
            while not stop.is_set():
                hormones.check(its, own, settle_s=0.1, remove_gone=True)
                stop.wait(0.2)

    try:
        database.execute(
            "INSERT INTO phoenix.agents (codename, team, role, consciousness_vector) "
            "SELECT 'agent ' || i, 'iota', 'scout', '{}' FROM generate_series(1, %s) i",
            [AGENTS],
        )
        writers = [lambda stop, one=one: live(cluster, seed + one, stop) for one in range(WRITERS)]
        with running(*writers):
            with running(stream.run, rebuilding, rebuilding, comparing):
                until = time.monotonic() + LOAD_S
                while time.monotonic() < until:
                    if chance.random() < 0.3:
                        damage(client, chance)
                    if chance.random() < 0.05:
                        database.execute("DELETE FROM phoenix.outbox WHERE seq < (SELECT max(seq) - 300 FROM phoenix.outbox)")
                    time.sleep(0.05)
            # The last damage is done; PostgreSQL and the stream go on, and one rebuild has to suffice.
            with running(stream.run):
                damage(client, chance)
                hormones.rebuild(client, database)
                time.sleep(chance.random() * 0.2)
        stream.drain()
        found = hormones.check(client, database, settle_s=0, remove_gone=True)
        assert found.agents > 0
        assert [str(one) for one in found.differences] == [], f"seed {seed}"
        events = database.execute("SELECT count(*) FROM phoenix.outbox").fetchone()
        print(f"seed {seed}: {found.agents} agents, {len(stream._topic)} events through the stream, {events} in the outbox")
    finally:
        stream.close()
