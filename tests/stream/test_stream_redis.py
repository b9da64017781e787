"""Hormone cascades on their way from Kafka to Redis."""

from __future__ import annotations

import random
import threading
import time
import uuid

import pytest
from confluent_kafka import Consumer

from tests.envelopes import envelope
from tests.stream.kit import DEAD, Broker, RedisServer, Worker, cascade
from tests.waiting import wait_until

TOPICS = ("hormone.cascade",)


def settled(broker: Broker, worker: Worker) -> None:
    wait_until(lambda: broker.lag(worker.group, TOPICS) == 0, 30, f"everything is committed\n{worker.said()}")


def held(store: RedisServer, agent: str) -> tuple[str, str]:
    levels = store.client().hgetall(f"hormone:{{{agent}}}")
    return levels["seq"], levels["dopamine"]


def test_newest_levels_by_seq_are_held_whatever_comes_late(hormones: Worker, broker: Broker, store: RedisServer) -> None:
    agent = str(uuid.uuid4())
    broker.send([cascade(agent, 10, 1.5), cascade(agent, 12, 1.7), cascade(agent, 11, 1.6)])
    settled(broker, hormones)
    assert held(store, agent) == ("12", "1.7")
    broker.send([cascade(agent, 9, 0.1)])
    settled(broker, hormones)
    assert held(store, agent) == ("12", "1.7")


def test_levels_that_are_none_are_set_aside(hormones: Worker, broker: Broker, store: RedisServer) -> None:
    agent = str(uuid.uuid4())
    topic, key, good = cascade(agent, 1, 1.1)
    broker.send(
        [
            (topic, key, envelope(topic, {"agent_id": agent, "levels": {"dopamine": 1}}, seq=2)),
            (topic, key, envelope(topic, {"agent_id": agent, "levels": None}, seq=3)),
            (topic, key, envelope(topic, {"agent_id": agent, "levels": dict.fromkeys(["dopamine"], "high")}, seq=4)),
            (topic, key, envelope(topic, {"agent_id": agent, "levels": {}})),
            (topic, key, good),
        ]
    )
    settled(broker, hormones)
    assert held(store, agent) == ("1", "1.1")
    assert sum(dict(m.headers() or [])["consumer"].decode() == hormones.group for m in broker.read(DEAD)) == 4


def test_nothing_is_lost_while_redis_is_away(hormones: Worker, broker: Broker, store: RedisServer) -> None:
    agents = [str(uuid.uuid4()) for _ in range(50)]
    store.stop()
    broker.send([cascade(random.choice(agents), n, n / 100) for n in range(1, 3000)])
    broker.send([cascade(agent, 5000 + n, 5.5) for n, agent in enumerate(agents)])
    wait_until(lambda: hormones.metrics().get('phoenix_stream_store_up{sink="redis"}') == 0, 20, "the worker says so")
    time.sleep(3)
    store.start()
    settled(broker, hormones)
    assert [held(store, agent) for agent in agents] == [(str(5000 + n), "5.5") for n in range(50)]


@pytest.mark.parametrize("kills", [5])
def test_kill_after_kill_ends_with_the_newest_levels(hormones: Worker, broker: Broker, store: RedisServer, kills: int) -> None:
    agents = [str(uuid.uuid4()) for _ in range(100)]
    newest: dict[str, tuple[str, str]] = {}
    done = threading.Event()

    def load() -> None:
        seq = 0
        while not done.is_set():
            batch = []
            for agent in random.sample(agents, 20):
                seq += 1
                level = round(random.uniform(0, 2), 3)
                batch.append(cascade(agent, seq, level))
                newest[agent] = (str(seq), repr(level))
            broker.send(batch)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for _ in range(kills):
            time.sleep(random.uniform(0.3, 1.0))
            hormones.kill()
            hormones.start()
            wait_until(lambda: hormones.total("phoenix_stream_events_total", 'outcome="applied"') > 0, 20, hormones.said())
    finally:
        done.set()
        thread.join()
    settled(broker, hormones)
    assert {agent: held(store, agent) for agent in newest} == newest


def test_a_worker_that_the_brokers_shut_out_ends_so_that_it_is_started_anew(hormones: Worker, broker: Broker, store: RedisServer) -> None:
    """They do it to one whose name has been taken, and sometimes after they were started anew themselves."""
    wait_until(lambda: hormones.total("phoenix_stream_partitions") > 0, 30, hormones.said())
    names = {"group.id": hormones.group, "group.instance.id": f"{hormones.group}-test"}
    other = Consumer({"bootstrap.servers": broker.address, "session.timeout.ms": 6000, "log_level": 0, **names})
    other.subscribe(list(TOPICS))
    try:
        wait_until(lambda: other.poll(0.1) is None and other.assignment(), 30, "the other has the partitions")
        assert hormones.process
        assert hormones.process.wait(30) == 1, hormones.said()
    finally:
        other.close()
    hormones.start()
    agent = str(uuid.uuid4())
    broker.send([cascade(agent, 1, 1.1)])
    settled(broker, hormones)
    assert held(store, agent) == ("1", "1.1")
