"""What Prometheus asks of Kafka: topics, the lag of consumers and the broker's own figures, by one program on every host of the group.

The broker's JMX agent knows HTTPS and no client certificates; it listens on the loopback address, and the program passes on what it says.
"""

from __future__ import annotations

import json
import sys

from pyinfra import host
from pyinfra.api import deploy

from deploys import exporters, tls
from deploys.kafka import client, cluster, content
from deploys.lib import hosts, verify
from deploys.lib.operations import Directory, File, files, service, template
from deploys.lib.settings import ROOT, HostSettings, KafkaSettings

USER = "phoenix-kafka-exporter"
PROGRAM = f"{content.LIBRARY}/kafka_exporter.py"
CLIENT = f"{content.LIBRARY}/kafka_client.py"
CONFIG, PASSWORD = "/etc/phoenix-kafka-exporter/config.json", "/etc/phoenix-kafka-exporter/password"
UNIT = "/etc/systemd/system/phoenix-kafka-exporter.service"


@deploy("Kafka exporter")
def exporter() -> None:
    """Prometheus sees Kafka: `phoenix_kafka_*` and `kafka_*`."""
    settings = hosts.settings(KafkaSettings)
    exporters.account(name=f"User {USER}", user=USER)
    tls.readers(name="The exporter may read the host's key", users=[USER])
    files(
        name="Program, settings and unit",
        entries=[
            File(PROGRAM, (ROOT / "services" / "kafka_exporter.py").read_text(encoding="utf-8"), mode="755"),
            Directory("/etc/phoenix-kafka-exporter"),
            File(CONFIG, configuration),
            File(PASSWORD, hosts.secret("kafka/monitor"), mode="600"),
            File(UNIT, template("kafka/phoenix-kafka-exporter.service.j2", exporter=sys.modules[__name__], python=client.PYTHON, tls=tls)),
        ],
    )
    service(
        name="Kafka exporter runs with this configuration",
        unit="phoenix-kafka-exporter.service",
        restart_on=[PROGRAM, CLIENT, CONFIG, PASSWORD, UNIT, client.DIGEST, *tls.ALL],
    )
    url = f"https://{hosts.settings(HostSettings).address}:{settings.metrics_port}/metrics"
    verify.answers(
        name="Kafka is measured",
        script=f"metrics=$({tls.CURL} --max-time 10 {url}) && echo \"$metrics\" | grep '^phoenix_kafka_up 1' "
        "&& echo \"$metrics\" | grep '^kafka_broker_state 3'",
        seconds=60,
        problem=f"Kafka on {host.name} is not measured at {url}: look at 'phoenix logs kafka-exporter'.",
    )


def configuration() -> str:
    """What services/kafka_exporter.py reads."""
    settings = hosts.settings(KafkaSettings)
    declared = {
        name: {
            "partitions": topic.partitions,
            "copies": cluster.copies(len(cluster.members())),
            "retention_ms": topic.retention_h * content.HOUR_MS,
        }
        for name, topic in settings.topics.items()
    }
    return json.dumps(
        {
            "bootstrap": cluster.bootstrap(),
            "user": "monitor",
            "topics": declared,
            "jmx": f"127.0.0.1:{settings.metrics_port}",
            "addresses": [hosts.settings(HostSettings).address],
            "port": settings.metrics_port,
            "ca": tls.CA,
            "certificate": tls.CERTIFICATE,
            "key": tls.KEY,
        },
        indent=1,
    )
