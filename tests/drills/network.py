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

    A tailnet finds its way around a cut by any relay that both reach: the world's is cut from `one` as well. With `ports` only TCP from
    and to these ports is lost, on whichever side they are; in a tailnet, whose packets show no ports, inside `one`.
    """
    others = tuple(others)
    if ports and one.address != one.underlay:
        _cut_inside(one, others, ports)
        return
    apart = ", ".join(sorted({other.underlay for other in others} | ({_relay()} if one.address != one.underlay else set())))
    _ensure()
    add, pairs = f"add rule bridge {_table()}", [(one.underlay, f"{{ {apart} }}"), (f"{{ {apart} }}", one.underlay)]
    listed = ", ".join(map(str, ports))
    what = [f"tcp {end} {{ {listed} }}" for end in ("sport", "dport")] if ports else [""]
    rules = [f"{add} forward ip saddr {source} ip daddr {destination} {match} drop" for source, destination in pairs for match in what]
    if not reachable:
        _hidden.add(one.name)
        rules += [f"{add} input ip saddr {one.underlay} drop", f"{add} output ip daddr {one.underlay} drop"]
    shell.run(["nft", "-f", "-"], stdin="\n".join(rules) + "\n")


def cut_one_way(source: Machine, destination: Machine) -> None:
    """Lose what `source` sends to `destination`; the other direction works: each sees another picture."""
    _ensure()
    rule = f"add rule bridge {_table()} forward ip saddr {source.underlay} ip daddr {destination.underlay} drop\n"
    shell.run(["nft", "-f", "-"], stdin=rule)


_INSIDE = "phoenix_cut"
_inside: list[Machine] = []
_hidden: set[str] = set()


def hidden(machine: Machine) -> bool:
    """Whether this computer is cut from the machine, too."""
    return machine.name in _hidden


def _relay() -> str:
    """The address of the machine that relays the tailnet's packets."""
    this = Lab.from_environment()
    return next(this.address(machine) for machine in this.machines if machine.name == "world")


def _cut_inside(one: Machine, others: tuple[Machine, ...], ports: Sequence[int]) -> None:
    """Lose TCP from and to these ports of the others on the tailnet's interface of `one`."""
    apart, listed = ", ".join(other.address for other in others), ", ".join(map(str, ports))
    rules = "\n".join(
        f"    chain {hook} {{ type filter hook {hook} priority -10; policy accept; "
        f"ip {end} {{ {apart} }} tcp sport {{ {listed} }} drop; ip {end} {{ {apart} }} tcp dport {{ {listed} }} drop; }}"
        for hook, end in (("input", "saddr"), ("output", "daddr"))
    )
    _inside.append(one)
    one.run("nft -f -", stdin=f"table inet {_INSIDE} {{}}\ndelete table inet {_INSIDE}\ntable inet {_INSIDE} {{\n{rules}\n}}\n")


def mend() -> None:
    """Let everything pass again. Nothing to do is no error."""
    _hidden.clear()
    while _inside:
        _inside.pop().run(f"nft delete table inet {_INSIDE}", check=False)
    shell.run(["nft", "-f", "-"], stdin=f"table bridge {_table()} {{}}\ndelete table bridge {_table()}\n")


def is_cut() -> bool:
    """Whether a cut is in force, for the check that a drill leaves nothing behind."""
    return bool(_inside) or shell.run(["nft", "list", "table", "bridge", _table()], check=False).returncode == 0


def _table() -> str:
    return f"{Lab.from_environment().table}_cuts"


def _ensure() -> None:
    table = _table()
    chains = "\n".join(
        f"    chain {hook} {{ type filter hook {hook} priority filter; policy accept; }}" for hook in ("forward", "input", "output")
    )
    shell.run(["nft", "-f", "-"], stdin=f"table bridge {table} {{\n{chains}\n}}\n")
