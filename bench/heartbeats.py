"""What the heartbeats of many agents cost PostgreSQL: `python -m bench.heartbeats`, on the lab.

Processor time of the leader's PostgreSQL (all of its unit, as the kernel counts it) while agents outside publish to Kafka and their
heartbeats are written in batches, less what the same time costs without them, before and after.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
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
from tests.drills.events import Stores, add_agents, remove_agents
from tests.drills.machines import Machine, wait_until
from tests.envelopes import heartbeat

USED = "awk '/^usage_usec/ {print $2}' /sys/fs/cgroup/system.slice/patroni.service/cpu.stat"
SHARE = 0.05
"""Of one core: what is promised."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the shares of a core; the exit status tells whether the promise is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--inventory", type=Path, default=inventory.DEFAULT)
    parser.add_argument("--agents", type=count, default=1000)
    parser.add_argument("--every", type=count, default=10, metavar="S", help="seconds between an agent's heartbeats (%(default)s)")
    parser.add_argument("--seconds", type=count, default=60, help="for so long, three times (%(default)s)")
    given = parser.parse_args(arguments)
    terminal = Terminal()
    pace.tell(terminal)
    agents = [str(uuid.uuid4()) for _ in range(given.agents)]
    with tempfile.TemporaryDirectory(prefix="phoenix-heartbeats-") as scratch:
        cluster, (way, *_) = reach(parser, given.inventory, Path(scratch))
        stores, leader = Stores(cluster.platform, Path(scratch)), cluster.leader()
        with psycopg.connect(way, autocommit=True) as conn:
            add_agents(conn, agents, "bench")
            try:
                time.sleep(10)  # their arrival is not what is measured
                before = share(leader, given.seconds, lambda end: time.sleep(end - time.monotonic()))
                during = share(leader, given.seconds, lambda end: beat(stores, agents, given.every, end))
                missing = "SELECT count(*) FROM phoenix.agents WHERE id = ANY (%s::uuid[]) AND last_heartbeat < now() - %s * INTERVAL '1 s'"
                late = [agents, 3 * given.every]
                wait_until(lambda: (conn.execute(missing, late).fetchone() or [1])[0] == 0, seconds=30, what="every agent was heard")
                after = share(leader, given.seconds, lambda end: time.sleep(end - time.monotonic()))
            finally:
                remove_agents(conn, agents)
        stores.close()
    cost = during - (before + after) / 2
    terminal.line(
        f"{given.agents:,} agents, a heartbeat every {given.every} s, for {given.seconds} s: PostgreSQL used {during:.1%} of a core, "
        f"{before:.1%} before and {after:.1%} after: {cost:.1%} for heartbeats."
    )
    return DONE if cost <= SHARE else FAILED


def share(leader: Machine, seconds: int, work: Callable[[float], None]) -> float:
    """The share of one core that PostgreSQL used while `work` went on for `seconds`; it is given the monotonic time of its end."""
    began, used = time.monotonic(), int(leader.run(USED))
    work(began + seconds)
    return (int(leader.run(USED)) - used) / 1e6 / (time.monotonic() - began)


def beat(stores: Stores, agents: Sequence[str], every_s: float, end: float) -> None:
    """Each agent's heartbeat every `every_s` seconds, evenly spread, until the monotonic clock says `end`."""
    producer, number, began = stores.producer(), 0, time.monotonic()
    while (now := time.monotonic()) < end:
        while number < (now - began) * len(agents) / every_s:
            topic, key, value = heartbeat(agents[number % len(agents)])
            producer.produce(topic, value, key)
            number += 1
        producer.poll(0)
        time.sleep(0.02)
    producer.flush(30)


if __name__ == "__main__":
    sys.exit(main())
