"""Change events as a consumer of this computer gets them: what is committed arrives, once its way is broken as well; nothing else does."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from testinfra.host import Host

from deploys.lib.secrets import SecretStore
from deploys.lib.settings import ConnectSettings, KafkaSettings, Platform, PlatformHost
from tests.event_schemas import faults
from tests.hosts.conftest import CA, CURL
from tests.waiting import EVENT_S

On = Callable[[str], Host]
TOPICS = ("task.created", "task.completed", "persona.enriched", "hormone.cascade")


@pytest.fixture(scope="module")
def member(platform: Platform) -> PlatformHost:
    found = platform.group("connect")
    if not found:
        pytest.skip("this inventory has no Kafka Connect")
    return found[0]


@pytest.fixture(scope="module")
def connect(on: On, member: PlatformHost) -> Host:
    return on(member.name)


@pytest.fixture(scope="module")
def rest(connect: Host, member: PlatformHost) -> Callable[[str], Any]:
    """`rest("connectors")`: what Connect's REST interface says, asked on its host."""
    port = member[ConnectSettings].rest_port
    return lambda path: json.loads(connect.check_output(f"curl -sSf --max-time 20 'http://127.0.0.1:{port}/{path}'"))


Ask = Callable[[str], str]


@pytest.fixture
def sql(leader: Callable[[], Host]) -> Ask:
    """What the database says to its superuser."""
    return lambda statement: leader().check_output("cd / && runuser -u postgres -- psql -XAtqd phoenix -c %s", statement)


