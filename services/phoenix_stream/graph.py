"""The knowledge graph in Neo4j: what it consists of, and the only ways in which it is written (docs/graph.md).

PostgreSQL is the truth: the view `phoenix.graph_elements` is every node and edge that there has to be, and the events `graph.changed` are
their changes. The stream worker hands those to `write`; `rebuild` and `check` compare everything with a snapshot of PostgreSQL.

A node and its edges travel in different partitions, so they come in any order, and after a crash they come again. What is written is
therefore guarded key by key: the change with the greatest seq wins, whenever it comes. Two things remember what is not there:

- A node has two labels: `AgentId` from the first time that its id is spoken of, and `Agent` only while PostgreSQL has it. An edge whose
  node is not there yet hangs on the bare `AgentId`; a deleted node stays one, with the seq of its deletion, and takes no older edge.
- A `Gone` is the seq of an edge that was deleted.

Both go when they are older than any event that could still come (`sweep`). Why this always ends right: docs/decisions/0641-order.md.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

NODES = ("Agent", "Persona", "Company", "Task", "Product")
"""Labels. Each node has `id`, and the properties that its function in sql/R__42_graph.sql gives."""


@dataclass(frozen=True)
class EdgeType:
    """A type of relationships: where it begins and ends."""

    type: str
    start: str
    end: str
    distinct: str = ""
    """The property by which several edges between the same two nodes are told apart; empty: there is one at most."""
    moments: tuple[str, ...] = ()
    """Properties that are points in time."""


EDGES = (
    EdgeType("TRUSTS", "Agent", "Agent"),
    EdgeType("DELEGATES_TO", "Agent", "Agent"),
    EdgeType("ENTANGLED_WITH", "Agent", "Agent"),
    EdgeType("WORKS_AT", "Persona", "Company"),
    EdgeType("DECIDES_FOR", "Persona", "Company", distinct="authority"),
    EdgeType("INFLUENCES", "Persona", "Persona"),
    EdgeType("DEPENDS_ON", "Task", "Task"),
    EdgeType("WORKING_ON", "Agent", "Task", moments=("started",)),
    EdgeType("GENERATES_VALUE", "Task", "Company"),
    EdgeType("SUPPLIES", "Company", "Company"),
    EdgeType("COMPETES_WITH", "Company", "Company"),
    EdgeType("SUBSTITUTES", "Product", "Product"),
)
BY_TYPE = {edge.type: edge for edge in EDGES}

BATCH = 1000
"""Changes in one transaction of a rebuild."""
KEPT_S = 9 * 86400
"""How long it is remembered what is gone: longer than the topic keeps events (7 days)."""
SETTLE_S = 60.0
"""How long a rebuild waits for transactions that were under way when it began."""
HIDDEN = ("seq", "at")
"""Properties that are ours and not the truth's."""

Key = tuple[str, str]
"""Label or type, and what the events of the element are keyed by."""


class Change(NamedTuple):
    """One node or edge that is now there, with these properties, or is not (None)."""

    kind: str
    """Label of a node, type of an edge."""
    key: str
    seq: int
    properties: dict[str, Any] | None
    start: str = ""
    """Id of the node where an edge begins; empty for a node, whose id is its key."""
    end: str = ""
    distinct: str = ""


@dataclass(frozen=True)
class Difference:
    """One node or edge of which the graph does not say what PostgreSQL says. None means that it is not there."""

    kind: str
    key: str
    graph: Mapping[str, Any] | None
    truth: Mapping[str, Any] | None

    def __str__(self) -> str:
        def shown(properties: Mapping[str, Any] | None) -> str:
            return "nothing" if properties is None else json.dumps(properties, default=str, sort_keys=True, ensure_ascii=False)

        return f"{self.kind} {self.key}: the graph has {shown(self.graph)}, PostgreSQL has {shown(self.truth)}"


