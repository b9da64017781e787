"""The faults: each a way to break the leader, or what it stands on, and the way to mend it. All are done to real machines.

What is not here, and why: a clock that jumps. The lab's machines are containers and have this computer's clock; setting it back would
hit the witness as well, and shifting it for single processes proves nothing about the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from tests.drills import network
from tests.drills.cluster import Cluster
from tests.drills.machines import DrillError, Machine

Act = Callable[[Cluster, Machine], None]


@dataclass(frozen=True)
class Fault:
    """Something that befalls the leader, which `inject` and `mend` are given. Times are in seconds, as a writer outside sees them."""

    name: str
    what: str
    inject: Act
    mend: Act
    limit_s: float
    """The longest outage that is promised."""
    median_s: float | None = None
    """The promise for the median, where there is one."""
    moves: bool = True
    """Whether another member must lead afterwards; else the same must still lead, after the fault has lasted `lasts_s`."""
    lasts_s: float = 0.0
    newcomers: bool = False
    """Whether the writers log in for every row: sessions that are open do not notice this fault."""


def _nothing(cluster: Cluster, machine: Machine) -> None:
    return


def _mend_network(cluster: Cluster, machine: Machine) -> None:
    network.mend()


def _postmaster(cluster: Cluster) -> str:
    return f"$(head -n 1 {cluster.data}/postmaster.pid)"


def kill_postmaster(cluster: Cluster, leader: Machine) -> None:
    """The postmaster ends at once, as by the kernel's out-of-memory killer."""
    leader.run(f"kill -KILL {_postmaster(cluster)}")


def freeze_postmaster(cluster: Cluster, leader: Machine) -> None:
    """The postmaster alone stands still: sessions that are open work on, nobody new gets in."""
    leader.run(f"kill -STOP {_postmaster(cluster)}")


def freeze_postgresql(cluster: Cluster, leader: Machine) -> None:
    """Every process of PostgreSQL stands still, as when its disk does not answer."""
    leader.run("pkill -STOP -u postgres -x postgres")


def thaw_postgresql(cluster: Cluster, machine: Machine) -> None:
    """Whatever of PostgreSQL still stands still goes on; it may have been killed meanwhile."""
    machine.run("pkill -CONT -u postgres -x postgres || true")


def freeze_patroni(cluster: Cluster, leader: Machine) -> None:
    """Patroni stands still, and PostgreSQL below it runs."""
    leader.run("kill -STOP $(systemctl show -p MainPID --value patroni.service)")


def thaw_patroni(cluster: Cluster, machine: Machine) -> None:
    """Patroni goes on, if it is still the same process."""
    machine.run("kill -CONT $(systemctl show -p MainPID --value patroni.service) || true")


def power_off(cluster: Cluster, leader: Machine) -> None:
    """The machine loses its power."""
    leader.power_off()


def boot(cluster: Cluster, machine: Machine) -> None:
    """It is switched on again."""
    if not machine.runs():
        machine.boot()


def isolate(cluster: Cluster, leader: Machine) -> None:
    """The machine's cable is out: neither the other machines nor clients reach it."""
    network.cut(leader, cluster.others(leader), reachable=False)


def cut_from_standby(cluster: Cluster, leader: Machine) -> None:
    """The leader and its standbys do not reach each other; all others reach both."""
    network.cut(leader, cluster.standbys(leader))


def cut_from_etcd(cluster: Cluster, leader: Machine) -> None:
    """The leader reaches no other member of etcd; all else works."""
    network.cut(leader, [machine for machine in cluster.etcd if machine != leader], ports=cluster.etcd_ports)


def stop_etcd(*positions: int) -> Act:
    """Kill these members of etcd (positions in the inventory) and keep them down."""

    def act(cluster: Cluster, leader: Machine) -> None:
        for position in positions:
            # Stopping comes after killing: an orderly stop would hand etcd's leadership over first.
            cluster.etcd[position].run("systemctl kill -s KILL etcd.service; systemctl stop etcd.service")

    return act


def start_etcd(cluster: Cluster, machine: Machine) -> None:
    """Every member of etcd runs."""
    for member in cluster.etcd:
        member.run("systemctl start --no-block etcd.service")


def switch_over(cluster: Cluster, leader: Machine) -> None:
    """Patroni is asked to hand the lead to a standby, in order. Raises DrillError when it refuses."""
    candidate = cluster.standbys(leader)[0]
    wish = json.dumps({"leader": leader.name, "candidate": candidate.name})
    said = cluster.patroni(leader, "switchover", "-X", "POST", "-H", "Content-Type: application/json", "--data", wish, timeout_s=60)
    if "Successfully" not in said:
        raise DrillError(f"Patroni does not hand the lead over to {candidate.name}: {said or 'no answer'}")


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("kill", "postmaster killed (SIGKILL)", kill_postmaster, _nothing, limit_s=6, median_s=3),
        Fault("switchover", "planned switchover", switch_over, _nothing, limit_s=3),
        Fault("freeze", "postmaster alone frozen (SIGSTOP)", freeze_postmaster, thaw_postgresql, limit_s=30, newcomers=True),
        Fault("freeze-all", "all of PostgreSQL frozen (SIGSTOP)", freeze_postgresql, thaw_postgresql, limit_s=30),
        Fault("freeze-patroni", "Patroni frozen (SIGSTOP)", freeze_patroni, thaw_patroni, limit_s=25),
        Fault("power-off", "leader's machine powered off", power_off, boot, limit_s=25),
        Fault("isolate", "leader cut off from everybody", isolate, _mend_network, limit_s=25),
        Fault("cut-standby", "leader cut off from its standby", cut_from_standby, _mend_network, limit_s=25, moves=False, lasts_s=40),
        Fault("cut-etcd", "leader cut off from the other etcd members", cut_from_etcd, _mend_network, limit_s=25, moves=False, lasts_s=40),
        Fault("etcd-1", "first etcd member lost", stop_etcd(0), start_etcd, limit_s=6, moves=False, lasts_s=25),
        Fault("etcd-2", "second etcd member lost", stop_etcd(1), start_etcd, limit_s=6, moves=False, lasts_s=25),
        Fault("etcd-3", "third etcd member lost", stop_etcd(2), start_etcd, limit_s=6, moves=False, lasts_s=25),
        Fault("etcd-quorum", "two of three etcd members lost", stop_etcd(0, 2), start_etcd, limit_s=6, moves=False, lasts_s=40),
    )
}
"""Every fault by the name that bench/failover.py knows it by."""


def mend_everything(cluster: Cluster) -> None:
    """Undo whatever fault may be in force, so that the next drill begins with a whole cluster."""
    network.mend()
    for machine in cluster.machines:
        boot(cluster, machine)
    for member in cluster.members:
        thaw_postgresql(cluster, member)
        thaw_patroni(cluster, member)
        member.run("systemctl start --no-block patroni.service")
    if cluster.etcd:
        start_etcd(cluster, cluster.etcd[0])
