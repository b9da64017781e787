"""Nodes and edges on their way from Kafka to Neo4j, asked by plain Cypher of what a reader of the graph sees."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from neo4j import GraphDatabase
from neo4j.exceptions import AuthError, DriverError, ServiceUnavailable
from phoenix_stream.graph import EDGES, NODES, sweep
from phoenix_stream.neo4j_driver import connect

from tests.envelopes import envelope
from tests.stream.kit import DEAD, Broker, Neo4jServer, Worker
from tests.waiting import wait_until

TOPIC = "graph.changed"
Message = tuple[str, str, bytes]
Seen = dict[str, dict[str, Any]]


class Truth:
    """What PostgreSQL has, changed at random by its rules: an edge has two ends, and goes with either. It is told as by triggers."""

    def __init__(self, nodes: int = 30, seed: int | None = None) -> None:
        self.random = random.Random(seed)
        self.seq = 0
        self.ids = [(label, str(uuid.uuid4())) for label in NODES for _ in range(nodes)]
        self.nodes: dict[tuple[str, str], dict[str, Any]] = {}
        self.edges: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}

    def node(self, label: str, identity: str, **properties: Any) -> Message:
        self.nodes[label, identity] = properties
        return self._told(identity, {"op": "upsert", "node": label, "id": identity, "properties": properties})

    def edge(self, kind: str, start: str, end: str, distinct: str = "", **properties: Any) -> Message:
        edge = next(one for one in EDGES if one.type == kind)
        ends = {"edge": kind, "from_label": edge.start, "from": start, "to_label": edge.end, "to": end}
        data = {**ends, **({"distinct": distinct} if distinct else {})}
        key = "|".join(filter(None, (start, end, kind, distinct)))
        self.edges[key] = (data, properties)
        return self._told(key, {"op": "upsert", **data, "properties": properties})

    def without_edge(self, key: str) -> Message:
        data, _ = self.edges.pop(key)
        return self._told(key, {"op": "delete", **data})

    def without_node(self, label: str, identity: str) -> list[Message]:
        del self.nodes[label, identity]
        gone = [self.without_edge(key) for key in [one for one in self.edges if identity in one]]
        return [*gone, self._told(identity, {"op": "delete", "node": label, "id": identity})]

    def _told(self, key: str, data: dict[str, Any]) -> Message:
        self.seq += 1
        return TOPIC, key, envelope(TOPIC, data, seq=self.seq)

    def change(self) -> list[Message]:
        """One change, at random."""
        chance = self.random.random()
        if chance < 0.08 and self.nodes:
            return self.without_node(*self.random.choice(list(self.nodes)))
        if chance < 0.3 and self.edges:
            return [self.without_edge(self.random.choice(list(self.edges)))]
        if chance < 0.6:
            return [self.node(*self.random.choice(self.ids), name=str(self.random.random()), priority=self.random.randrange(9))]
        edge = self.random.choice(EDGES)
        ends = [[identity for label, identity in self.nodes if label == wanted] for wanted in (edge.start, edge.end)]
        if not all(ends):
            return []
        start, end = (self.random.choice(some) for some in ends)
        distinct = self.random.choice(("budget", "quality")) if edge.distinct else ""
        properties: dict[str, Any] = {"authority": distinct} if distinct else {"weight": self.random.random()}
        return [self.edge(edge.type, start, end, distinct, **properties)]

    def changes(self, number: int) -> list[Message]:
        return [message for _ in range(number) for message in self.change()]

    def seen(self) -> Seen:
        """What a reader of the graph has to see."""
        nodes = {f"{label} {identity}": properties for (label, identity), properties in self.nodes.items()}
        return nodes | {key: properties for key, (_, properties) in self.edges.items()}


def seen(neo4j: Neo4jServer) -> Seen:
    """What a reader of the graph sees; nothing is there twice."""
    with neo4j.client() as driver:
        found = [
            (f"{label} {identity}", {name: value for name, value in properties.items() if name not in ("id", "seq")})
            for label in NODES
            for identity, properties in driver.execute_query(f"MATCH (n:{label}) RETURN n.id, properties(n)").records
        ]
        edges = driver.execute_query("MATCH (a)-[r]->(b) RETURN a.id, b.id, type(r), r.authority, properties(r)").records
    found += [
        ("|".join(filter(None, ends)), {name: value for name, value in properties.items() if name != "seq"}) for *ends, properties in edges
    ]
    assert len(dict(found)) == len(found), "something is there twice"
    return dict(found)


def settled(broker: Broker, worker: Worker, seconds: float = 120) -> None:
    wait_until(lambda: broker.lag(worker.group, [TOPIC]) == 0, seconds, f"everything is committed\n{worker.said()}")


@pytest.fixture
def truth(request: pytest.FixtureRequest) -> Iterator[Truth]:
    """Another history each time; a failure names its seed."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    yield Truth(seed=seed)


