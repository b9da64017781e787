"""Cables between the lab's machines, cut and mended: rules on the lab's bridge, which frames between machines cross.

A client on this computer still reaches a machine that is cut off from all others, which is how a drill sees whether an isolated leader
takes writes: in a tailnet by the UDP of the world, whose TCP is cut like everybody's. `reachable=False` cuts that too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lab import Lab, shell
from tests.drills.machines import Machine

_INSIDE = "phoenix_cut"
_inside: list[Machine] = []


def cut(one: Machine, others: Iterable[Machine], *, reachable: bool = True, ports: Sequence[int] = ()) -> None:
    """Let no frame pass between `one` and each of `others`, in either direction; without `reachable` none of this computer's either.

    A tailnet goes around a cut by its relay, so that is cut from `one` as well. With `ports` only TCP from and to these ports is lost, on
    whichever side they are.
    """
    others = tuple(others)
    if ports:
        _cut_ports(one, others, ports)
        return
    _ensure()
    rules = []
    for other in others:
        way = reachable and _is_relay(one, other)
        rules += _between(one.underlay, other.underlay, ["meta l4proto tcp"] if way else [""])
    if one.relay is not None and not any(_is_relay(one, other) for other in others):
        relayed = [f"tcp {end} {one.relay.port}" for end in ("sport", "dport")]
        rules += _between(one.underlay, one.relay.underlay, relayed if reachable else [""])
    if not reachable:
        rules += [f"{_add()} input ip saddr {one.underlay} drop", f"{_add()} output ip daddr {one.underlay} drop"]
    shell.run(["nft", "-f", "-"], stdin="\n".join(rules) + "\n")


def mend() -> None:
    """Let everything pass again. Nothing to do is no error."""
    while _inside:
        _inside.pop().run(f"nft delete table inet {_INSIDE}", check=False)
    shell.run(["nft", "-f", "-"], stdin=f"table bridge {_table()} {{}}\ndelete table bridge {_table()}\n")


def is_cut() -> bool:
    """Whether a cut is in force, for the check that a drill leaves nothing behind."""
    return bool(_inside) or shell.run(["nft", "list", "table", "bridge", _table()], check=False).returncode == 0


def _is_relay(one: Machine, other: Machine) -> bool:
    """Whether either is the other's relay."""
    return any(a.relay is not None and a.relay.underlay == b.underlay for a, b in ((one, other), (other, one)))


def _between(one: str, other: str, matches: Sequence[str]) -> list[str]:
    """Rules that lose what matches, in both directions."""
    pairs = ((one, other), (other, one))
    return [f"{_add()} forward ip saddr {source} ip daddr {target} {match} drop" for source, target in pairs for match in matches]


def _cut_ports(one: Machine, others: Sequence[Machine], ports: Sequence[int]) -> None:
    """Inside `one`, because packets of a tailnet show their ports nowhere else."""
    apart, listed = ", ".join(other.address for other in others), ", ".join(map(str, ports))
    rules = "\n".join(
        f"    chain {hook} {{ type filter hook {hook} priority -10; policy accept; "
        f"ip {end} {{ {apart} }} tcp sport {{ {listed} }} drop; ip {end} {{ {apart} }} tcp dport {{ {listed} }} drop; }}"
        for hook, end in (("input", "saddr"), ("output", "daddr"))
    )
    _inside.append(one)
    one.run("nft -f -", stdin=f"table inet {_INSIDE} {{}}\ndelete table inet {_INSIDE}\ntable inet {_INSIDE} {{\n{rules}\n}}\n")


def _add() -> str:
    return f"add rule bridge {_table()}"


def _table() -> str:
    return f"{Lab.from_environment().table}_cuts"


def _ensure() -> None:
    table = _table()
    chains = "\n".join(
        f"    chain {hook} {{ type filter hook {hook} priority filter; policy accept; }}" for hook in ("forward", "input", "output")
    )
    shell.run(["nft", "-f", "-"], stdin=f"table bridge {table} {{\n{chains}\n}}\n")