@dataclass
class Result:
    """What a rebuild or a check found and did."""

    nodes: int = 0
    """That there have to be, by PostgreSQL."""
    edges: int = 0
    differences: list[Difference] = field(default_factory=list)
    written: int = 0
    """Changes that a rebuild applied."""
    strangers: int = 0
    """Nodes and edges of labels or types that the platform does not know."""
    seconds: float = 0.0


class Faulty(ValueError):
    """An event or an element is not what the graph can take; the text says why."""


# ----------------------------------------------------------------------------------------------------------------- from the truth
def change(data: Mapping[str, Any], seq: int) -> Change:
    """The change that the data of a `graph.changed` event tells. Raises Faulty."""
    op = data.get("op")
    if op not in ("upsert", "delete"):
        raise Faulty(f"op is {op!r}, not upsert or delete")
    return element(data, seq, present=op == "upsert")


def element(data: Mapping[str, Any], seq: int, *, present: bool = True) -> Change:
    """An element of `phoenix.graph_elements` as a change. Raises Faulty."""
    properties = data.get("properties", {})
    if not isinstance(properties, Mapping):
        raise Faulty("properties are no object")
    if "node" in data:
        label, identity = data["node"], data.get("id")
        if label not in NODES or not isinstance(identity, str):
            raise Faulty(f"there are no nodes of label {label!r}" if label not in NODES else "the node has no id")
        return Change(label, identity, seq, {**_values(properties, ()), "id": identity} if present else None)
    edge = BY_TYPE.get(str(data.get("edge")))
    if edge is None:
        raise Faulty(f"there are no edges of type {data.get('edge')!r}")
    if (data.get("from_label"), data.get("to_label")) != (edge.start, edge.end):
        raise Faulty(f"{edge.type} leads from {edge.start} to {edge.end}")
    start, end, distinct = data.get("from"), data.get("to"), data.get("distinct", "")
    if not (isinstance(start, str) and isinstance(end, str) and isinstance(distinct, str)) or bool(distinct) != bool(edge.distinct):
        raise Faulty(f"{edge.type} needs from, to" + (f" and distinct, its {edge.distinct}" if edge.distinct else ""))
    values = _values(properties, edge.moments) if present else None
    if values is not None and edge.distinct:
        values[edge.distinct] = distinct
    return Change(edge.type, "|".join(filter(None, (start, end, edge.type, distinct))), seq, values, start, end, distinct)


def _values(properties: Mapping[str, Any], moments: tuple[str, ...]) -> dict[str, Any]:
    """Properties as the graph holds them. Raises Faulty."""
    values: dict[str, Any] = {}
    for name, value in properties.items():
        if name in HIDDEN:
            raise Faulty(f"{name} is no property of the truth")
        if value is None:
            continue
        if name in moments:
            try:
                values[name] = datetime.fromisoformat(str(value).replace("Z", "+00:00")).astimezone(UTC)
            except ValueError:
                raise Faulty(f"{name} is {value!r}, no point in time") from None
        elif isinstance(value, dict) or (isinstance(value, list) and not all(isinstance(one, str) for one in value)):
            raise Faulty(f"{name} is of a type that the graph has not")
        elif isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
            raise Faulty(f"{name} is {value}, more than the graph can hold")
        else:
            values[name] = value
    return values


# ----------------------------------------------------------------------------------------------------------------- writing
# A row's `over` is the seq below which what is there gives way. Removing a property that no node has takes the node's lock, so that whoever
# writes at the same time is waited for before anything is compared. The rows are in a map, because Neo4j plans a statement anew for each
# order of magnitude that the length of a list has.
def _put_node(label: str) -> str:
    return (
        f"UNWIND $all.rows AS row MERGE (n:{label}Id {{id: row.key}}) REMOVE n.lock "
        f"WITH n, row WHERE coalesce(n.seq, -1) < row.over SET n = row.properties, n:{label}"
    )


