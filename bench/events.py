"""How long a change takes to be seen where it is followed, and how many a second come through: `python -m bench.events`, on the lab.

Agents of its own are changed through the gateway, and Redis and Neo4j, one after the other, are looked at all the time. First at an
even rate, each change a transaction of its own: from the return of the commit to the look that first shows it, so that the time of a
look is in it; a change that its agent's next one overtook counts as never seen. Then as many as there can be, all agents in each
transaction: from the first transaction's begin until all agents show their last change. The agents are gone afterwards.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg

from bench import pace
from bench.lab import reach
from ops import inventory
from ops.errors import DONE, FAILED
from ops.options import count
from ops.terminal import Terminal
from tests.drills.events import STEP, Seen, Stores, add_agents, remove_agents
from tests.drills.machines import DrillError, wait_until

LOOK_S = 0.02
"""Between looks. More of them would show a change sooner and take, through the tailnet, more of the two cores than the changes do."""
PATIENCE_S = 120.0
FEW = 20
P95_S, EVENTS_PER_S = 0.1, 5000
"""What is promised."""

CHANGES = {
    "Redis": "hormone_levels = jsonb_set(hormone_levels, '{dopamine}', to_jsonb(%(number)s * %(step)s::float8))",
    "Neo4j": "role = 'bench ' || %(number)s::text",
}
"""What makes the change that the store shows."""

Change = Callable[[int, Sequence[str]], None]
"""Commits the change of this number for these agents."""
Look = Callable[[Sequence[str]], Seen]
"""What the store shows of these agents."""


class Followed:
    """Changes that were committed, and how long each took to be seen, in seconds."""

    def __init__(self) -> None:
        self.waiting: dict[str, tuple[int, float]] = {}
        self.delays: list[float] = []
        self._lock = threading.Lock()

    def committed(self, agent: str, number: int) -> None:
        """This change was committed now."""
        with self._lock:
            self.waiting[agent] = (number, time.monotonic())

    def look(self, seen: Look) -> None:
        """Ask the store once, for what is waited for and no more: looking takes the same processors as what is looked at. A change may be
        there before its commit is known to have returned: that is seen at the next look."""
        with self._lock:
            wanted = list(self.waiting)
        found, now = (seen(wanted) if wanted else {}), time.monotonic()
        with self._lock:
            for agent, (number, at) in list(self.waiting.items()):
                if found.get(agent) == number:
                    self.delays.append(max(0.0, now - at))
                    del self.waiting[agent]


def delays(change: Change, agents: Sequence[str], seen: Look, *, rate: int, of: int) -> list[float]:
    """Seconds that each of the changes, `of` in all, took to be seen; sorted. Those that never were are missing."""
    followed, over = Followed(), threading.Event()

    def looks() -> None:
        while not over.is_set():
            followed.look(seen)
            time.sleep(LOOK_S)

    thread = threading.Thread(target=looks, daemon=True)
    thread.start()
    started = time.monotonic()
    for number in range(1, of + 1):
        agent = agents[number % len(agents)]
        time.sleep(max(0.0, started + number / rate - time.monotonic()))
        change(number, [agent])
        followed.committed(agent, number)
    until = time.monotonic() + PATIENCE_S / 4
    while followed.waiting and time.monotonic() < until:
        time.sleep(0.05)
    over.set()
    thread.join()
    return sorted(followed.delays)


def flood(change: Change, agents: Sequence[str], seen: Look, *, first: int, rounds: int) -> float:
    """Seconds from the first of as many changes as can be to the look that shows the last one of every agent. Raises DrillError."""
    started = time.monotonic()
    for number in range(first, first + rounds):
        change(number, agents)
    last = first + rounds - 1
    for some in (agents[:FEW], agents):  # a look at all takes as long as the writing of many, so there are few of those
        wait_until(lambda some=some: seen(some) == dict.fromkeys(some, last), seconds=PATIENCE_S, what="all changes are seen", every_s=0.1)  # type: ignore[misc]
    return time.monotonic() - started


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both for each store; the exit status tells whether the promises are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--inventory", type=Path, default=inventory.DEFAULT)
    parser.add_argument("--rate", type=count, default=100, help="changes a second (%(default)s)")
    parser.add_argument("--seconds", type=count, default=30, help="for so long (%(default)s)")
    parser.add_argument("--agents", type=count, default=2000, help="that change all at once (%(default)s)")
    parser.add_argument("--rounds", type=count, default=50, help="so often (%(default)s)")
    given = parser.parse_args(arguments)
    terminal, kept = Terminal(), True
    agents = sorted(str(uuid.uuid4()) for _ in range(given.agents))
    with tempfile.TemporaryDirectory(prefix="phoenix-events-") as scratch:
        cluster, (way, *_) = reach(parser, given.inventory, Path(scratch))
        pace.tell(terminal)
        stores = Stores(cluster.platform, Path(scratch))
        with psycopg.connect(way, autocommit=True) as conn:
            add_agents(conn, agents, "bench")
            try:
                wait_until(lambda: len(stores.roles(agents)) == len(agents), seconds=PATIENCE_S, what="the agents are in the graph")
                wait_until(lambda: len(stores.levels(agents)) == len(agents), seconds=PATIENCE_S, what="the agents are in Redis")
                for name, look in (("Redis", stores.levels), ("Neo4j", stores.roles)):
                    statement = f"UPDATE phoenix.agents SET {CHANGES[name]} WHERE id = ANY (%(agents)s::uuid[])".encode()

                    def change(number: int, some: Sequence[str], statement: bytes = statement) -> None:
                        conn.execute(statement, {"number": number, "step": STEP, "agents": list(some)})

                    few, of = agents[: 2 * given.rate], given.rate * given.seconds
                    found = delays(change, few, look, rate=given.rate, of=of)
                    if not found:
                        raise DrillError(f"{name} showed none of {of} changes: look at './phoenix status'.")
                    low, p50, p95, p99, high = (
                        1000 * found[min(len(found) - 1, int(len(found) * share))] for share in (0, 0.5, 0.95, 0.99, 1)
                    )
                    terminal.line(
                        f"{name}: {len(found):,} changes at {given.rate} a second, {of - len(found)} never seen; ms until seen: "
                        f"min {low:.0f}  p50 {p50:.0f}  p95 {p95:.0f}  p99 {p99:.0f}  max {high:.0f}"
                    )
                    took = flood(change, agents, look, first=of + 1, rounds=given.rounds)
                    events = given.rounds * len(agents)
                    terminal.line(f"{name}: {events:,} changes in {took:.1f} s, {events / took:,.0f} a second through the whole chain")
                    kept = kept and p95 <= 1000 * P95_S and events / took >= EVENTS_PER_S
            finally:
                remove_agents(conn, agents)
        stores.close()
    return DONE if kept else FAILED


if __name__ == "__main__":
    sys.exit(main())
