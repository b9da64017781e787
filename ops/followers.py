"""What follows PostgreSQL is brought back from it: change events are sent again, Redis and the graph are made equal.

After hosts that held any of it were lost, and after the database went back in time (docs/backup.md). All of it may be done at any
time, and twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from deploys.lib import streams
from deploys.lib.settings import HostSettings, KafkaSettings, Platform
from ops import events, graph, hormones, remote
from ops.errors import Failed
from ops.steps import Steps
from ops.terminal import seconds

CATCH_UP_S = 300
LOOKS_APART_S = 12
"""Kafka's exporter asks the cluster every ten seconds: the first look that counts is one after that."""
WORKERS = frozenset(f"stream-{sink}" for sink in streams.STORES)
"""Their consumer groups."""


@dataclass(frozen=True)
class Way:
    """One thing that is done when what `after` names was lost and the inventory has all groups of `needs`."""

    after: frozenset[str]
    needs: frozenset[str]
    do: Callable[[Platform, Steps], None]
    by_hand: str
    """The command that does it alone, for the error."""


def bring_back(platform: Platform, lost: Collection[str], steps: Steps) -> list[str]:
    """Bring back what hosts of the groups `lost` held. Gives what failed, a sentence each with the command that is left to do."""
    left = []
    for way in WAYS:
        if way.after.isdisjoint(lost) or not all(map(platform.group, way.needs)):
            continue
        try:
            way.do(platform, steps)
        except Failed as error:
            left.append(f"{error} What is left to do: '{way.by_hand}'.")
    return left


def _send_again(platform: Platform, steps: Steps) -> None:
    """The topics were lost, or the connector's place in them: everything that the outbox keeps."""
    carrying = events.Carrying(platform, platform.group("connect")[0])
    events.send_again(carrying, events.kept(carrying), steps)


def _caught_up(platform: Platform, steps: Steps) -> None:
    """The workers have applied what there is now: what they read after a rebuild could be of a future that was lost."""
    with steps.step("workers catch up") as doing:
        started = time.monotonic()
        time.sleep(LOOKS_APART_S)
        ends = {stream: committed + behind for stream, (committed, behind) in _streams(platform).items() if behind}
        doing.note(f"{len(ends)} streams of events to follow to their present end" if ends else "nothing is left to apply")
        while ends:
            if time.monotonic() - started > CATCH_UP_S:
                names = ", ".join(f"{group} in {topic}" for group, topic in sorted(ends))
                raise Failed(f"after {seconds(CATCH_UP_S)} there are still events to apply ({names}): see './phoenix logs stream'.")
            time.sleep(LOOKS_APART_S)
            now = _streams(platform)
            ends = {stream: end for stream, end in ends.items() if now.get(stream, (0, 0))[0] < end}
            doing.now(f"{len(ends)} left")


def _streams(platform: Platform) -> dict[tuple[str, str], tuple[int, int]]:
    """By group of workers and topic: the offsets committed, and the events yet to commit."""
    host = platform.group("kafka")[0]
    url = f"https://{host[HostSettings].address}:{host[KafkaSettings].metrics_port}/metrics"
    text = remote.run(host, f"{remote.CURL} --fail --max-time 20 {url}", what="asking how far the stream workers are")
    found: dict[str, dict[tuple[str, str], int]] = {"committed": {}, "lag": {}}
    for family in text_string_to_metric_families(text):
        name = family.name.removeprefix("phoenix_kafka_consumer_")
        for sample in family.samples:
            if name in found and sample.labels["group"] in WORKERS:
                found[name][sample.labels["group"], sample.labels["topic"]] = int(sample.value)
    return {stream: (found["committed"].get(stream, 0), behind) for stream, behind in found["lag"].items()}


def _hormones(platform: Platform, steps: Steps) -> None:
    with steps.step("rebuild Redis") as doing, hormones.stores(platform) as (client, database):
        done = hormones.library().rebuild(client, database)
        doing.note(f"{done.agents:,} agents, {done.written:,} written")


def _graph(platform: Platform, steps: Steps) -> None:
    with steps.step("rebuild the graph") as doing:
        done = graph.asked(platform.group("neo4j")[0], "rebuild")
        doing.note(f"{done['nodes']:,} nodes and {done['edges']:,} edges, {done['differences']:,} differed")


WAYS = (
    Way(frozenset({"kafka", "connect"}), frozenset({"connect"}), _send_again, "./phoenix events resend --all"),
    Way(frozenset({"kafka", "connect", "redis", "neo4j"}), frozenset({"kafka", "stream"}), _caught_up, "./phoenix status"),
    Way(frozenset({"redis"}), frozenset({"redis"}), _hormones, "./phoenix hormones rebuild"),
    Way(frozenset({"neo4j"}), frozenset({"neo4j"}), _graph, "./phoenix graph rebuild"),
)
"""In their order: what is sent again has to be applied before the stores are compared."""

EVERYTHING = frozenset().union(*(way.after for way in WAYS))
"""The groups that hold something that follows."""