def _cut_node(label: str) -> str:
    return (
        f"UNWIND $all.rows AS row MERGE (n:{label}Id {{id: row.key}}) REMOVE n.lock "
        f"WITH n, row WHERE coalesce(n.seq, -1) < row.over SET n = {{id: row.key, seq: row.seq, at: timestamp()}} REMOVE n:{label} "
        f"WITH n, row MATCH (n)-[r]-() WHERE coalesce(r.seq, -1) < row.over DELETE r"
    )


def _put_edge(edge: EdgeType) -> str:
    which = f" {{{edge.distinct}: row.distinct}}" if edge.distinct else ""
    return (
        f"UNWIND $all.rows AS row MERGE (a:{edge.start}Id {{id: row.start}}) ON CREATE SET a.at = timestamp() "
        f"MERGE (b:{edge.end}Id {{id: row.end}}) ON CREATE SET b.at = timestamp() REMOVE a.lock REMOVE b.lock "
        f"WITH a, b, row WHERE (a:{edge.start} OR coalesce(a.seq, -1) < row.seq) AND (b:{edge.end} OR coalesce(b.seq, -1) < row.seq) "
        "OPTIONAL MATCH (g:Gone {key: row.key}) WITH a, b, row, g WHERE coalesce(g.seq, -1) < row.over "
        f"DELETE g MERGE (a)-[r:{edge.type}{which}]->(b) WITH r, row WHERE coalesce(r.seq, -1) < row.over SET r = row.properties"
    )


def _cut_edge(edge: EdgeType) -> str:
    which = f" {{{edge.distinct}: row.distinct}}" if edge.distinct else ""
    return (
        f"UNWIND $all.rows AS row MERGE (a:{edge.start}Id {{id: row.start}}) ON CREATE SET a.at = timestamp() REMOVE a.lock "
        f"WITH a, row OPTIONAL MATCH (a)-[r:{edge.type}{which}]->(:{edge.end}Id {{id: row.end}}) "
        "WITH row, r WHERE r IS NULL OR coalesce(r.seq, -1) < row.over DELETE r "
        "MERGE (g:Gone {key: row.key}) ON CREATE SET g.seq = row.seq, g.at = timestamp() "
        "ON MATCH SET g.seq = CASE WHEN g.seq < row.seq THEN row.seq ELSE g.seq END, g.at = timestamp()"
    )


Statement = tuple[str, bool]
"""Label or type, and whether the element is there."""

STATEMENTS: dict[Statement, str] = {
    **{(label, True): _put_node(label) for label in NODES},
    **{(edge.type, True): _put_edge(edge) for edge in EDGES},
    **{(edge.type, False): _cut_edge(edge) for edge in EDGES},
    **{(label, False): _cut_node(label) for label in NODES},
}
"""By kind and whether it is there now; in the order in which they are run."""


def write(driver: Any, changes: Iterable[Change], *, truth: bool = False) -> None:
    """Apply changes in one transaction. Of several of one key only the newest counts; one that is older than what the graph has changes
    nothing. With `truth` a change of the same seq counts as newer. Raises neo4j's errors, after which nothing was applied."""
    newest: dict[Key, Change] = {}
    for one in changes:
        there = newest.get((one.kind, one.key))
        if there is None or there.seq <= one.seq:
            newest[one.kind, one.key] = one
    groups: dict[Statement, list[dict[str, Any]]] = {}
    for one in sorted(newest.values(), key=lambda each: (each.kind, each.key)):  # locks are taken in one order
        groups.setdefault((one.kind, one.properties is not None), []).append(_row(one, truth=truth))
    if groups:
        with driver.session() as session:
            session.execute_write(_run, groups)


def _row(one: Change, *, truth: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"key": one.key, "seq": one.seq, "over": one.seq + truth}
    if one.start:
        row |= {"start": one.start, "end": one.end, "distinct": one.distinct}
    if one.properties is not None:
        row["properties"] = {**one.properties, "seq": one.seq}
    return row


def _run(transaction: Any, groups: Mapping[Statement, list[dict[str, Any]]]) -> None:
    for what, statement in STATEMENTS.items():
        if rows := groups.get(what):
            transaction.run(statement, all={"rows": rows}).consume()


