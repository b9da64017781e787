"""Change events under way: who causes them, from outside, and what the stores that they lead to say, each asked by its own client.

A change of an agent carries a number that only grows, in a hormone level and in its role: Redis has the one, Neo4j the other. What agents
publish themselves goes to Kafka: figures of consciousness, one row each, and heartbeats.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
import redis
from confluent_kafka import KafkaError, Message, Producer
from neo4j.exceptions import DriverError, Neo4jError
from phoenix_stream.neo4j_driver import connect

from deploys.lib.pki import CERTIFICATE_SECRET
from deploys.lib.secrets import SecretStore
from deploys.lib.settings import HostSettings, KafkaSettings, Neo4jSettings, Platform, RedisSettings
from tests.drills.machines import DrillError, wait_for_none
from tests.envelopes import envelope

STEP = 1e-6
"""A level is the change's number times this: numbers up to two million stay below the highest level, 2."""

Seen = dict[str, int]
"""By agent: the number of the newest change that a store has."""


class Stores:
    """The stores that follow, as this computer reaches them. Each answer is a DrillError while the store is away."""

    def __init__(self, platform: Platform, directory: Path) -> None:
        """`directory` is private to the caller and gets the authority's certificate."""
        self._secrets = SecretStore.load(platform.secrets_file)
        self._authority = directory / "authority.crt"
        self._authority.write_text(self._secrets.get(CERTIFICATE_SECRET), encoding="utf-8")
        cache, graph, broker = (platform.group(name)[0] for name in ("redis", "neo4j", "kafka"))
        self._redis = redis.Redis(
            host=cache[HostSettings].address,
            port=cache[RedisSettings].port,
            username="agent",
            password=self._secrets.get("redis/agent"),
            ssl=True,
            ssl_ca_certs=str(self._authority),
            decode_responses=True,
            socket_timeout=3,
            socket_connect_timeout=3,
        )
        self._neo4j = connect(
            uri=f"bolt://{graph[HostSettings].address}:{graph[Neo4jSettings].port}",
            user="neo4j",
            password=self._secrets.get("neo4j/neo4j"),
            ca=str(self._authority),
        )
        self._brokers = f"{broker[HostSettings].address}:{broker[KafkaSettings].client_port}"

    def levels(self, agents: Sequence[str]) -> Seen:
        """What Redis has. Raises DrillError."""
        try:
            pipe = self._redis.pipeline(transaction=False)
            for agent in agents:
                pipe.hget(f"hormone:{{{agent}}}", "dopamine")
            answers = pipe.execute()
        except redis.RedisError as error:
            raise DrillError(f"Redis: {error}") from error
        return {agent: round(float(level) / STEP) for agent, level in zip(agents, answers, strict=True) if level is not None}

    def roles(self, agents: Sequence[str]) -> Seen:
        """What Neo4j has. Raises DrillError."""
        asked = "UNWIND $ids AS id MATCH (a:Agent {id: id}) RETURN a.id AS id, a.role AS role"
        try:
            # Without bookmarks, and without the driver's own patience: whoever asks tries again.
            with self._neo4j.session(bookmark_manager=None) as session:
                rows = session.run(asked, ids=list(agents)).data()
        except (DriverError, Neo4jError, OSError) as error:
            raise DrillError(f"Neo4j: {error}") from error
        return {row["id"]: int(row["role"].rpartition(" ")[2]) for row in rows}

    def producer(self) -> Producer:
        """Of an agent. What it cannot deliver within two minutes is not acknowledged."""
        return Producer(
            {
                "bootstrap.servers": self._brokers,
                "security.protocol": "SASL_SSL",
                "ssl.ca.location": str(self._authority),
                "sasl.mechanism": "SCRAM-SHA-512",
                "sasl.username": "agent",
                "sasl.password": self._secrets.get("kafka/agent"),
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 2,
                "delivery.timeout.ms": 120_000,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )

    def close(self) -> None:
        """End all connections."""
        self._redis.close()
        self._neo4j.close()


def add_agents(conn: psycopg.Connection[Any], agents: Sequence[str], what: str) -> None:
    """Agents with these ids, each at change 0; their names and roles begin with `what`."""
    conn.cursor().executemany(
        "INSERT INTO phoenix.agents (id, codename, team, role, hormone_levels, consciousness_vector) "
        'VALUES (%s, %s, \'iota\', %s, \'{"dopamine": 0, "oxytocin": 1, "adrenaline": 1, "cortisol": 0.3}\', \'{}\')',
        [(agent, f"{what} {agent}", f"{what} 0") for agent in agents],
    )


def remove_agents(conn: psycopg.Connection[Any], agents: Sequence[str]) -> None:
    """They are gone."""
    conn.execute("DELETE FROM phoenix.agents WHERE id = ANY (%s::uuid[])", [list(agents)])


@dataclass
class Traffic:
    """Agents of its own that change, `rate` times a second, and publish, while the `with` lasts; they are gone afterwards.

    `ways` are conninfos that lead to whoever takes writes.
    """

    ways: Sequence[str]
    stores: Stores
    rate: int = 50
    agents: list[str] = field(default_factory=lambda: [str(uuid.uuid4()) for _ in range(50)])
    number: int = 0
    """Of the newest change; its commit is known."""
    figures: dict[datetime, int] = field(default_factory=dict)
    """Of consciousness: those that Kafka has acknowledged, by their time, with the number that they carry."""
    beats: dict[str, datetime] = field(default_factory=dict)
    """Of each agent: the newest heartbeat that Kafka has acknowledged."""

    def __post_init__(self) -> None:
        self._began = datetime.now(UTC)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._change, self._publish)]

    def __enter__(self) -> Self:
        with self._database() as conn:
            add_agents(conn, self.agents, "drill")
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.rest()
        with self._database() as conn:
            conn.execute("DELETE FROM phoenix.consciousness_timeline WHERE team IS NULL AND time = ANY (%s)", [list(self.figures)])
            remove_agents(conn, self.agents)

    def rest(self) -> None:
        """No more of it from now on; what is under way is acknowledged, or has failed."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def truth(self) -> Seen:
        """What the database has: of each agent the number of its newest change. Raises DrillError when level and role differ."""
        asked = "SELECT id::text, (hormone_levels ->> 'dopamine')::float8, role FROM phoenix.agents WHERE id = ANY (%s::uuid[])"
        with self._database() as conn:
            rows = conn.execute(asked, [self.agents]).fetchall()
        found = {agent: round(level / STEP) for agent, level, _ in rows}
        if found != {agent: int(role.rpartition(" ")[2]) for agent, _, role in rows}:
            raise DrillError("half a change is committed")
        return found

    def newest_figure(self) -> int:
        """The number of the newest figure of consciousness that the database has. Raises DrillError."""
        asked = "SELECT max(global_consciousness) FROM phoenix.consciousness_timeline WHERE team IS NULL AND time >= %s"
        with self._database() as conn:
            row = conn.execute(asked, [self._began]).fetchone()
        return int(row[0] or 0) if row else 0

    def missing(self) -> list[str]:
        """What was acknowledged and is not where it belongs, a line each. Ask after `rest`, and again while events are under way."""
        truth, found = self.truth(), []
        for store, seen in (("Redis", self.stores.levels(self.agents)), ("Neo4j", self.stores.roles(self.agents))):
            behind = [agent for agent, number in truth.items() if seen.get(agent) != number]
            found += [f"{store}: {agent} at {seen.get(agent)}, not {truth[agent]}" for agent in behind]
        kept = "SELECT time FROM phoenix.consciousness_timeline WHERE team IS NULL AND time = ANY (%s)"
        alive = "SELECT id::text, last_heartbeat FROM phoenix.agents WHERE id = ANY (%s::uuid[])"
        with self._database() as conn:
            rows, heard = conn.execute(kept, [list(self.figures)]).fetchall(), conn.execute(alive, [self.agents]).fetchall()
        found += [f"consciousness: {self.figures[at]} of {at}" for at in sorted(self.figures.keys() - {row[0] for row in rows})]
        last = dict(heard)
        found += [f"heartbeat: {agent} at {last.get(agent)}, not {at}" for agent, at in self.beats.items() if last.get(agent) != at]
        return found

    def _database(self) -> psycopg.Connection[Any]:
        problem: Exception | None = None
        for way in self.ways:
            try:
                return psycopg.connect(way, autocommit=True, connect_timeout=20)
            except psycopg.Error as error:
                problem = error
        raise DrillError(f"PostgreSQL: {problem}")

    def _change(self) -> None:
        """One agent after the other, each change in a transaction of its own."""
        level = "jsonb_set(hormone_levels, '{dopamine}', to_jsonb(%s::float8))"
        statement = f"UPDATE phoenix.agents SET hormone_levels = {level}, role = %s WHERE id = %s"
        while not self._over.is_set():
            with suppress(psycopg.Error, DrillError), self._database() as conn:
                while not self._over.is_set():
                    number = self.number + 1
                    conn.execute(statement, [number * STEP, f"drill {number}", self.agents[number % len(self.agents)]])
                    self.number = number
                    time.sleep(1 / self.rate)

    def _publish(self) -> None:
        """A figure and a heartbeat at a time, half as many as there are changes."""
        producer, number = self.stores.producer(), 0
        while not self._over.is_set():
            number += 1
            # A time for each: rows are told apart by it.
            now, agent = datetime.now(UTC), self.agents[number % len(self.agents)]
            figure = {"time": now.isoformat(), "global_consciousness": number, "global_trust": 0.5, "team": None}
            beat = {"agent_id": agent, "current_task": None, "idle_since": None}
            for topic, key, data, delivered in (
                ("consciousness.update", "federation", figure, self._noted(now, number)),
                ("agent.heartbeat", agent, beat, self._heard(agent, now)),
            ):
                producer.produce(topic, envelope(topic, data, at=now), key, on_delivery=delivered)
            producer.poll(0)
            time.sleep(2 / self.rate)
        producer.flush(130)

    def _noted(self, at: datetime, number: int) -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                self.figures[at] = number

        return delivered

    def _heard(self, agent: str, at: datetime) -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                self.beats[agent] = max(at, self.beats.get(agent, at))

        return delivered


def settled(traffic: Traffic, *, seconds: float = 120) -> float:
    """Seconds until nothing of a `traffic` that rests is missing anywhere. Raises DrillError, with what is missing."""
    return wait_for_none(traffic.missing, seconds=seconds, what="everything that was acknowledged has arrived")
