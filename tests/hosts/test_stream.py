"""The stream workers as agents meet them: what they publish is in the database, what can never be is set aside with its reason."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from testinfra.host import Host

from deploys.lib import streams
from deploys.lib.secrets import SecretStore
from deploys.lib.settings import KafkaSettings, Platform, PlatformHost, StreamSettings
from tests.envelopes import envelope, heartbeat
from tests.hosts.conftest import CA, CURL
from tests.waiting import EVENT_S, wait_until

On = Callable[[str], Host]


@pytest.fixture(scope="module")
def member(platform: Platform) -> PlatformHost:
    found = platform.group("stream")
    if not found:
        pytest.skip("this inventory has no stream workers")
    return found[0]


@pytest.fixture(scope="module")
def host(on: On, member: PlatformHost) -> Host:
    return on(member.name)


@pytest.fixture(scope="module")
def kafka(
    on: On, platform: Platform, secrets: SecretStore, tmp_path_factory: pytest.TempPathFactory, member: PlatformHost
) -> Callable[[str], dict[str, Any]]:
    """`kafka("agent")`: a client's parameters as that user."""
    brokers = platform.group("kafka")
    authority = tmp_path_factory.mktemp("tls") / "ca.crt"
    authority.write_text(on(brokers[0].name).file(CA).content_string)
    return lambda user: {
        "bootstrap.servers": ",".join(f"{one.data['host_address']}:{one[KafkaSettings].client_port}" for one in brokers),
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(authority),
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": user,
        "sasl.password": secrets.get(f"kafka/{user}"),
    }


@pytest.fixture
def publish(kafka: Callable[[str], dict[str, Any]]) -> Callable[[str, str, bytes], None]:
    """`publish(topic, key, value)`, as an agent does: it is with the brokers when this returns."""

    def send(topic: str, key: str, value: bytes) -> None:
        outcome: list[KafkaError | None] = []
        producer = Producer(kafka("agent"))
        producer.produce(topic, value, key, on_delivery=lambda error, _: outcome.append(error))
        producer.flush(30)
        assert outcome == [None]

    return send


@pytest.fixture
def letters(kafka: Callable[[str], dict[str, Any]]) -> Iterator[Callable[[str], dict[str, str] | None]]:
    """`letters(key)`: the headers of the dead letter with that key, from now on; None when there is none in time."""
    reader = Consumer({**kafka("admin"), "group.id": "probe", "enable.auto.commit": False})
    known = reader.list_topics("dead-letter", timeout=20).topics["dead-letter"]
    parts = [TopicPartition("dead-letter", number) for number in known.partitions]
    for part in parts:
        part.offset = reader.get_watermark_offsets(part, timeout=20)[1]
    reader.assign(parts)

    def find(key: str) -> dict[str, str] | None:
        until = time.monotonic() + EVENT_S
        while time.monotonic() < until:
            one = reader.poll(0.2)
            if one is not None and one.error() is None and one.key() == key.encode():
                return {name: str(value.decode()) for name, value in one.headers() or [] if isinstance(value, bytes)}
        return None

    yield find
    reader.close()


def await_answer(question: Callable[[], str], expected: str, what: str = "what was sent is in the database") -> None:
    """Ask until the answer is the expected one."""
    wait_until(lambda: question() == expected, EVENT_S, what, every_s=0.2)


# ---------------------------------------------------------------------------------------------------------------- as it stands
def test_each_worker_is_ready_has_partitions_and_its_store(host: Host, member: PlatformHost) -> None:
    for sink, port in streams.ports(member[StreamSettings]).items():
        url = f"https://{member.data['host_address']}:{port}"
        assert host.check_output(f"{CURL} -o /dev/null -w '%{{http_code}}' {url}/health/ready") == "200", sink
        told = host.check_output(f"{CURL} {url}/metrics").splitlines()
        values = {name: float(value) for name, _, value in (line.rpartition(" ") for line in told if not line.startswith("#"))}
        assert values[f'phoenix_stream_store_up{{sink="{sink}"}}'] == 1
        assert values[f'phoenix_stream_kafka_up{{sink="{sink}"}}'] == 1
        assert [value for name, value in values.items() if name.startswith("phoenix_stream_partitions{")] != []


