"""What the stream workers stand between, for tests and the benchmark: a bare broker, a Redis, a Neo4j, worker processes; all on loopback.

PostgreSQL is tests/exporter/cluster.py's.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import graph_keeper
import redis
import yaml
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from neo4j.exceptions import DriverError, Neo4jError
from phoenix_stream.neo4j_driver import connect

from deploys.lib import artifacts
from deploys.neo4j.server import credential
from tests import redis_server
from tests.envelopes import envelope
from tests.exporter.cluster import free_port
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
TOPICS = {"agent.heartbeat": 12, "consciousness.update": 24, "hormone.cascade": 12, "graph.changed": 6, "dead-letter": 3}
DEAD = "dead-letter"


def jars() -> Path:
    """Kafka's jars: $PHOENIX_KAFKA_JARS, or those that the deploy takes."""
    given = os.environ.get("PHOENIX_KAFKA_JARS")
    return Path(given) if given else artifacts.jars(ROOT / "templates" / "kafka" / "pom.xml")


@dataclass
class Broker:
    """A broker of one node, without TLS, on loopback."""

    directory: Path
    port: int
    controller: int
    process: subprocess.Popen[bytes] | None = None
    _producer: Producer | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _java(self, *arguments: str) -> list[str]:
        return ["java", "-Xmx384m", "-Xms128m", "-XX:+UseSerialGC", "-cp", f"{jars()}/*", *arguments]

    def make(self) -> None:
        settings = {
            "process.roles": "broker,controller", "node.id": 1, "controller.quorum.bootstrap.servers": f"127.0.0.1:{self.controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller}",
            "controller.listener.names": "CONTROLLER", "log.dirs": str(self.directory / "log"),
            "offsets.topic.replication.factor": 1, "offsets.topic.num.partitions": 4, "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1, "share.coordinator.state.topic.replication.factor": 1,
            "group.initial.rebalance.delay.ms": 0, "auto.create.topics.enable": "false",
        }  # fmt: skip
        properties = self.directory / "server.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        command = self._java("kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", str(properties), "--standalone")
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def start(self) -> None:
        log = (self.directory / "out").open("ab")
        self.process = subprocess.Popen(
            self._java("kafka.Kafka", str(self.directory / "server.properties")), stdout=log, stderr=subprocess.STDOUT
        )
        log.close()
        admin = AdminClient({"bootstrap.servers": self.address, "logger": _Silent.logger()})
        until = time.monotonic() + 90
        while True:
            assert self.process.poll() is None, (self.directory / "out").read_text()[-2000:]
            with suppress(KafkaException):
                if admin.list_topics(timeout=2).brokers:
                    return
            assert time.monotonic() < until, "the broker does not answer"

    def kill(self) -> None:
        """End it as a power cut does."""
        assert self.process
        self.process.kill()
        self.process.wait(30)

    def topics(self, topics: Mapping[str, int] = TOPICS) -> None:
        """Make these topics. Each of their partitions has a leader then, which it gets some time after it is made."""
        admin = AdminClient({"bootstrap.servers": self.address})
        for future in admin.create_topics([NewTopic(name, count, 1) for name, count in topics.items()]).values():
            future.result(30)
        reader = Consumer({"bootstrap.servers": self.address, "group.id": "none", "logger": _Silent.logger()})

        def led() -> bool:
            with suppress(KafkaException):
                for name, count in topics.items():
                    for partition in range(count):
                        reader.get_watermark_offsets(TopicPartition(name, partition), timeout=10)
                return True
            return False

        try:
            wait_until(led, 30, "every partition has a leader")
        finally:
            reader.close()

    def new_group(self) -> str:
        """A consumer group for which the topics are empty: it begins where they end now."""
        group = f"phoenix-stream-{uuid.uuid4()}"
        member = Consumer({"bootstrap.servers": self.address, "group.id": group, "enable.auto.commit": False})
        try:
            ends = self._ends(member, TOPICS)
            member.commit(offsets=[TopicPartition(*one, high) for one, (_, high) in ends.items()], asynchronous=False)
        finally:
            member.close()
        return group

    def _ends(self, reader: Consumer, topics: Iterable[str]) -> dict[tuple[str, int], tuple[int, int]]:
        return {
            (topic, partition): reader.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
            for topic in topics
            for partition in range(TOPICS[topic])
        }

    @property
    def producer(self) -> Producer:
        if self._producer is None:
            self._producer = Producer(
                {"bootstrap.servers": self.address, "acks": "all", "enable.idempotence": True, "linger.ms": 2, "compression.type": "lz4",
                 "queue.buffering.max.messages": 1_000_000, "logger": _Silent.logger()}
            )  # fmt: skip
        return self._producer

    def send(self, messages: Iterable[tuple[str, str | bytes | None, bytes | None]]) -> None:
        """(topic, key, value): return once the broker has them all."""
        failed: list[str] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error:
                failed.append(str(error))

        for number, (topic, key, value) in enumerate(messages):
            self.producer.produce(topic, key=key, value=value, on_delivery=delivered)
            if number % 1000 == 0:
                self.producer.poll(0)
        assert self.producer.flush(60) == 0
        assert not failed, failed[0]

    def read(self, topic: str) -> list[Message]:
        """Everything that the topic holds now."""
        reader = Consumer({"bootstrap.servers": self.address, "group.id": f"read-{uuid.uuid4()}", "enable.auto.commit": False})
        try:
            ends = self._ends(reader, [topic])
            wanted = sum(high - low for low, high in ends.values())
            reader.assign([TopicPartition(*one, low) for one, (low, _) in ends.items()])
            found: list[Message] = []
            until = time.monotonic() + 30
            while len(found) < wanted and time.monotonic() < until:
                found += [m for m in reader.consume(500, 0.5) if m.error() is None]
            return found
        finally:
            reader.close()

    def lag(self, group: str, topics: Iterable[str]) -> int:
        """Events of these topics that the group has not committed yet: the independent witness."""
        reader = Consumer({"bootstrap.servers": self.address, "group.id": group, "enable.auto.commit": False})
        try:
            ends = self._ends(reader, topics)
            committed = reader.committed([TopicPartition(*one) for one in ends], timeout=10)
            return sum(ends[at.topic, at.partition][1] - max(ends[at.topic, at.partition][0], at.offset) for at in committed)
        finally:
            reader.close()


