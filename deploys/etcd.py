"""etcd: holds who leads. Members speak TLS and know each other, and their clients, by certificate.

A cluster is never started by several members at once: the first begins alone, and every other one joins whom it finds, as a learner until
it has caught up. So a first deploy, one more host in the inventory and a machine made anew are the same thing.
"""

from __future__ import annotations

import shlex

from pyinfra import host
from pyinfra.api import Host, deploy, operation

from deploys import tls
from deploys.lib import facts, findings, hosts, verify
from deploys.lib.operations import Commands, Directory, File, files, refusal, service, template
from deploys.lib.settings import EtcdSettings, HostSettings, of

PACKAGES = ["etcd-server", "etcd-client"]
CONFIG = "/etc/default/etcd"
DROP_IN = "/etc/systemd/system/etcd.service.d/phoenix.conf"
DATA = "/var/lib/etcd/phoenix"
BOOTSTRAP = "/etc/phoenix/etcd-bootstrap"


@deploy("etcd")
def etcd() -> None:
    """The member runs in the inventory's cluster and is healthy."""
    settings = hosts.settings(EtcdSettings)
    own = hosts.settings(HostSettings).address
    tls.readers(name="etcd may read the host's key", users=["etcd"])
    files(
        name="Configuration",
        entries=[
            Directory(DATA, "etcd", "etcd", "700"),
            File(CONFIG, template("etcd/etcd.j2", cfg=settings, name=str(host.name), address=own, data=DATA, tls=tls)),
            File(DROP_IN, template("etcd/etcd.service.conf.j2", bootstrap=BOOTSTRAP)),
        ],
    )
    # One member after the other: each joins those before it, and a restart never takes the majority away.
    member(name="A member without data starts the cluster, or joins it", _serial=True)
    service(name="etcd runs with this configuration", unit="etcd.service", restart_on=[CONFIG, DROP_IN], _serial=True)
    verify.answers(
        name="etcd is healthy",
        script=f"{etcdctl(settings)} endpoint health",
        seconds=60,
        problem=f"etcd on {host.name} is not healthy: look at 'phoenix logs etcd', and whether its members reach each other's "
        f"ports {settings.client_port} and {settings.peer_port}.",
    )


@operation()
def member() -> Commands:
    """A host without data of etcd becomes a member: of the cluster that the others run, or, where nobody has one, of a new one."""
    settings, own = hosts.settings(EtcdSettings), hosts.settings(HostSettings).address
    others = [one for one in hosts.members("etcd") if one.name != host.name and one.name not in settings.lost]
    learner = f"{etcdctl(settings)} endpoint status -w json 2>/dev/null | grep -q '\"isLearner\": *true' && echo learner"
    state = host.get_fact(facts.Output, script=f"{_HAS_DATA} && {{ {learner} || true; }}")
    if state == "learner":  # a run ended between its joining and its vote
        findings.report(f"etcd on {host.name} has no vote")
        yield _promote(others)
    if not state.endswith(facts.FAILED):
        return
    findings.report(f"etcd on {host.name} has no data")
    name, peer_url = str(host.name), f"https://{own}:{settings.peer_port}"
    running = [one for one in others if not host.get_fact(facts.Output, script=_answers(one)).endswith(facts.FAILED)]
    if not running:
        if problem := _why_not_alone(others):
            findings.report(problem)
            yield refusal(problem)
            return
        yield _start(f"ETCD_INITIAL_CLUSTER={name}={peer_url}\\nETCD_INITIAL_CLUSTER_STATE=new\\n")
        return
    # A member of this name or address is what the machine was before it lost its data. `member add` prints the variables to start with.
    client = etcdctl(settings, endpoints=[_client_url(one) for one in running])
    stale = f"{client} member list | awk -F', ' -v n={shlex.quote(name)} -v u={peer_url} '$3 == n || $4 == u {{print $1}}'"
    yield f'for id in $({stale}); do {client} member remove "$id" >/dev/null || exit 1; done'
    # A cluster takes one learner at a time: the next host may come when this one has its vote.
    # And it takes none while a member is not well connected, which it counts from five seconds after that one came.
    add = f"{client} member add {shlex.quote(name)} --learner --peer-urls={peer_url}"
    refused = f"The members of etcd do not let {host.name} join: look at 'phoenix logs etcd', then deploy again."
    yield (
        f"set -e; end=$(($(date +%s) + 60)); until added=$({add} 2>/dev/null); do "
        f"test $(date +%s) -lt $end || {{ {add} || true; echo {shlex.quote(refused)} >&2; exit 1; }}; sleep 0.5; done; "
        f"printf '%s\\n' \"$added\" | grep '^ETCD_INITIAL_CLUSTER' | tr -d '\"' >{BOOTSTRAP}; systemctl daemon-reload; systemctl start etcd"
    )
    yield _promote(running)


def _promote(others: list[Host]) -> str:
    """Shell that gives this host's member its vote once it has caught up. Asks the others: a learner passes no request on."""
    client = etcdctl(hosts.settings(EtcdSettings), endpoints=[_client_url(one) for one in others])
    number = f"{client} member list | awk -F', ' -v n={shlex.quote(str(host.name))} '$3 == n {{print $1}}'"
    late = f"etcd on {host.name} does not catch up with its cluster: look at 'phoenix logs etcd', then deploy again."
    return (
        f"end=$(($(date +%s) + 60)); until {client} member promote $({number}) >/dev/null 2>&1; do "
        f"test $(date +%s) -lt $end || {{ echo {shlex.quote(late)} >&2; exit 1; }}; sleep 0.3; done"
    )


def etcdctl(settings: EtcdSettings, *, endpoints: list[str] | None = None) -> str:
    """The etcdctl command with this host's identity, asking its own member or `endpoints` (URLs)."""
    asked = ",".join(endpoints or [f"https://127.0.0.1:{settings.client_port}"])
    return (
        f"ETCDCTL_API=3 etcdctl --endpoints {asked} "
        f"--cacert {tls.CA} --cert {tls.CERTIFICATE} --key {tls.KEY} --dial-timeout 2s --command-timeout 2s"
    )


_HAS_DATA = f"test -d {DATA}/member"


def _client_url(member: Host) -> str:
    return f"https://{hosts.address(member)}:{of(member, EtcdSettings).client_port}"


def _answers(member: Host) -> str:
    """Shell that succeeds when that member serves: it answers a request that needs the cluster's majority."""
    return f"{etcdctl(hosts.settings(EtcdSettings), endpoints=[_client_url(member)])} get --limit 1 /"


def _why_not_alone(others: list[Host]) -> str:
    """Why this host must not begin a new cluster; empty when it may: the other members are here, in this run, and have no data either."""
    unseen = [str(one.name) for one in others if not one.connected]
    holding = [str(one.name) for one in others if one.connected and not one.get_fact(facts.Output, script=_HAS_DATA).endswith(facts.FAILED)]
    if unseen:
        return (
            f"{', '.join(unseen)} should be in etcd's cluster with {host.name} and cannot be asked: deploy them together, "
            f"or, when they are lost for good, run 'phoenix rebuild {host.name}'."
        )
    if holding:
        return (
            f"{', '.join(holding)} has etcd's data and does not answer, and {host.name} must not begin a second cluster: "
            "see docs/runbooks/EtcdDown.md, or, when they are lost for good, run "
            f"'phoenix rebuild {host.name}'."
        )
    return ""


def _start(environment: str) -> str:
    """Shell that starts the member for the first time, with these variables."""
    return f"set -e; printf {shlex.quote(environment)} >{BOOTSTRAP}; systemctl daemon-reload; systemctl start etcd"
