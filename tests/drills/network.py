"""Cables between the lab's machines, cut and mended: rules on the lab's bridge, which frames between machines cross.

This computer is at the bridge itself, not behind it: a client here still reaches a machine that is cut off from all others, which is how
a drill sees whether an isolated leader takes writes. `reachable=False` cuts that too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lab import Lab, shell
from tests.drills.machines import Machine


def cut(one: Machine, others: Iterable[Machine], *, reachable: bool = True, ports: Sequence[int] = ()) -> None:
    """Let no frame pass between `one` and each of `others`, in either direction; without `reachable` none of this computer's either.

    With `ports` only TCP from and to these ports is lost, on whichever side they are.
    """
    apart = ", ".join(other.address for other in others)
    _ensure()
    add, pairs = f"add rule bridge {_table()}", [(one.address, f"{{ {apart} }}"), (f"{{ {apart} }}", one.address)]
    listed = ", ".join(map(str, ports))
    what = [f"tcp {end} {{ {listed} }}" for end in ("sport", "dport")] if ports else [""]
    rules = [f"{add} forward ip saddr {source} ip daddr {destination} {match} drop" for source, destination in pairs for match in what]
    if not reachable:
        rules += [f"{add} input ip saddr {one.address} drop", f"{add} output ip daddr {one.address} drop"]
    shell.run(["nft", "-f", "-"], stdin="\n".join(rules) + "\n")


def cut_one_way(source: Machine, destination: Machine) -> None:
    """Lose what `source` sends to `destination`; the other direction works: each sees another picture."""
    _ensure()
    rule = f"add rule bridge {_table()} forward ip saddr {source.address} ip daddr {destination.address} drop\n"
    shell.run(["nft", "-f", "-"], stdin=rule)


def mend() -> None:
    """Let everything pass again. Nothing to do is no error."""
    shell.run(["nft", "-f", "-"], stdin=f"table bridge {_table()} {{}}\ndelete table bridge {_table()}\n")


def is_cut() -> bool:
    """Whether a cut is in force, for the check that a drill leaves nothing behind."""
    return shell.run(["nft", "list", "table", "bridge", _table()], check=False).returncode == 0


def _table() -> str:
    return f"{Lab.from_environment().table}_cuts"


def _ensure() -> None:
    table = _table()
    chains = "\n".join(
        f"    chain {hook} {{ type filter hook {hook} priority filter; policy accept; }}" for hook in ("forward", "input", "output")
    )
    shell.run(["nft", "-f", "-"], stdin=f"table bridge {table} {{\n{chains}\n}}\n")