class _Silent:
    @staticmethod
    def logger() -> Any:
        import logging  # noqa: PLC0415

        logger = logging.getLogger("tests.stream")
        logger.propagate = False
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
        return logger


@contextmanager
def running_broker() -> Iterator[Broker]:
    """A broker with the topics; stopped and removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="phoenix-kafka-"))
    broker = Broker(directory, free_port(), free_port())
    try:
        broker.make()
        broker.start()
        broker.topics()
        yield broker
    finally:
        if broker.process and broker.process.poll() is None:
            broker.kill()
        shutil.rmtree(directory)


@dataclass
class RedisServer:
    """A Redis with a password, on loopback."""

    directory: Path
    port: int
    password: str = field(repr=False)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = redis_server.start(str(self.directory / "redis.conf"), cwd=self.directory)
        wait_until(self._answers, 20, "Redis answers")

    def _answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except redis.RedisError:
            return False

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, password=self.password, decode_responses=True)

    def stop(self) -> None:
        assert self.process
        self.process.terminate()
        self.process.wait(20)


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    """A Redis that writes to disk; stopped and removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="phoenix-redis-"))
    server = RedisServer(directory, free_port(), secrets.token_urlsafe(18))
    (directory / "redis.conf").write_text(
        f"bind 127.0.0.1\nport {server.port}\nrequirepass {server.password}\nappendonly yes\nappendfsync everysec\n"
        f'save ""\ndir {directory}\n'
    )
    try:
        server.start()
        yield server
    finally:
        if server.process and server.process.poll() is None:
            server.stop()
        shutil.rmtree(directory)