class Reader:
    """A consumer of its own, from now on."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._consumer = Consumer({**settings, "group.id": "probe", "enable.auto.commit": False, "fetch.wait.max.ms": 10})
        parts = []
        for topic in TOPICS:
            known = self._consumer.list_topics(topic, timeout=20).topics[topic]
            for partition in known.partitions:
                _, end = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=20)
                parts.append(TopicPartition(topic, partition, end))
        self._consumer.assign(parts)
        self.seen: list[tuple[str, str, dict[str, Any]]] = []
        """Topic, key and envelope of each event."""

    def until(self, enough: Callable[[], bool], seconds: float) -> bool:
        """Read until `enough`; whether it came to that."""
        end = time.monotonic() + seconds
        while not enough() and time.monotonic() < end:
            for message in self._consumer.consume(500, 0.2):
                assert message.error() is None, message.error()
                key, value = message.key(), message.value()
                assert key is not None and value is not None
                self.seen.append((str(message.topic()), key.decode(), json.loads(value)))
        return enough()

    def of(self, key: str) -> list[tuple[str, dict[str, Any]]]:
        """Topic and envelope of the events of one aggregate."""
        return [(topic, envelope) for topic, one, envelope in self.seen if one == key]

    def close(self) -> None:
        self._consumer.close()


@pytest.fixture
def reader(
    on: On, platform: Platform, secrets: SecretStore, tmp_path_factory: pytest.TempPathFactory, member: PlatformHost
) -> Iterator[Reader]:
    brokers = platform.group("kafka")
    authority = tmp_path_factory.mktemp("tls") / "ca.crt"
    authority.write_text(on(brokers[0].name).file(CA).content_string)
    made = Reader(
        {
            "bootstrap.servers": ",".join(f"{one.data['host_address']}:{one[KafkaSettings].client_port}" for one in brokers),
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(authority),
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "admin",
            "sasl.password": secrets.get("kafka/admin"),
        }
    )
    yield made
    made.close()


def test_connector_and_task_run_and_read_the_slot(rest: Callable[[str], Any], sql: Ask, member: PlatformHost) -> None:
    status = rest("connectors/outbox/status")
    assert [status["connector"]["state"], *(task["state"] for task in status["tasks"])] == ["RUNNING", "RUNNING"]
    assert sql("SELECT active, wal_status FROM pg_replication_slots WHERE slot_name = 'outbox'") == "t|reserved"
    assert sql(
        "SELECT usename FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid AND s.slot_name = 'outbox'"
    ) == ("connect")


def test_no_password_is_in_what_connect_says(connect: Host, rest: Callable[[str], Any], secrets: SecretStore) -> None:
    said = json.dumps([rest("connectors?expand=info"), rest("connectors?expand=status"), rest("connectors/outbox/tasks")])
    assert not any(secrets.get(name) in said for name in ("kafka/connect", "postgresql/connect"))
    assert connect.file("/etc/phoenix-connect/secrets.properties").mode == 0o600
    assert connect.run("runuser -u phoenix-connect -- cat /etc/phoenix-connect/secrets.properties").failed


def test_rest_and_jmx_listen_on_the_loopback_address_only(connect: Host, member: PlatformHost) -> None:
    settings = member[ConnectSettings]
    listening = connect.check_output("ss -Hltn | awk '{print $4}'").split()
    for port in (settings.rest_port, settings.jmx_port):
        assert {address.rpartition(":")[0] for address in listening if address.endswith(f":{port}")} <= {"127.0.0.1", "[::ffff:127.0.0.1]"}


def test_metrics_are_for_the_platform_only(connect: Host, member: PlatformHost) -> None:
    url = f"https://{member.data['host_address']}:{member[ConnectSettings].metrics_port}/metrics"
    told = connect.check_output(f"{CURL} {url}")
    assert "phoenix_connect_up 1" in told
    assert 'phoenix_connect_state{connector="outbox",task="0",state="running"} 1' in told
    assert "phoenix_connect_records_written_total" in told, "and what the JVM's agent says"
    assert connect.run(f"curl -sf --max-time 5 --cacert {CA} {url}").failed, "without a certificate"


def test_the_login_reads_the_outbox_and_nothing_else(sql: Ask) -> None:
    readable = (
        "SELECT string_agg(c.relname, ',') FROM pg_class c WHERE c.relnamespace = 'phoenix'::regnamespace AND relkind IN ('r','p','v','m')"
    )
    assert sql(f"{readable} AND has_table_privilege('connect', c.oid, 'SELECT')") == "outbox"
    assert sql(f"{readable} AND has_table_privilege('connect', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')") == ""
    assert sql("SELECT rolreplication, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = 'connect'") == "t|f|f"


@pytest.mark.changes
def test_a_committed_change_arrives_and_one_that_was_rolled_back_does_not(reader: Reader, sql: Ask) -> None:
    title, gone = f"test {uuid.uuid4()}", f"test {uuid.uuid4()}"
    sql(f"BEGIN; INSERT INTO phoenix.tasks (title) VALUES ('{gone}'); ROLLBACK")
    task = sql(f"INSERT INTO phoenix.tasks (title) VALUES ('{title}') RETURNING id")
    sql(f"UPDATE phoenix.tasks SET status = 'complete', quality_score = 0.5 WHERE id = '{task}'")
    assert reader.until(lambda: len(reader.of(task)) == 2, EVENT_S), reader.of(task)
    assert [topic for topic, _ in sorted(reader.of(task), key=lambda one: one[1]["seq"])] == ["task.created", "task.completed"]
    assert [wrong for _, envelope in reader.of(task) for wrong in faults(envelope)] == []
    assert not [one for one in reader.seen if one[2]["data"].get("title") == gone]
    sql(f"DELETE FROM phoenix.tasks WHERE id = '{task}'")


@pytest.mark.changes
def test_what_fails_is_started_again_and_nothing_is_lost(reader: Reader, connect: Host, sql: Ask) -> None:
    """Connect is killed while events are written; all of them arrive."""
    title = f"test {uuid.uuid4()}"
    connect.check_output("systemctl kill -s KILL phoenix-connect")
    killed = time.monotonic()
    for _ in range(50):
        sql(f"INSERT INTO phoenix.tasks (title) VALUES ('{title}')")

    def arrived() -> set[str]:
        return {key for topic, key, envelope in reader.seen if topic == "task.created" and envelope["data"]["title"] == title}

    assert reader.until(lambda: len(arrived()) == 50, 90), f"{len(arrived())} of 50 after {time.monotonic() - killed:.0f} s"
    assert arrived() == set(sql(f"SELECT id FROM phoenix.tasks WHERE title = '{title}'").split())
    sql(f"DELETE FROM phoenix.tasks WHERE title = '{title}'")
