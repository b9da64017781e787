"""Hormone levels in Redis: how they lie there, and the only ways in which they are written (docs/redis.md).

One hash for each agent that is not decommissioned, `hormone:{<agent_id>}`, without a time to live. PostgreSQL is the truth. The stream
worker makes a `change` of each `hormone.cascade` event and hands them to `write`; `rebuild` and `check` compare everything with a snapshot
of PostgreSQL: `phoenix hormones`, and the timer on Redis' host. Needs psycopg and redis, nothing else of the platform.

Why nothing that comes late, twice or at the same time leaves Redis different from PostgreSQL: docs/decisions/0601-seq-in-a-rebuild.md.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal, NamedTuple

HORMONES = ("dopamine", "oxytocin", "adrenaline", "cortisol")
FIELDS = (*HORMONES, "seq", "updated_at")
PREFIX, SUFFIX = "hormone:{", "}"
PATTERN = "hormone:*"
BATCH = 500
"""Agents in one call of the script: some milliseconds in which Redis does nothing else."""

Levels = tuple[float, float, float, float]
"""In the order of HORMONES."""

# One script, so that there is one digest; ARGV[1] says what it does to KEYS, and ARGV[2] is a JSON list with one list of texts for each of
# them. It answers how many keys it changed. One call for many agents, because what costs is the client's handling of each command.
SCRIPT = """
local what, lines, changed = ARGV[1], cjson.decode(ARGV[2]), 0
for number, key in ipairs(KEYS) do
  local found, line = redis.pcall('HMGET', key, 'dopamine', 'oxytocin', 'adrenaline', 'cortisol', 'seq'), lines[number]
  local stranger = found.err ~= nil  -- no hash: nobody here wrote it
  local seq = not stranger and found[5]
  if what == 'read' then
    lines[number] = stranger and {false, false, false, false, ''} or found
  elseif what == 'retire' then
    -- line: seen. The agent is gone. Whoever looked at the key some time ago knows less than an event that came in since.
    if (seq or '') == line[1] then
      redis.call('DEL', key)
      changed = changed + 1
    end
  else
    -- line: seq, levels, updated_at, seen. `write` is an event: one that is not newer than what is there was here before, or comes late.
    -- `restore` is what PostgreSQL says, and gives way only to an event that came in since the key was seen.
    local reached = seq and (tonumber(seq) or -1) >= tonumber(line[1])
    if not reached or (what == 'restore' and (seq or '') == line[7]) then
      if stranger then redis.call('DEL', key) end
      redis.call('HSET', key, 'seq', line[1], 'dopamine', line[2], 'oxytocin', line[3], 'adrenaline', line[4], 'cortisol', line[5],
                 'updated_at', line[6])
      redis.call('PERSIST', key)
      changed = changed + 1
    end
  end
end
if what == 'read' then return cjson.encode(lines) end
return changed
"""

# Levels that are four numbers of a sensible size, as nearly all are, need no function: five times as quick.
TRUTH = """
SELECT a.id::text, (h.levels ->> 'dopamine')::float8, (h.levels ->> 'oxytocin')::float8,
       (h.levels ->> 'adrenaline')::float8, (h.levels ->> 'cortisol')::float8
FROM phoenix.agents a CROSS JOIN LATERAL (
    SELECT CASE WHEN a.hormone_levels @@ 'strict $.dopamine > -1000000 && $.dopamine < 1000000 && $.oxytocin > -1000000
                    && $.oxytocin < 1000000 && $.adrenaline > -1000000 && $.adrenaline < 1000000 && $.cortisol > -1000000
                    && $.cortisol < 1000000'
                THEN a.hormone_levels ELSE phoenix.hormones(a.hormone_levels) END AS levels OFFSET 0) h
WHERE a.decommissioned_at IS NULL
"""
"""The levels of every agent that has a key, complete and as numbers: what events carry as well."""

NEWEST = "SELECT aggregateid, max(seq) FROM phoenix.outbox WHERE type = 'hormone.cascade' GROUP BY 1"
"""The event to which an agent's present levels belong, as long as it has not been purged."""


class Change(NamedTuple):
    """The levels of one agent after one change."""

    agent: str
    seq: int
    levels: Levels
    at: datetime


@dataclass(frozen=True)
class Held:
    """What Redis holds for one agent. Levels are None when they are not four numbers, `seq` is as it stands there, empty when missing."""

    levels: Levels | None
    seq: str

    def known(self, highest: int) -> bool:
        """Whether `seq` is a number that PostgreSQL may have given out, when `highest` is its newest; 0 when nobody knows."""
        return self.seq.isdecimal() and (highest == 0 or int(self.seq) <= highest)


