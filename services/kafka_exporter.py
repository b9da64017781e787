#!/opt/phoenix/kafka-client/venv/bin/python
"""Metrics of Kafka for Prometheus: its topics, how far its consumers are behind, and what the broker on this host says of itself.

    kafka_exporter.py --config FILE

Asks the cluster every REFRESH_S as the user `monitor`, who may see everything but content. Answers over HTTPS, only to clients with a
certificate of the platform's authority: `/metrics`, with the figures of the broker's JMX agent appended, and `/topics/NAME`, a line that
`phoenix status` shows. A cluster that is away is `phoenix_kafka_up 0`, never an error, and never an old figure.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec
from kafka_client import Away, Refused, connect, results

REFRESH_S = 10.0
STALE_S = 45.0
"""Figures older than this are no figures: a cluster that hangs looks like one that is away."""
JMX_TIMEOUT_S = 8.0
CLIENT_TIMEOUT_S = 10.0

Partition = tuple[str, int]
HELP = {
    "phoenix_kafka_up": "Whether the cluster answers.",
    "phoenix_kafka_jmx_up": "Whether the broker of this host gives its own figures.",
    "phoenix_kafka_brokers": "Brokers that are there.",
    "phoenix_kafka_topic_partitions": "Partitions of a topic.",
    "phoenix_kafka_topic_retention_seconds": "Time after which a topic's events are deleted.",
    "phoenix_kafka_topic_drift": "Whether a declared topic is missing, or has other partitions, copies or retention than declared.",
    "phoenix_kafka_topic_end_offset": "Events that were ever written to a topic.",
    "phoenix_kafka_consumer_lag": "Events of a topic that a consumer group has not committed.",
    "phoenix_kafka_consumer_committed": "Sum of the offsets that a consumer group has committed in a topic.",
}


@dataclass(frozen=True)
class Seen:
    """The cluster at one moment."""

    brokers: int
    partitions: Mapping[str, int]
    copies: Mapping[str, int]
    retention_ms: Mapping[str, int]
    begins: Mapping[Partition, int]
    ends: Mapping[Partition, int]
    committed: Mapping[str, Mapping[Partition, int]]
    """By consumer group."""
    at: float = field(default_factory=time.monotonic)


def lag(seen: Seen) -> dict[tuple[str, str], int]:
    """Events that each group has yet to commit, by group and topic.

    A partition in which the group has committed nothing counts from its beginning, when it has committed in another one of the topic.
    """
    found: dict[tuple[str, str], int] = {}
    for group, offsets in seen.committed.items():
        for topic in {topic for topic, _ in offsets}:
            behind = 0
            for (name, number), end in seen.ends.items():
                if name == topic:
                    since = max(offsets.get((name, number), 0), seen.begins.get((name, number), 0))
                    behind += max(0, end - since)
            found[group, topic] = behind
    return found


def drift(topic: str, declared: Mapping[str, Any], seen: Seen) -> str:
    """How a topic differs from what is declared, for people; empty when it does not."""
    if topic not in seen.partitions:
        return "is missing"
    faults = []
    if (have := seen.partitions[topic]) != declared["partitions"]:
        faults.append(f"has {have} partitions, not {declared['partitions']}")
    if (copies := seen.copies[topic]) != declared["copies"]:
        faults.append(f"has {copies} copies, not {declared['copies']}")
    if (kept := seen.retention_ms.get(topic)) != declared["retention_ms"]:
        faults.append(f"keeps events for {shown(kept or 0)}, not {shown(declared['retention_ms'])}")
    return ", ".join(faults)


def shown(milliseconds: int) -> str:
    """A retention for people: 7 d, 36 h, 90 s."""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size} {unit}"
    return f"{milliseconds} ms"


def metrics(seen: Seen | None, topics: Mapping[str, Mapping[str, Any]]) -> str:
    """The exposition. Without a cluster it says that, and nothing else."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {"phoenix_kafka_up": [({}, 0 if seen is None else 1)]}
    if seen is not None:
        found["phoenix_kafka_brokers"] = [({}, seen.brokers)]
        found["phoenix_kafka_topic_partitions"] = [({"topic": name}, number) for name, number in sorted(seen.partitions.items())]
        found["phoenix_kafka_topic_retention_seconds"] = [({"topic": name}, ms / 1000) for name, ms in sorted(seen.retention_ms.items())]
        found["phoenix_kafka_topic_drift"] = [({"topic": name}, int(bool(drift(name, one, seen)))) for name, one in sorted(topics.items())]
        ends = _by_topic(seen.ends)
        found["phoenix_kafka_topic_end_offset"] = [({"topic": name}, end) for name, end in sorted(ends.items())]
        found["phoenix_kafka_consumer_lag"] = [
            ({"group": group, "topic": topic}, behind) for (group, topic), behind in sorted(lag(seen).items())
        ]
        found["phoenix_kafka_consumer_committed"] = [
            ({"group": group, "topic": topic}, total)
            for group, offsets in sorted(seen.committed.items())
            for topic, total in sorted(_by_topic(offsets).items())
        ]
    return "".join(exposition(name, samples) for name, samples in found.items())