def test_only_the_password_that_the_deploy_laid_out_is_taken_and_only_over_tls(neo4j: Neo4jServer) -> None:
    for wrong in ("neo4j", "wrong"):
        with connect(uri=neo4j.uri, user="neo4j", password=wrong, ca=neo4j.ca) as driver, pytest.raises(AuthError):
            driver.verify_connectivity()
    plain = GraphDatabase.driver(neo4j.uri, auth=("neo4j", neo4j.password), telemetry_disabled=True)
    with plain as driver, pytest.raises((DriverError, ServiceUnavailable)):
        driver.verify_connectivity()


def test_nodes_and_edges_appear_change_and_go(graph: Worker, broker: Broker, neo4j: Neo4jServer) -> None:
    truth = Truth()
    agent, task, persona, company = (str(uuid.uuid4()) for _ in range(4))
    # An edge may come before what it joins.
    first = [
        truth.edge("WORKING_ON", agent, task, started="2026-01-02T03:04:05.600000Z"),
        truth.edge("DECIDES_FOR", persona, company, "budget"),
        truth.edge("DECIDES_FOR", persona, company, "quality"),
        truth.edge("GENERATES_VALUE", task, company, amount=12.5),
    ]
    broker.send(first)
    settled(broker, graph)
    with neo4j.client() as driver:
        assert driver.execute_query("MATCH (n) WHERE n:Agent OR n:Task OR n:Persona OR n:Company RETURN count(n)").records[0][0] == 0
    broker.send(
        [
            truth.node("Agent", agent, codename="scout", team="iota", decommissioned=False),
            truth.node("Task", task, status="open", priority=3),
            truth.node("Persona", persona),
            truth.node("Company", company, name="Mill", sector=["flour", "bran"]),
        ]
    )
    settled(broker, graph)
    found = seen(neo4j)
    assert found.pop(f"{agent}|{task}|WORKING_ON")["started"].to_native() == datetime(2026, 1, 2, 3, 4, 5, 600000, UTC)
    assert found == {
        f"Agent {agent}": {"codename": "scout", "team": "iota", "decommissioned": False},
        f"Task {task}": {"status": "open", "priority": 3},
        f"Persona {persona}": {},
        f"Company {company}": {"name": "Mill", "sector": ["flour", "bran"]},
        f"{persona}|{company}|DECIDES_FOR|budget": {"authority": "budget"},
        f"{persona}|{company}|DECIDES_FOR|quality": {"authority": "quality"},
        f"{task}|{company}|GENERATES_VALUE": {"amount": 12.5},
    }
    broker.send(
        [
            truth.node("Task", task, status="complete"),
            truth.without_edge(f"{persona}|{company}|DECIDES_FOR|budget"),
            *truth.without_node("Agent", agent),
        ]
    )
    settled(broker, graph)
    assert seen(neo4j) == {
        f"Task {task}": {"status": "complete"},
        f"Persona {persona}": {},
        f"Company {company}": {"name": "Mill", "sector": ["flour", "bran"]},
        f"{persona}|{company}|DECIDES_FOR|quality": {"authority": "quality"},
        f"{task}|{company}|GENERATES_VALUE": {"amount": 12.5},
    }


def test_what_is_old_changes_nothing_and_brings_nothing_back(graph: Worker, broker: Broker, neo4j: Neo4jServer) -> None:
    truth = Truth()
    one, two, three = (str(uuid.uuid4()) for _ in range(3))
    agents = [truth.node("Agent", each, codename="old") for each in (one, two, three)]
    edges = [truth.edge("TRUSTS", one, two, score=0.1), truth.edge("TRUSTS", two, three, score=0.1)]
    newer = [truth.node("Agent", one, codename="new"), truth.edge("TRUSTS", one, two, score=0.9)]
    broker.send([*newer, *agents, *edges])
    settled(broker, graph)
    assert seen(neo4j) == truth.seen()
    gone = [truth.without_edge(f"{one}|{two}|TRUSTS"), *truth.without_node("Agent", three)]
    # The deletion of the edge of `three` is late: that of the node is enough.
    broker.send([gone[0], gone[-1]])
    settled(broker, graph)
    assert seen(neo4j) == truth.seen() == {f"Agent {one}": {"codename": "new"}, f"Agent {two}": {"codename": "old"}}
    broker.send([*edges, *newer, *agents, *gone, *edges])
    settled(broker, graph)
    assert seen(neo4j) == truth.seen()
    # The same id again is another matter.
    broker.send([truth.node("Agent", three, codename="again"), truth.edge("TRUSTS", two, three, score=0.5), *gone])
    settled(broker, graph)
    assert seen(neo4j) == truth.seen()
    broker.send([message for each in (one, two, three) for message in truth.without_node("Agent", each)])
    settled(broker, graph)
    assert seen(neo4j) == {}
    with neo4j.client() as driver:
        assert sweep(driver) == 0, "what is gone is remembered for days"
        assert sweep(driver, older_s=-60) == 5, "then forgotten: three nodes and two edges"
        assert driver.execute_query("MATCH (n) RETURN count(n)").records[0][0] == 0