@dataclass(frozen=True)
class Difference:
    """One agent for whom Redis does not say what PostgreSQL says."""

    agent: str
    kind: str
    """`missing`: no key; `differs`: other levels; `gone`: a key of an agent that is decommissioned or deleted; `future`: its seq is
    higher than any that PostgreSQL gave out, so that it would refuse events."""
    redis: Levels | None
    postgresql: Levels | None

    def __str__(self) -> str:
        def shown(levels: Levels | None) -> str:
            return " ".join(f"{name}={value:g}" for name, value in zip(HORMONES, levels, strict=True)) if levels else "nothing"

        return f"{self.agent} {self.kind}: Redis has {shown(self.redis)}, PostgreSQL {shown(self.postgresql)}"


@dataclass
class Rebuilt:
    """What a rebuild did; counts are agents."""

    agents: int = 0
    """Agents that are not decommissioned."""
    written: int = 0
    same: int = 0
    newer: int = 0
    """Left alone: a later event came in meanwhile."""
    retired: int = 0
    """Keys removed."""
    seconds: float = 0.0


@dataclass
class Parity:
    """What a check found."""

    agents: int = 0
    keys: int = 0
    retired: int = 0
    """Keys removed of agents that are gone."""
    differences: list[Difference] = field(default_factory=list)
    seconds: float = 0.0


def key(agent: str) -> str:
    """The key of an agent's hash. By the braces all keys of one agent would lie on one node, were Redis a cluster."""
    return f"{PREFIX}{agent}{SUFFIX}"


def change(agent: str, seq: int, levels: Mapping[str, object], at: datetime) -> Change:
    """A change as an event tells it, checked. Raises ValueError when the agent is no UUID or the levels are not four finite numbers."""
    numbers = [levels.get(name) for name in HORMONES]
    if not all(isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in numbers):
        raise ValueError(f"levels have to be four numbers, {', '.join(HORMONES)}: {dict(levels)!r:.200}")
    dopamine, oxytocin, adrenaline, cortisol = (float(str(one)) for one in numbers)
    return Change(str(uuid.UUID(agent)), seq, (dopamine, oxytocin, adrenaline, cortisol), at)


def write(client: Any, changes: Iterable[Change]) -> int:
    """Apply changes in their order, in one round trip for each BATCH. `client` is a redis.Redis with decode_responses.

    One that is not newer than what Redis holds changes nothing. Returns how many were written. Raises redis.RedisError, after which some
    may have been applied: give all of them again.
    """
    return sum(_run(client, "write", ((key(one.agent), [str(one.seq), *_texts(one.levels), _moment(one.at)]) for one in changes)))


def rebuild(client: Any, database: Any, *, said: Callable[[str], None] = lambda text: None) -> Rebuilt:
    """Make Redis equal to PostgreSQL while both go on working. `client` is a redis.Redis with decode_responses, `database` an idle
    psycopg connection in autocommit mode. Raises their errors; run again, it goes on where it is needed."""
    started, done = time.monotonic(), Rebuilt()
    # The order matters: whatever Redis holds now was committed before, so the snapshot taken next knows it.
    held = dict(_held(client))
    said(f"Redis holds {len(held):,} agents")
    with _Snapshot(database) as snapshot:
        truth = _truth(snapshot.execute(TRUTH))
        newest = {key(agent): int(seq) for agent, seq in snapshot.execute(NEWEST)}
        highest = max(newest.values(), default=0)
        at = _moment(snapshot.execute("SELECT now()").fetchone()[0])
    said(f"PostgreSQL has {len(truth):,} agents")
    done.agents = len(truth)
    calls: list[tuple[str, list[str]]] = []
    for name, levels in truth.items():
        seq, there = newest.get(name), held.get(name)
        if there and there.levels == levels and (there.seq == str(seq) or (seq is None and there.known(highest))):
            done.same += 1
        else:
            calls.append((name, [str(seq or 0), *_texts(levels), at, there.seq if there else ""]))
    done.written = sum(_run(client, "restore", calls))
    done.newer = len(calls) - done.written
    done.retired = retire(client, {name: there for name, there in held.items() if name not in truth})
    done.seconds = time.monotonic() - started
    return done


def retire(client: Any, gone: Mapping[str, Held]) -> int:
    """Remove these keys, except where an event came in since they were read. Returns how many were removed."""
    return sum(_run(client, "retire", ((name, [there.seq]) for name, there in gone.items())))