def _by_topic(offsets: Mapping[Partition, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for (topic, _), offset in offsets.items():
        found[topic] = found.get(topic, 0) + offset
    return found


def exposition(name: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> str:
    """One metric in Prometheus' text format."""
    lines = [f"# HELP {name} {HELP[name]}", f"# TYPE {name} gauge"]
    for labels, value in samples:
        text = ",".join(f'{key}="{_escaped(one)}"' for key, one in labels.items())
        lines.append(f"{name}{{{text}}} {value:.15g}" if text else f"{name} {value:.15g}")
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class Watch:
    """Asks the cluster again and again, on a thread of its own."""

    def __init__(self, config: dict[str, Any], password: str) -> None:
        self.config = config
        self._password = password
        self._client: AdminClient | None = None
        self._seen: Seen | None = None

    @property
    def seen(self) -> Seen | None:
        """The cluster as it was a moment ago; None while it is away."""
        seen = self._seen
        return seen if seen is not None and time.monotonic() - seen.at < STALE_S else None

    def run(self) -> None:
        """For ever. What goes wrong is said once, when it begins."""
        said = ""
        while True:
            started = time.monotonic()
            try:
                self._seen = self._look()
                said = ""
            except (Away, Refused, KafkaException, TimeoutError) as error:
                # A client whose broker was killed may go on waiting for the dead one's answers: the next look has another client.
                self._seen = self._client = None
                reason = error.args[0].str() if isinstance(error, KafkaException) else str(error) or "no answer in time"
                if reason != said:
                    print(f"<4>{reason}", file=sys.stderr, flush=True)
                said = reason
            time.sleep(max(1.0 if self._seen is None else 0.0, REFRESH_S - (time.monotonic() - started) if self._seen else 1.0))

    def _look(self) -> Seen:
        if self._client is None:
            user = self.config["user"]
            self._client = connect(self.config["bootstrap"], self.config["ca"], user, self._password, patience_s=5)
        client = self._client
        metadata = client.list_topics(timeout=5)
        topics = {name: topic.partitions for name, topic in metadata.topics.items() if not name.startswith("__")}
        declared = [name for name in self.config["topics"] if name in topics]
        configs = client.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, name) for name in declared]) if declared else {}
        groups = [one.group_id for one in client.list_consumer_groups(request_timeout=5).result(timeout=10).valid]
        every = [TopicPartition(name, number) for name, partitions in topics.items() for number in partitions]
        ends = client.list_offsets({one: OffsetSpec.latest() for one in every}, request_timeout=5) if every else {}
        begins = client.list_offsets({one: OffsetSpec.earliest() for one in every}, request_timeout=5) if every else {}
        commits = {group: self._commits(client, group) for group in groups}
        return Seen(
            brokers=len(metadata.brokers),
            partitions={name: len(partitions) for name, partitions in topics.items()},
            copies={name: min((len(one.replicas) for one in partitions.values()), default=0) for name, partitions in topics.items()},
            retention_ms={key.name: int(entries["retention.ms"].value) for key, entries in results(configs, timeout_s=10).items()},
            begins={(one.topic, one.partition): found.offset for one, found in results(begins, timeout_s=10).items()},
            ends={(one.topic, one.partition): found.offset for one, found in results(ends, timeout_s=10).items()},
            committed={
                group: {(one.topic, one.partition): one.offset for one in future.result(timeout=10).topic_partitions if one.offset >= 0}
                for group, future in commits.items()
            },
        )

    def _commits(self, client: AdminClient, group: str) -> Any:
        (future,) = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=5).values()
        return future


