"""backup, restore, failover, rebuild and drill as a person meets them: bad input is one sentence, exit code 2, and nothing is touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.ops.conftest import Command
from tests.unit.ops.test_ops_command import one_sentence

Inventory = Callable[..., Path]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("restore",), "say how far to go back"),
        (("restore", "--to", "noon"), "'noon' is no point in time"),
        (("restore", "--to", "2099-01-01 00:00:00"), "is in the future"),
        (("restore", "--to-lsn", "12"), "'12' is no LSN"),
        (("restore", "--latest", "--undo"), "not allowed with"),
        (("restore", "--latest", "--without", "nine"), "nine is no member of the cluster phoenix"),
        (("restore", "--latest", "--without", "one"), "--without leaves no member of phoenix"),
        (("backup", "huge"), "invalid choice: 'huge'"),
        (("backup", "full", "--list"), "--list takes no backup"),
        (("failover",), "is one alone: there is nobody to fail over to"),
        (("failover", "--to", "nine"), "has no host nine"),
        (("rebuild",), "HOST"),
        (("rebuild", "nine"), "has no host nine"),
        (("rebuild", "one"), "one cannot be reached over SSH: bring a bare Debian machine up at 127.0.0.1"),
        (("drill",), "restore|failover|rebuild"),
        (("drill", "flood"), "invalid choice: 'flood'"),
        (("drill", "rebuild", "--fault", "kill"), "--fault belongs to a drill of failover"),
        (("drill", "failover", "--bare"), "--bare belongs to a drill of rebuild"),
        (("drill", "failover"), "is one alone: a drill of failover takes a standby"),
        (("drill", "restore"), "no host in the group drill"),
    ],
)
def test_bad_input_is_one_sentence(phoenix: Command, inventory: Inventory, arguments: tuple[str, ...], says: str) -> None:
    ended = phoenix(*arguments, "-i", str(inventory()))
    assert says in one_sentence(ended)
    assert ended.code == 2