def test_what_the_graph_cannot_take_is_set_aside_and_nothing_else(graph: Worker, broker: Broker, neo4j: Neo4jServer) -> None:
    truth = Truth()
    agent = str(uuid.uuid4())
    node = {"op": "upsert", "node": "Agent", "id": agent, "properties": {}}
    edge = {"op": "upsert", "edge": "TRUSTS", "from_label": "Agent", "from": agent, "to_label": "Agent", "to": agent, "properties": {}}
    wrong: list[dict[str, Any]] = [
        {**node, "op": "merge"},
        {**node, "node": "Robot"},
        {**node, "id": None},
        {**node, "properties": ["codename"]},
        {**node, "properties": {"address": {"city": "Bern"}}},
        {**node, "properties": {"sector": ["flour", 1]}},
        {**node, "properties": {"priority": 2**63}},
        {**node, "properties": {"seq": 99999}},
        {**edge, "edge": "ADMIRES"},
        {**edge, "to_label": "Task"},
        {**edge, "to": None},
        {**edge, "distinct": "what"},
        {**edge, "edge": "DECIDES_FOR", "from_label": "Persona", "to_label": "Company"},
        {**edge, "edge": "WORKING_ON", "to_label": "Task", "properties": {"started": "yesterday"}},
        {"op": "delete"},
    ]
    broker.send(
        [
            truth.node("Agent", agent, codename="good"),
            *((TOPIC, agent, envelope(TOPIC, data, seq=1000 + n)) for n, data in enumerate(wrong)),
            (TOPIC, agent, envelope(TOPIC, node)),
            (TOPIC, agent, b"\xff"),
            (TOPIC, agent, envelope(TOPIC, node, seq=2000, version=2)),
            truth.node("Agent", agent, codename="better"),
        ]
    )
    settled(broker, graph)
    assert seen(neo4j) == {f"Agent {agent}": {"codename": "better"}}
    letters = [dict(m.headers() or []) for m in broker.read(DEAD)]
    assert sum(one["consumer"].decode() == graph.group for one in letters) == len(wrong) + 3


def test_shuffled_and_repeated_events_end_as_the_truth(graph: Worker, broker: Broker, neo4j: Neo4jServer, truth: Truth) -> None:
    told = truth.changes(1500)
    again = truth.random.choices(told, k=len(told) // 3)
    everything = [*told, *again]
    truth.random.shuffle(everything)
    broker.send(everything)
    settled(broker, graph)
    assert len(truth.seen()) > 50
    assert seen(neo4j) == truth.seen()


def test_nothing_is_lost_while_neo4j_is_away(graph: Worker, broker: Broker, neo4j: Neo4jServer, truth: Truth) -> None:
    broker.send(truth.changes(300))
    wait_until(lambda: graph.total("phoenix_stream_events_total", 'outcome="applied"') > 0, 30, "it has begun")
    neo4j.kill()
    told = truth.changes(800)
    broker.send([*told, *told[-200:]])
    wait_until(lambda: graph.metrics().get('phoenix_stream_store_up{sink="neo4j"}') == 0, 30, f"the worker says so\n{graph.said()}")
    neo4j.start()
    started = time.monotonic()
    settled(broker, graph)
    print(f"caught up {time.monotonic() - started:.1f} s after Neo4j answered")
    assert seen(neo4j) == truth.seen()


def test_a_neo4j_that_has_gone_silent_is_given_up_and_nothing_is_lost(
    graph: Worker, broker: Broker, neo4j: Neo4jServer, truth: Truth
) -> None:
    broker.send(truth.changes(100))
    settled(broker, graph)
    neo4j.freeze()
    try:
        broker.send(truth.changes(100))
        wait_until(lambda: graph.metrics().get('phoenix_stream_store_up{sink="neo4j"}') == 0, 30, f"the worker says so\n{graph.said()}")
    finally:
        neo4j.thaw()
    settled(broker, graph)
    assert seen(neo4j) == truth.seen()


@pytest.mark.parametrize("kills", [4])
def test_kill_after_kill_ends_as_the_truth(graph: Worker, broker: Broker, neo4j: Neo4jServer, truth: Truth, kills: int) -> None:
    done = threading.Event()

    def load() -> None:
        told: list[Message] = []
        while not done.is_set():
            fresh = truth.changes(20)
            told += fresh
            # Now and then Connect was killed too, and sends again what it had not noted.
            broker.send(fresh if truth.random.random() < 0.9 else told[-200:])
            done.wait(0.05)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for _ in range(kills):
            wait_until(lambda: graph.total("phoenix_stream_events_total", 'outcome="applied"') > 0, 30, graph.said())
            time.sleep(random.uniform(0.2, 0.8))
            graph.kill()
            graph.start()
    finally:
        done.set()
        thread.join()
    settled(broker, graph)
    assert seen(neo4j) == truth.seen()
    print(f"{truth.seq} events, {kills} kills")