def test_metrics_are_for_the_platform_only(host: Host, member: PlatformHost) -> None:
    for port in streams.ports(member[StreamSettings]).values():
        refused = host.run(f"curl -sf --max-time 5 --cacert {CA} https://{member.data['host_address']}:{port}/metrics")
        assert refused.failed, "without a certificate"


def test_workers_are_nobody_else_and_confined(host: Host, member: PlatformHost) -> None:
    users = set()
    for sink in streams.ports(member[StreamSettings]):
        pid = host.check_output(f"systemctl show -P MainPID {streams.unit(sink)}")
        users.add(int(host.check_output(f"awk '/^Uid/ {{print $2}}' /proc/{pid}/status")))
        assert int(host.check_output(f"awk '/^CapEff/ {{print $2}}' /proc/{pid}/status"), 16) == 0
        assert host.run(f"nsenter -t {pid} -m touch /etc/phoenix-stream/x").failed
    # systemd makes these users for as long as the unit runs.
    assert len(users) == len(streams.ports(member[StreamSettings]))
    assert all(61184 <= user <= 65519 for user in users)


# -------------------------------------------------------------------------------------------------------- what agents publish
@pytest.fixture
def agent(psql: Callable[..., str]) -> Iterator[str]:
    made = str(uuid.uuid4())
    psql(
        "INSERT INTO phoenix.agents (id, codename, team, role, consciousness_vector) "
        f"VALUES ('{made}', 'test {made}', 'iota', 'test', '{{}}')"
    )
    yield made
    psql(f"DELETE FROM phoenix.agents WHERE id = '{made}'")


@pytest.mark.changes
def test_a_heartbeat_is_in_the_database_and_an_older_one_changes_nothing(
    agent: str, publish: Callable[[str, str, bytes], None], psql: Callable[..., str]
) -> None:
    def idle() -> str:
        return psql(f"SELECT to_char(idle_since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') FROM phoenix.agents WHERE id = '{agent}'")

    old = heartbeat(agent, idle="2026-01-01T00:00:00Z")
    publish(*heartbeat(agent, idle="2026-02-01T00:00:00Z"))
    await_answer(idle, "2026-02-01 00:00")
    publish(*old)
    publish(*heartbeat(agent, idle="2026-03-01T00:00:00Z"))
    await_answer(idle, "2026-03-01 00:00", "it came after the old one, in the same partition")


@pytest.mark.changes
def test_a_figure_of_consciousness_is_a_row(publish: Callable[[str, str, bytes], None], psql: Callable[..., str]) -> None:
    at = datetime.now(UTC).isoformat()
    figure = {"time": at, "global_consciousness": 1.25, "global_trust": 0.75, "team": "iota", "team_consciousness": 1.5}
    publish("consciousness.update", "iota", envelope("consciousness.update", figure))
    row = f"FROM phoenix.consciousness_timeline WHERE time = '{at}' AND team = 'iota'"
    await_answer(lambda: psql(f"SELECT global_consciousness::float8, team_consciousness::float8 {row}"), "1.25|1.5")
    psql(f"DELETE {row}")


@pytest.mark.changes
@pytest.mark.parametrize(
    ("topic", "value", "reason"),
    [
        pytest.param("agent.heartbeat", b"{not json", "is not JSON", id="no-json"),
        pytest.param("agent.heartbeat", None, "is not known", id="an-agent-nobody-knows"),
        pytest.param(
            "consciousness.update",
            envelope(
                "consciousness.update", {"time": "2200-01-01T00:00:00Z", "global_consciousness": 1, "global_trust": 0.5, "team": None}
            ),
            "time is not within",
            id="a-time-in-the-future",
        ),
    ],
)
def test_what_can_never_be_stored_is_set_aside_with_its_reason(
    publish: Callable[[str, str, bytes], None],
    letters: Callable[[str], dict[str, str] | None],
    topic: str,
    value: bytes | None,
    reason: str,
) -> None:
    key = str(uuid.uuid4())
    publish(topic, key, value or envelope(topic, {"agent_id": key, "current_task": None, "idle_since": None}))
    headers = letters(key)
    assert headers is not None, "no dead letter"
    assert (headers["topic"], headers["consumer"]) == (topic, "stream-postgres")
    assert reason in headers["reason"]
