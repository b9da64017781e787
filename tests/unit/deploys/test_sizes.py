"""All of the platform fits the machine it is meant for: the sized shares of every service, added up."""

from __future__ import annotations

import runpy
from typing import Any

import pytest

from deploys.lib import sizes, sizing
from deploys.lib.settings import GROUP_DATA

GB = 1024
USABLE = 0.965
"""Of the RAM that is paid for, what a kernel has to give (7,900 of 8,192 MB)."""
WORKERS = 3
SHARE_ALL_IN_ONE = 0.35
"""postgresql_memory_share of a host that runs everything (docs/sizes.md)."""


def of_rule(name: str, memory_mb: int, otherwise: int) -> int:
    """What the rule `name` of sizing.py gives, `otherwise` as long as there is no such rule."""
    rule: Any = getattr(sizing, name, None)
    return otherwise if rule is None else int(rule(memory_mb))


def planned(memory_mb: int) -> dict[str, int]:
    settings = {key: value for path in GROUP_DATA.glob("*.py") for key, value in runpy.run_path(str(path)).items()}
    neo4j, n8n = getattr(sizing, "neo4j", None), getattr(sizing, "n8n", None)
    graph = neo4j(memory_mb=memory_mb, memory_share=settings.get("neo4j_memory_share", 0.08)) if neo4j else None
    flows = n8n(memory_mb=memory_mb) if n8n else None
    return sizes.plan(
        memory_mb=memory_mb,
        postgresql_share=SHARE_ALL_IN_ONE,
        redis_mb=sizing.redis(memory_mb=memory_mb, memory_share=settings["redis_memory_share"]).maxmemory_mb,
        kafka_heap_mb=of_rule("kafka_heap_mb", memory_mb, max(384, memory_mb // 16)),
        connect_heap_mb=of_rule("connect_heap_mb", memory_mb, max(256, memory_mb // 32)),
        neo4j_mb=graph.heap_mb + graph.page_cache_mb if graph else max(640, int(memory_mb * 0.08)),
        n8n_mb=flows.heap_mb + flows.runner_heap_mb if flows else max(384, memory_mb // 16) + 128,
        workers=WORKERS,
    )


@pytest.mark.parametrize("gb", [8, 16, 32, 64])
def test_all_of_the_platform_fits(gb: int) -> None:
    shares = planned(gb * GB)
    assert sum(shares.values()) <= gb * GB * USABLE, shares


def test_a_machine_that_is_too_small_is_noticed() -> None:
    """The sum can be too much: with half of the memory it is."""
    assert sum(planned(4 * GB).values()) > 4 * GB * USABLE


@pytest.mark.parametrize("gb", [1, 2, 4, 8, 16, 64])
def test_redis_has_room_for_its_file_to_be_written_anew(gb: int) -> None:
    size = sizing.redis(memory_mb=gb * GB, memory_share=0.03)
    assert size.maxmemory_mb >= 64
    assert size.ceiling_mb >= 2 * size.maxmemory_mb + 100


def test_a_larger_machine_gives_redis_no_less() -> None:
    found = [sizing.redis(memory_mb=gb * GB, memory_share=0.03).maxmemory_mb for gb in (1, 2, 4, 8, 16, 32, 64)]
    assert found == sorted(found) and found[3] == 245