@dataclass
class Neo4jServer:
    """A Neo4j Community on loopback, with TLS and a password, as the deploy makes it ready."""

    directory: Path
    port: int
    password: str = field(repr=False)
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"bolt://127.0.0.1:{self.port}"

    @property
    def ca(self) -> str:
        return str(self.directory / "ca.crt")

    def make(self) -> None:
        own = self.directory
        key, certificate = str(own / "host.key"), str(own / "ca.crt")
        words = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run(["openssl", "req", "-x509", *words, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        settings = {
            "server.directories.data": own / "data", "server.directories.logs": own / "logs", "server.directories.run": own / "run",
            "server.directories.plugins": own / "plugins", "server.directories.import": own / "import",
            "server.memory.heap.max_size": "384m", "server.memory.pagecache.size": "32m", "db.tx_log.preallocate": "false",
            "server.http.enabled": "false", "server.https.enabled": "false", "server.bolt.listen_address": f"127.0.0.1:{self.port}",
            "server.bolt.tls_level": "REQUIRED", "dbms.ssl.policy.bolt.enabled": "true", "dbms.ssl.policy.bolt.base_directory": own,
            "dbms.ssl.policy.bolt.private_key": key, "dbms.ssl.policy.bolt.public_certificate": certificate,
            "dbms.ssl.policy.bolt.client_auth": "NONE", "dbms.usage_report.enabled": "false",
            "server.bolt.connection_keep_alive": "3s", "server.bolt.connection_keep_alive_probes": "2",
            "dbms.cypher.min_replan_interval": "5m", "server.config.strict_validation.enabled": "true",
        }  # fmt: skip
        (own / "neo4j.conf").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        for name in ("data/dbms", "logs", "run", "plugins", "import"):
            (own / name).mkdir(parents=True)
        (own / "data/dbms/auth.ini").write_text(credential(self.password, secrets.token_bytes(32)) + "\n")

    def start(self) -> None:
        jars = artifacts.jars(ROOT / "templates" / "neo4j" / "pom.xml")
        opened = [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in ("java.nio", "java.io", "sun.nio.ch")]
        where = [f"--home-dir={self.directory}", f"--config-dir={self.directory}", "--console-mode"]
        java = ["java", "-Xms384m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", *opened, "-cp", f"{jars}/*"]
        with (self.directory / "out").open("ab") as log:
            self.process = subprocess.Popen([*java, "org.neo4j.server.CommunityEntryPoint", *where], stdout=log, stderr=log)
        wait_until(self._answers, 90, "Neo4j answers")

    def _answers(self) -> bool:
        assert self.process and self.process.poll() is None, (self.directory / "out").read_text()[-2000:]
        try:
            with self.client() as driver:
                driver.verify_connectivity()
        except (DriverError, Neo4jError, OSError):
            time.sleep(0.3)
            return False
        return True

    def client(self) -> Any:
        return connect(uri=self.uri, user="neo4j", password=self.password, ca=self.ca)

    def freeze(self) -> None:
        """Its connections stay, and nobody answers."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a power cut does."""
        assert self.process
        self.process.kill()
        self.process.wait(30)


@contextmanager
def running_neo4j() -> Iterator[Neo4jServer]:
    """A Neo4j with the constraints of sql/cypher/; stopped and removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="phoenix-neo4j-"))
    server = Neo4jServer(directory, free_port(), secrets.token_urlsafe(18))
    try:
        server.make()
        server.start()
        with server.client() as driver:
            for path in sorted((ROOT / "sql" / "cypher").glob("V*.cypher")):
                for statement in graph_keeper.statements(path.read_text(encoding="utf-8")):
                    driver.execute_query(statement)
            driver.execute_query("CALL db.awaitIndexes(60)")
        yield server
    finally:
        if server.process and server.process.poll() is None:
            server.kill()
        shutil.rmtree(directory)


@dataclass
class Worker:
    """One worker process with its settings file."""

    sink: str
    directory: Path
    port: int
    group: str
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        out = (self.directory / f"{self.sink}.out").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "phoenix_stream", "--config", str(self.directory / f"{self.sink}.yml")],
            stderr=out, stdout=out, env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'services'}:{ROOT / 'exporters'}"},
        )  # fmt: skip
        out.close()

    def said(self) -> str:
        return (self.directory / f"{self.sink}.out").read_text()

    def kill(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self, within_s: float = 10) -> int:
        """Ask it to end; its exit status."""
        assert self.process
        self.process.terminate()
        return self.process.wait(within_s)

    def cpu_s(self) -> float:
        """CPU time it has used."""
        assert self.process
        ticks = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        """Memory it has now."""
        assert self.process
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def metrics(self) -> dict[str, float]:
        """Its samples, as Prometheus would read them; empty while it does not answer."""
        with suppress(OSError):
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
            return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}
        return {}

    def total(self, name: str, *having: str) -> float:
        """Sum of a metric's series that have these labels."""
        return sum(v for k, v in self.metrics().items() if k.partition("{")[0] == name and all(label in k for label in having))


def configure(sink: str, directory: Path, broker: Broker, store: Mapping[str, Any], password: str, **batches: Any) -> Worker:
    """A worker's settings file and its password beside it."""
    worker = Worker(sink, directory, free_port(), broker.new_group())
    document = {
        "sink": sink,
        "listen": {"port": worker.port, "plain_http": True},
        "kafka": {"bootstrap": [broker.address], "instance": "test", "group": worker.group},
        "batches": batches or {"linger_ms": 5},
        "store": {"password": f"{sink}.password", **store},
    }
    (directory / f"{sink}.yml").write_text(yaml.safe_dump(document))
    (directory / f"{sink}.password").write_text(password)
    return worker


def cascade(agent: str, seq: int, dopamine: float) -> tuple[str, str, bytes]:
    data = {
        "agent_id": agent, "levels": {"dopamine": dopamine, "oxytocin": 1.0, "adrenaline": 1.0, "cortisol": 0.3},
        "hormone": "dopamine", "intensity": 0.1, "cascade_id": str(uuid.uuid4()),
    }  # fmt: skip
    return "hormone.cascade", agent, envelope("hormone.cascade", data, seq=seq)