class Handler(BaseHTTPRequestHandler):
    """Two paths, GET only."""

    watch: Watch
    timeout = CLIENT_TIMEOUT_S
    server_version, sys_version = "phoenix-kafka-exporter", ""

    def do_GET(self) -> None:
        topics = self.watch.config["topics"]
        if self.path == "/metrics":
            self._answer(200, metrics(self.watch.seen, topics) + jmx(self.watch.config["jmx"]), "text/plain; version=0.0.4")
        elif self.path.startswith("/topics/") and (name := self.path.removeprefix("/topics/")) in topics:
            self._answer(*topic_line(name, topics[name], self.watch.seen), "text/plain")
        else:
            self._answer(404, "There are /metrics and /topics/NAME.\n", "text/plain")

    def _answer(self, status: int, text: str, kind: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: one line for every scrape would be all that the journal holds."""


def topic_line(name: str, declared: Mapping[str, Any], seen: Seen | None) -> tuple[int, str]:
    """HTTP status and line of a topic: 200 when it is as declared."""
    if seen is None:
        return 503, "Kafka does not answer\n"
    if fault := drift(name, declared, seen):
        return 409, f"{fault}\n"
    copies = f", {declared['copies']} copies" if declared["copies"] > 1 else ""
    return 200, f"{seen.partitions[name]} partitions{copies}, kept {shown(seen.retention_ms[name])}\n"


def jmx(address: str) -> str:
    """What the broker's agent says, behind whether it says anything."""
    try:
        with urlopen(f"http://{address}/metrics", timeout=JMX_TIMEOUT_S) as answer:
            text = str(answer.read(), "utf-8")
    except (URLError, OSError, ValueError):
        return exposition("phoenix_kafka_jmx_up", [({}, 0)])
    return exposition("phoenix_kafka_jmx_up", [({}, 1)]) + text


class Server(ThreadingHTTPServer):
    """HTTPS; the handshake is made on the connection's own thread, so that a client that says nothing holds up nobody."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext) -> None:
        super().__init__(address, Handler)
        self._context = context
        self._slots = threading.BoundedSemaphore(16)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)  # more than Prometheus and a few people ever open
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            request.settimeout(CLIENT_TIMEOUT_S)
            secured = self._context.wrap_socket(request, server_side=True)
            super().process_request_thread(secured, client_address)
        except OSError:  # no certificate of ours, or gone: the client knows
            self.shutdown_request(request)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away while it was answered is not worth a traceback."""


def ready() -> None:
    """Tell systemd that connections are taken."""
    if path := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.connect(path.replace("@", "\0", 1))
            notify.send(b"READY=1")


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    options = parser.parse_args(argv)
    config = json.loads(options.config.read_text(encoding="utf-8"))
    password = Path(os.environ["CREDENTIALS_DIRECTORY"], "password").read_text(encoding="utf-8").strip()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=config["ca"])
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(config["certificate"], config["key"])
    Handler.watch = Watch(config, password)
    servers = [Server((address, config["port"]), context) for address in config["addresses"]]
    threading.Thread(target=Handler.watch.run, daemon=True).start()
    with ThreadPoolExecutor(max_workers=len(servers)) as pool:
        for server in servers:
            pool.submit(server.serve_forever)
        ready()


if __name__ == "__main__":
    main()