def warm_up(driver: Any, statement: Statement, *, rounds: int = 3) -> None:
    """Let Neo4j plan and compile a statement, on a row that is taken back: on a server that has just started that takes a second or more,
    which the first real change would wait for. Raises neo4j's errors."""
    kind, there = statement
    nobody = "00000000-0000-0000-0000-000000000000"
    one = Change(kind, nobody, 0, {} if there else None, *((nobody, nobody, "warm-up") if kind in BY_TYPE else ()))
    with driver.session() as session:
        for _ in range(rounds):
            with session.begin_transaction() as transaction:
                transaction.run(STATEMENTS[statement], all={"rows": [_row(one, truth=False)]}).consume()
                transaction.rollback()


def sweep(driver: Any, *, older_s: float = KEPT_S, limit: int = 10_000) -> int:
    """Forget what has been gone for longer than an event can come late. Returns how many were forgotten, at most some times `limit`."""
    before, forgotten = int((time.time() - older_s) * 1000), 0
    for statement in (
        "MATCH (g:Gone) WHERE g.at < $before WITH g LIMIT $limit DELETE g RETURN count(*) AS n",
        *(
            f"MATCH (n:{label}Id) WHERE n.at < $before AND NOT n:{label} AND NOT EXISTS {{ (n)--() }} "
            "WITH n LIMIT $limit DELETE n RETURN count(*) AS n"
            for label in NODES
        ),
    ):
        with driver.session() as session:
            forgotten += session.execute_write(lambda tx, s=statement: tx.run(s, before=before, limit=limit).single()["n"])
    return forgotten


# ----------------------------------------------------------------------------------------------------------------- everything
class Settling(Exception):
    """A transaction that was under way does not end, so that no snapshot can be complete; the text names it."""


def watermark(database: Any, *, said: Callable[[str], None], settle_s: float = SETTLE_S) -> int:
    """A seq up to which every event belongs to a transaction that has ended, so that a snapshot taken from now on holds its change.

    A seq is taken before its transaction commits, so the newest one of them may still be on its way. Whoever took one holds a lock on the
    outbox until its end. Raises Settling when one does not end in time.
    """
    (newest,) = database.execute("SELECT phoenix.newest_event()").fetchone()
    holders = (
        "SELECT DISTINCT virtualtransaction, pid FROM pg_locks "
        "WHERE relation = 'phoenix.outbox'::regclass AND mode = 'RowExclusiveLock' AND granted"
    )
    waiting, end = {tuple(row) for row in database.execute(holders)}, time.monotonic() + settle_s
    if waiting:
        said(f"waiting for {len(waiting)} transactions that write events")
    while waiting := waiting & {tuple(row) for row in database.execute(holders)}:
        if time.monotonic() > end:
            pids = ", ".join(str(pid) for _, pid in sorted(waiting))
            raise Settling(f"a transaction that writes events has been open for {settle_s:.0f} s (process {pids}): end it, then try again")
        time.sleep(0.05)
    return int(newest)


def truth(database: Any, seq: int = 0) -> Iterator[Change]:
    """Every node and edge by one snapshot of PostgreSQL. `database` is an idle psycopg connection in autocommit mode. Raises Faulty."""
    database.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        with database.cursor(name="graph") as cursor:
            cursor.itersize = 5000
            cursor.execute("SELECT element FROM phoenix.graph_elements")
            for (data,) in cursor:
                yield element(data, seq)
    finally:
        database.execute("ROLLBACK")


class There(NamedTuple):
    """A node or edge of the graph."""

    seq: int
    properties: dict[str, Any]
    start: str = ""
    end: str = ""
    distinct: str = ""