def check(client: Any, database: Any, *, settle_s: float = 5.0, pause_s: float = 0.5, remove_gone: bool = False) -> Parity:
    """Compare everything. What differs is looked at again for up to `settle_s` seconds and forgiven as soon as it is equal once: an event
    takes some milliseconds from PostgreSQL to Redis. With `remove_gone` the keys of agents that are gone are removed instead of reported.
    Arguments and errors as of `rebuild`."""
    started = time.monotonic()
    found = Parity()
    suspects: list[str] | None = None
    while True:
        held = dict(_held(client, suspects))
        with _Snapshot(database) as snapshot:
            agents = None if suspects is None else [_agent(name) for name in suspects]
            truth = _truth(snapshot.execute(TRUTH) if agents is None else snapshot.execute(f"{TRUTH} AND a.id::text = ANY (%s)", [agents]))
            highest = int(snapshot.execute("SELECT coalesce(max(seq), 0) FROM phoenix.outbox").fetchone()[0])
        if suspects is None:
            found.agents, found.keys = len(truth), len(held)
        if remove_gone:
            gone = {name: there for name, there in held.items() if name not in truth}
            found.retired += retire(client, gone)
            held = {name: there for name, there in held.items() if name in truth}
        differing = dict(_differences(held, truth, highest))
        suspects = list(differing)
        if not suspects or time.monotonic() - started >= settle_s:
            found.differences = sorted(differing.values(), key=lambda one: (one.kind, one.agent))
            found.seconds = time.monotonic() - started
            return found
        time.sleep(pause_s)


def _differences(held: Mapping[str, Held], truth: Mapping[str, Levels], highest: int) -> Iterator[tuple[str, Difference]]:
    """By the key's name. `highest` is the newest event that PostgreSQL has, 0 when all are purged."""
    for name, levels in truth.items():
        there = held.get(name)
        if there is None:
            yield name, Difference(_agent(name), "missing", None, levels)
        elif there.levels != levels:
            yield name, Difference(_agent(name), "differs", there.levels, levels)
        elif not there.known(highest):
            yield name, Difference(_agent(name), "future", there.levels, levels)
    for name in held.keys() - truth.keys():
        yield name, Difference(_agent(name), "gone", held[name].levels, None)


def _agent(name: str) -> str:
    return name.removeprefix(PREFIX).removesuffix(SUFFIX)


def _truth(rows: Iterable[tuple[str, float, float, float, float]]) -> dict[str, Levels]:
    return {key(agent): (dopamine, oxytocin, adrenaline, cortisol) for agent, dopamine, oxytocin, adrenaline, cortisol in rows}


def _held(client: Any, names: Iterable[str] | None = None) -> Iterator[tuple[str, Held]]:
    """What Redis holds, by the name of the key: everything, or these."""
    wanted = client.scan_iter(match=PATTERN, count=BATCH) if names is None else names
    asked: list[str] = []

    def lines() -> Iterator[tuple[str, list[str]]]:
        for name in wanted:
            asked.append(name)
            yield name, []

    for answer in _run(client, "read", lines()):
        values = json.loads(answer)
        for name, value in zip(asked, values, strict=True):
            if names is None or any(part is not False for part in value):
                yield name, Held(_levels(value[: len(HORMONES)]), value[len(HORMONES)] or "")
        asked.clear()


def _levels(values: Sequence[str | Literal[False]]) -> Levels | None:
    try:
        dopamine, oxytocin, adrenaline, cortisol = (float(value) for value in values if value is not False)
    except ValueError:
        return None
    return dopamine, oxytocin, adrenaline, cortisol


def _texts(levels: Levels) -> list[str]:
    """The shortest text of each number that reads back as the same number."""
    return [repr(one) for one in levels]


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _run(client: Any, what: str, calls: Iterable[tuple[str, list[str]]]) -> Iterator[Any]:
    """The script's answer for each BATCH of (key, line). A script that Redis does not have yet is sent to it."""
    script, remaining = client.register_script(SCRIPT), iter(calls)
    while some := list(islice(remaining, BATCH)):
        yield script(keys=[name for name, _ in some], args=[what, json.dumps([line for _, line in some])])


class _Snapshot:
    """A REPEATABLE READ, READ ONLY transaction of a psycopg connection in autocommit mode."""

    def __init__(self, database: Any) -> None:
        self.database = database

    def __enter__(self) -> Any:
        self.database.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return self.database

    def __exit__(self, kind: object, *_: object) -> None:
        self.database.execute("ROLLBACK" if kind else "COMMIT")
