"""The broker: Kafka's jars under a JVM, its settings, its disk, its unit. In one process with a controller, on every host of the group.

A cluster is never begun by several hosts at once: the first by name begins it alone, and every other one joins it. So a first deploy, one
more host in the inventory and a machine made anew are the same thing.
"""

from __future__ import annotations

import shlex
import sys

from pyinfra import host
from pyinfra.api import StringCommand, deploy, operation

from deploys import base, exporters, tls
from deploys.kafka import cluster, users
from deploys.lib import artifacts, facts, findings, generated, hosts, java, sizing
from deploys.lib.operations import Commands, Directory, File, files, refusal, service, template, upload
from deploys.lib.rendering import TEMPLATES
from deploys.lib.settings import HostSettings, KafkaSettings

PACKAGES = java.PACKAGES
SERVICE = "phoenix-kafka"
USER = "phoenix-kafka"
HOME = "/opt/phoenix/kafka"
CONFIGURATION = "/etc/phoenix-kafka"
CONFIG, LOG4J, JMX = (f"{CONFIGURATION}/{name}" for name in ("server.properties", "log4j2.xml", "jmx.yml"))
STATE = "/var/lib/phoenix-kafka"
DATA = f"{STATE}/data"
META = f"{DATA}/meta.properties"
"""What formatting leaves on the node's disk: its number and the cluster's name."""
KEYSTORE = "/run/phoenix-kafka/keystore.pem"
AGENT = f"{HOME}/jmx_prometheus_javaagent-1.0.1.jar"
UNIT = f"/etc/systemd/system/{SERVICE}.service"
JVM = java.Jvm(SERVICE, USER, jars=HOME)
START_S = 90
"""How long a broker may take to be there: it reads its logs first when it was killed."""


def preflight() -> None:
    """Raise SettingsError, before anything changes, when two members would have the same number."""
    cluster.node_ids()


@deploy("Kafka")
def broker() -> None:
    """The broker runs in the inventory's cluster and answers."""
    settings = hosts.settings(KafkaSettings)
    exporters.account(name=f"User {USER}", user=USER)
    tls.readers(name="Kafka may read the host's key", users=[USER])
    upload(name="Kafka", source=lambda: artifacts.jars(TEMPLATES / "kafka" / "pom.xml"), directory=HOME)
    brokers = len(cluster.members())
    own = sys.modules[__name__]
    files(
        name="Configuration",
        entries=[
            Directory(CONFIGURATION),
            Directory(STATE, USER, USER, "700"),
            Directory(DATA, USER, USER, "700"),
            File(
                CONFIG,
                template(
                    "kafka/server.properties.j2",
                    cfg=settings,
                    address=hosts.settings(HostSettings).address,
                    node_id=cluster.node_ids()[str(host.name)],
                    controllers=cluster.controllers(),
                    copies=cluster.copies(brokers),
                    in_sync=cluster.in_sync(brokers),
                    super_users=users.SUPER_USERS,
                    data=DATA,
                    keystore=KEYSTORE,
                    tls=tls,
                    password=hosts.secret("kafka/broker"),
                ),
                USER,
                USER,
                "600",
            ),
            File(LOG4J, template("kafka/log4j2.xml.j2")),
            File(JMX, template("kafka/jmx.yml.j2")),
            File(UNIT, template("kafka/phoenix-kafka.service.j2", cfg=settings, heap_mb=_heap_mb, broker=own, java=java, tls=tls)),
        ],
    )
    java.noted(name="A broker without an archive of classes notes them", jvm=JVM)
    # One after the other: the second joins the first, and a restart never takes two copies away.
    formatted(name="A node without data begins the cluster, or joins it", _serial=True)
    runs(name="Kafka runs with this configuration", _serial=True)


def _heap_mb() -> int:
    return hosts.settings(KafkaSettings).heap_mb or sizing.kafka_heap_mb(base.memory_mb())


@operation()
def formatted() -> Commands:
    """The node's disk bears the cluster's name. Only the first member begins a cluster, and only when no other has data of one."""
    named = host.get_fact(facts.Output, script=f"sed -n 's/^cluster.id=//p' {META}")
    wanted = hosts.secrets().get(generated.KAFKA_CLUSTER)
    if named == wanted:
        return
    if named and not named.endswith(facts.FAILED):
        problem = (
            f"{DATA} on {host.name} is of the cluster {named}, not of this inventory's: move it away if it is of no more use (everything "
            "in Kafka can be made again from PostgreSQL), then deploy again."
        )
        findings.report(problem)
        yield refusal(problem)
        return
    others = [one for one in cluster.members() if one.name != host.name]
    holding = [one for one in others if one.connected and not one.get_fact(facts.Output, script=f"test -e {META}").endswith(facts.FAILED)]
    unseen = [str(one.name) for one in others if not one.connected]
    first = host.name == cluster.members()[0].name
    findings.report(f"Kafka on {host.name} has no data")
    if first and not holding and unseen:
        yield refusal(
            f"{', '.join(unseen)} should be in Kafka's cluster with {host.name} and cannot be asked whether there is one: deploy them "
            "together, or leave those that are lost out of the inventory."
        )
        return
    arguments = ["kafka.tools.StorageTool", "format", "--cluster-id", wanted, "--config", CONFIG]
    arguments += ["--standalone"] if first and not holding else ["--no-initial-controllers"]
    for user in users.SUPER_USERS:
        # The others' are managed through the running cluster; these two have to be there before it runs.
        arguments += ["--add-scram", f"SCRAM-SHA-512=[name={user},password={hosts.secrets().get(f'kafka/{user}')}]"]
    # The launcher reads the arguments, passwords among them, from a file: nobody sees them in the list of processes.
    yield StringCommand(
        f"set -e; umask 077; d=$(mktemp -d); trap 'rm -rf \"$d\"' EXIT; cat >$d/arguments; chown -R {USER} $d; "
        f"runuser -u {USER} -- java -Xmx128m -XX:TieredStopAtLevel=1 -cp '{HOME}/*' -Dlog4j2.configurationFile=file:{LOG4J} @$d/arguments",
        _stdin="\n".join(f'"{one}"' for one in arguments) + "\n",
    )


@operation()
def runs() -> Commands:
    """The unit runs with what is on the disk now; after a start it is waited for until the broker serves."""
    settings = hosts.settings(KafkaSettings)
    files_read = [CONFIG, LOG4J, JMX, UNIT, JVM.dropin, f"{HOME}/.phoenix-digest", *tls.ALL]
    commands = list(service._inner(unit=f"{SERVICE}.service", restart_on=files_read))
    yield from commands
    if not commands:
        return
    asked = f"curl -sf --max-time 5 http://127.0.0.1:{settings.metrics_port}/metrics"
    running = f"{asked} | grep -q '^kafka_broker_state 3'"
    # In a cluster of three: the partitions of this one have caught up before the next host stops its own.
    caught_up = f"{asked} | grep -q '^kafka_replicas_underreplicatedpartitions 0'"
    late = f"Kafka on {host.name} does not serve within {START_S} s: look at 'phoenix logs kafka'."
    yield (
        f"end=$(($(date +%s) + {START_S})); until {running} && {caught_up}; do "
        f"test $(date +%s) -lt $end || {{ echo {shlex.quote(late)} >&2; exit 1; }}; sleep 0.5; done"
    )


def archive() -> None:
    """The broker's next start finds its classes. Last in a deploy: what its clients have it load belongs to them."""
    java.archived(name="Kafka | The next start finds its classes", jvm=JVM)