def present(driver: Any) -> Iterator[tuple[Key, There]]:
    """Everything that the graph shows: the nodes that carry their label, and every edge, also one that hangs on a bare id."""
    with driver.session(fetch_size=5000) as session:
        for label in NODES:
            for record in session.run(f"MATCH (n:{label}) RETURN n.id, n.seq, properties(n)"):
                identity, seq, properties = record.values()
                yield (label, str(identity)), There(seq if isinstance(seq, int) else -1, _shown(properties))
        for edge in EDGES:
            asked = f"MATCH (a)-[r:{edge.type}]->(b) RETURN a.id, b.id, r.seq, properties(r), a:{edge.start} AND b:{edge.end}"
            for record in session.run(asked):
                start, end, seq, properties, attached = record.values()
                distinct = str(properties.get(edge.distinct, "")) if edge.distinct else ""
                shown = _shown(properties)
                if not attached:
                    shown["hangs on a node that is not there"] = True
                key = "|".join(filter(None, (str(start), str(end), edge.type, distinct)))
                yield (edge.type, key), There(seq if isinstance(seq, int) else -1, shown, str(start), str(end), distinct)


TWICE = "is there more than once"


def collected(driver: Any) -> dict[Key, There]:
    """`present` by key. What is there more than once, which nobody of the platform writes, says so in its properties."""
    found: dict[Key, There] = {}
    for key, one in present(driver):
        found[key] = one if key not in found else one._replace(properties={**one.properties, TWICE: True})
    return found


