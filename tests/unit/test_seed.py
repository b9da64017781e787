"""What seed() refuses before it touches anything; what it loads is tested on a real server in tests/sql/test_seeded.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from ops import seed_words
from ops.seed import SeedRefused, seed


def untouchable(status: TransactionStatus = TransactionStatus.IDLE) -> psycopg.Connection:
    """Knows its transaction status; anything else asked of it is an AttributeError."""
    return cast("psycopg.Connection", SimpleNamespace(info=SimpleNamespace(transaction_status=status)))


@pytest.mark.parametrize("wrong", ["personas", "agents", "tasks"])
def test_a_negative_size_is_refused_by_its_name(wrong: str) -> None:
    sizes: dict[str, Any] = {"personas": 1, "agents": 1, "tasks": 1, wrong: -1}
    with pytest.raises(SeedRefused, match=f"--{wrong} -1"):
        seed(untouchable(), **sizes, progress=print)


def test_tasks_without_agents_are_refused() -> None:
    with pytest.raises(SeedRefused, match="--agents"):
        seed(untouchable(), personas=0, agents=0, tasks=5, progress=print)


def test_a_connection_inside_a_transaction_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        seed(untouchable(TransactionStatus.INTRANS), personas=1, agents=1, tasks=1, progress=print)


def test_shares_are_whole() -> None:
    assert sum(share for _, share in seed_words.STATUSES) == pytest.approx(1)
    assert sum(share for _, share, _ in seed_words.STAGES) == pytest.approx(1)
