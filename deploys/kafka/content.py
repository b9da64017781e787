"""What is in Kafka: topics, users and their rights, brought to what the inventory and users.py say, by the first host of the group.

A program on the host compares and repairs (services/kafka_admin.py), without a JVM. What it needs to know, passwords among it, is in a file
for root; a run that changes nothing is one call.
"""

from __future__ import annotations

import json

from pyinfra import context, host
from pyinfra.api import deploy, operation

from deploys import tls
from deploys.kafka import client, cluster, users
from deploys.kafka.broker import CONFIGURATION
from deploys.lib import facts, findings, generated, hosts
from deploys.lib.operations import Commands, File, files, refusal
from deploys.lib.settings import ROOT, KafkaSettings

LIBRARY = "/usr/local/lib/phoenix"
SOURCES = [ROOT / "services" / name for name in ("kafka_admin.py", "kafka_client.py")]
ADMIN = f"{LIBRARY}/kafka_admin.py"
WANTED = f"{CONFIGURATION}/content.json"
PATIENCE_S = 60
HOUR_MS = 3600 * 1000


def manages() -> bool:
    """Whether the present host is the one that looks after the cluster's content."""
    return str(host.name) == str(cluster.members()[0].name)


@deploy("Kafka's topics, users and rights")
def content() -> None:
    """Every topic has its partitions and retention, every user its password, and nobody a right that is not in the table."""
    client.installed()
    entries = [File(f"{LIBRARY}/{path.name}", path.read_text(encoding="utf-8"), mode="755") for path in SOURCES]
    if manages():
        entries.append(File(WANTED, wanted, mode="600"))
    files(name="Program and what it is to bring about", entries=[*entries])
    if manages():
        as_declared(name="Topics, users and rights are as declared")


def topics() -> dict[str, dict[str, object]]:
    """Partitions, copies and settings of each topic, as the cluster should have them."""
    brokers = len(cluster.members())
    return {
        name: {"partitions": topic.partitions, "copies": cluster.copies(brokers), "config": topic_config(topic.retention_h)}
        for name, topic in hosts.settings(KafkaSettings).topics.items()
    }


def topic_config(retention_h: int) -> dict[str, str]:
    """A topic's settings. Only whole segments are deleted, so one holds no more than a quarter of the time, and a day at most."""
    retention_ms = retention_h * HOUR_MS
    return {"cleanup.policy": "delete", "retention.ms": str(retention_ms), "segment.ms": str(min(retention_ms // 4, 24 * HOUR_MS))}


def wanted() -> str:
    """What services/kafka_admin.py reads."""
    secrets = hosts.secrets()
    return json.dumps(
        {
            "bootstrap": cluster.bootstrap(),
            "ca": tls.CA,
            "users": {name: secrets.get(f"kafka/{name}") for name in generated.KAFKA_USERS},
            "topics": topics(),
            "rules": [list(vars(rule).values()) for rule in users.rules()],
        },
        indent=1,
    )


@operation()
def as_declared() -> Commands:
    """What differs is put back. A topic that has more partitions than declared cannot be: it is named, and the host fails."""
    patience = PATIENCE_S if context.state.is_executing else 0
    program = f"{client.PYTHON} {ADMIN} --wanted {WANTED}"
    found = host.get_fact(facts.Json, script=f"{program} --patience {patience} check")
    if found == []:
        return
    if found is None:
        findings.report("Kafka's topics, users and rights cannot be compared with what is declared")
    for difference in found or []:
        findings.report(f"Kafka: {difference['what']}")
    if final := [one["what"] for one in found or [] if not one["repairable"]]:
        if len(final) < len(found or []):
            yield f"{program} --patience {patience} apply || true"
        yield refusal(". ".join(final))
        return
    yield f"{program} --patience {PATIENCE_S} apply"