def _shown(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Properties as Python has them, without ours."""
    return {
        name: value.to_native().astimezone(UTC) if hasattr(value, "to_native") else value
        for name, value in properties.items()
        if name not in HIDDEN
    }


_OURS = [*(f"{label}Id" for label in NODES), "Gone"]


def strangers(driver: Any) -> int:
    """Nodes and edges of labels and types that are none of ours."""
    with driver.session() as session:
        nodes = session.run("MATCH (n) WHERE none(l IN labels(n) WHERE l IN $known) RETURN count(n) AS n", known=_OURS).single()["n"]
        bare = sum(session.run(f"MATCH (n:{label}) WHERE NOT n:{label}Id RETURN count(n) AS n").single()["n"] for label in NODES)
        edges = session.run("MATCH ()-[r]->() WHERE NOT type(r) IN $known RETURN count(r) AS n", known=list(BY_TYPE)).single()["n"]
    return int(nodes + edges + bare)


def compare(wanted: Mapping[Key, Change], there: Mapping[Key, There]) -> list[Difference]:
    """What differs, in a steady order."""
    found = [
        Difference(*key, there[key].properties if key in there else None, one.properties)
        for key, one in wanted.items()
        if key not in there or there[key].properties != one.properties
    ]
    found += [Difference(*key, one.properties, None) for key, one in there.items() if key not in wanted]
    return sorted(found, key=lambda one: (one.kind, one.key))


def check(
    driver: Any, database: Any, *, settle_s: float = 10.0, pause_s: float = 1.0, said: Callable[[str], None] = lambda _: None
) -> Result:
    """Compare every node, edge and property. While something differs it is looked at again for up to `settle_s` seconds, because a change
    takes some milliseconds on its way; a difference counts when it was there each time. Changes nothing. Raises the errors of neo4j and
    psycopg."""
    started, found = time.monotonic(), Result()
    lasting: set[str] | None = None
    while True:
        there = collected(driver)
        said(f"the graph has {len(there):,} nodes and edges")
        wanted = {(one.kind, one.key): one for one in truth(database)}
        said(f"PostgreSQL has {len(wanted):,}")
        found.nodes = sum(kind in NODES for kind, _ in wanted)
        found.edges = len(wanted) - found.nodes
        differing = compare(wanted, there)
        seen = {str(one) for one in differing}
        lasting = seen if lasting is None else seen & lasting
        found.differences = [one for one in differing if str(one) in lasting]
        found.strangers = strangers(driver)
        if not found.differences or time.monotonic() - started >= settle_s:
            found.seconds = time.monotonic() - started
            return found
        time.sleep(pause_s)


def rebuild(driver: Any, database: Any, *, settle_s: float = SETTLE_S, said: Callable[[str], None] = lambda _: None) -> Result:
    """Make the graph equal to PostgreSQL, whatever it holds, while changes go on. Only what differs is written.

    It is written with the seq of `watermark`: an event that the snapshot does not hold has a greater one and wins, whether it comes before
    or after. Raises Settling, and the errors of neo4j and psycopg; run again, it goes on where it is needed.
    """
    started, done = time.monotonic(), Result()
    _from_the_future(driver, database)
    seq = watermark(database, said=said, settle_s=settle_s)
    wanted = {(one.kind, one.key): one for one in truth(database, seq)}
    done.nodes = sum(kind in NODES for kind, _ in wanted)
    done.edges = len(wanted) - done.nodes
    said(f"PostgreSQL has {done.nodes:,} nodes and {done.edges:,} edges, as of event {seq}")
    done.strangers = _remove_strangers(driver)
    there = collected(driver)
    said(f"the graph has {len(there):,} of either")
    done.differences = compare(wanted, there)
    # What an event of after the snapshot has written is not the snapshot's to judge.
    changes = [
        wanted.get(key) or _cut(key, there[key], seq)
        for one in done.differences
        if (key := (one.kind, one.key)) not in there or there[key].seq <= seq
    ]
    write(driver, [_cut(key, one, seq) for key, one in there.items() if TWICE in one.properties], truth=True)
    # Nodes before edges; what goes last, its edges first.
    changes.sort(key=lambda one: (one.properties is None, (one.kind in BY_TYPE) == (one.properties is not None)))
    for some in _slices(changes, BATCH):
        write(driver, some, truth=True)
        done.written += len(some)
        if done.written % 50_000 < BATCH:
            said(f"{done.written:,} of {len(changes):,} written")
    sweep(driver)
    done.seconds = time.monotonic() - started
    return done


def _cut(key: Key, there: There, seq: int) -> Change:
    return Change(*key, seq, None, there.start, there.end, there.distinct)


def _from_the_future(driver: Any, database: Any) -> None:
    """After PostgreSQL was taken back to an earlier moment the graph may hold numbers that come again: they count for nothing."""
    asked = " UNION ALL ".join(
        [f"MATCH (n:{label}Id) RETURN max(n.seq) AS seq" for label in NODES]
        + [f"MATCH ()-[r:{edge.type}]->() RETURN max(r.seq) AS seq" for edge in EDGES]
        + ["MATCH (g:Gone) RETURN max(g.seq) AS seq"]
    )
    with driver.session() as session:
        newest = max((record["seq"] or 0 for record in session.run(asked)), default=0)
        (highest,) = database.execute("SELECT phoenix.newest_event()").fetchone()  # after the graph was asked: it only grows
        if newest <= highest:
            return
        for label in NODES:
            session.run(f"MATCH (n:{label}Id) WHERE n.seq > $highest SET n.seq = 0", highest=highest).consume()
        for edge in EDGES:
            session.run(f"MATCH ()-[r:{edge.type}]->() WHERE r.seq > $highest SET r.seq = 0", highest=highest).consume()
        session.run("MATCH (g:Gone) WHERE g.seq > $highest DELETE g", highest=highest).consume()


def _remove_strangers(driver: Any) -> int:
    """Remove nodes and edges that nobody of the platform wrote. Returns how many."""
    found = strangers(driver)
    if found:
        with driver.session() as session:
            session.run("MATCH ()-[r]->() WHERE NOT type(r) IN $known DELETE r", known=list(BY_TYPE)).consume()
            for label in NODES:
                session.run(f"MATCH (n:{label}) WHERE NOT n:{label}Id DETACH DELETE n").consume()
            session.run("MATCH (n) WHERE none(l IN labels(n) WHERE l IN $known) DETACH DELETE n", known=_OURS).consume()
    return found


def _slices(items: Sequence[T], size: int) -> Iterator[list[T]]:
    remaining = iter(items)
    while some := list(islice(remaining, size)):
        yield some
