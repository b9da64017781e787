"""Kafka: asked by clients of this computer as programs would, and by Kafka's own tools; never by the program that manages it."""

from __future__ import annotations

import base64
import json
import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from testinfra.host import Host

from deploys.lib.secrets import SecretStore
from deploys.lib.settings import KafkaSettings, Platform, PlatformHost
from tests.hosts.conftest import CA, CURL
from tests.waiting import wait_until

On = Callable[[str], Host]
Parameters = Callable[..., dict[str, Any]]

SPEC = {
    "agent.heartbeat": (12, 86_400),
    "task.created": (6, 7 * 86_400),
    "task.completed": (6, 30 * 86_400),
    "persona.enriched": (3, 90 * 86_400),
    "consciousness.update": (24, 3600),
    "hormone.cascade": (12, 3600),
}
"""Partitions and retention in seconds, as the spec has them."""
DENIED = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)


@pytest.fixture(scope="module")
def members(platform: Platform) -> list[PlatformHost]:
    found = sorted(platform.group("kafka"), key=lambda member: member.name)
    if not found:
        pytest.skip("this inventory has no Kafka")
    return found


@pytest.fixture(scope="module")
def first(on: On, members: list[PlatformHost]) -> Host:
    return on(members[0].name)


@pytest.fixture(scope="module")
def bootstrap(members: list[PlatformHost]) -> str:
    return ",".join(f"{member.data['host_address']}:{member[KafkaSettings].client_port}" for member in members)


@pytest.fixture(scope="module")
def parameters(first: Host, bootstrap: str, secrets: SecretStore, tmp_path_factory: pytest.TempPathFactory) -> Parameters:
    """`parameters("agent")`: what such a client is configured with, as docs/kafka.md says."""
    authority = tmp_path_factory.mktemp("tls") / "ca.crt"
    authority.write_text(first.file(CA).content_string)

    def made(user: str, password: str = "", **more: Any) -> dict[str, Any]:
        return {
            "bootstrap.servers": bootstrap,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": user,
            "sasl.password": password or secrets.get(f"kafka/{user}"),
            "ssl.ca.location": str(authority),
            "log_level": 0,
            **more,
        }

    return made


@pytest.fixture(scope="module")
def admin(parameters: Parameters) -> AdminClient:
    return AdminClient(parameters("admin"))


def send(settings: dict[str, Any], topic: str, value: bytes) -> KafkaError | None:
    """Write one event; what came of it."""
    outcome: list[KafkaError | None] = []
    producer = Producer({**settings, "message.timeout.ms": 15_000})
    producer.produce(topic, value, key=b"test", on_delivery=lambda error, _: outcome.append(error))
    producer.flush(20)
    assert outcome, f"{topic}: nothing came of it within 20 s"
    return outcome[0]


def own_tool(host: Host, main: str, arguments: str) -> str:
    """What one of Kafka's own command line tools says as `admin`. The password goes by a file that only root reads."""
    script = f"""
import json, subprocess, sys, tempfile
wanted = json.load(open("/etc/phoenix-kafka/content.json"))
with tempfile.NamedTemporaryFile("w", suffix=".properties") as login:
    login.write("security.protocol=SASL_SSL\\nsasl.mechanism=SCRAM-SHA-512\\nssl.truststore.type=PEM\\nssl.truststore.location={CA}\\n")
    login.write('sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username="admin" password="%s";\\n'
                % wanted["users"]["admin"])
    login.flush()
    sys.exit(subprocess.run(["java", "-Xmx96m", "-XX:TieredStopAtLevel=1", "-cp", "/opt/phoenix/kafka/*", "{main}",
        "--bootstrap-server", wanted["bootstrap"], "--command-config", login.name, *{arguments.split()!r}]).returncode)
"""
    return host.check_output("echo %s | base64 -d | python3 -", base64.b64encode(script.encode()).decode())


@pytest.mark.slow
def test_the_topics_have_the_specs_partitions_and_retention(first: Host) -> None:
    """By Kafka's own tool."""
    said = own_tool(first, "org.apache.kafka.tools.TopicCommand", "--describe")
    for topic, (partitions, seconds) in SPEC.items():
        (line,) = [line for line in said.splitlines() if re.match(rf"Topic: {re.escape(topic)}\s.*PartitionCount", line)]
        assert f"PartitionCount: {partitions}\t" in line, line
        assert f"retention.ms={seconds * 1000}" in line, line


def next_value(reader: Consumer) -> bytes | None:
    """Of the message that comes within a second; None when there is none."""
    message = reader.poll(1)
    return None if message is None or message.error() is not None else message.value()


def test_an_event_goes_through(parameters: Parameters) -> None:
    """An agent writes a heartbeat, a worker reads it."""
    value = uuid.uuid4().bytes.hex().encode()
    reader = Consumer(parameters("worker", **{"group.id": f"stream-test-{uuid.uuid4().hex}", "auto.offset.reset": "latest"}))
    assigned: list[Any] = []
    reader.subscribe(["agent.heartbeat"], on_assign=lambda _, partitions: assigned.extend(partitions))
    try:
        until = time.monotonic() + 30
        wait_until(lambda: reader.poll(0.2) or assigned, 30, "the reader has its partitions", every_s=0)
        assert len(assigned) == SPEC["agent.heartbeat"][0]
        for partition in assigned:
            reader.position([partition])
        reader.poll(0.5)  # it looks up where it begins
        sent = 0

        def comes() -> bool:
            nonlocal sent
            if sent < 5:  # the first ones may come before the reader knows its place
                assert send(parameters("agent"), "agent.heartbeat", value) is None
                sent += 1
            return next_value(reader) == value

        wait_until(comes, until - time.monotonic(), "the worker reads the heartbeat", every_s=0)
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("user", "topic"),
    [
        ("agent", "task.created"),
        ("agent", "dead-letter"),
        ("worker", "task.created"),
        ("monitor", "agent.heartbeat"),
        ("connect", "agent.heartbeat"),
    ],
)
def test_who_may_not_write_is_refused(parameters: Parameters, user: str, topic: str) -> None:
    error = send(parameters(user), topic, b"x")
    assert error is not None and error.code() in DENIED, error


def test_an_agent_reads_in_no_group_of_others(parameters: Parameters) -> None:
    reader = Consumer(parameters("agent", **{"group.id": "stream-redis"}))
    reader.subscribe(["hormone.cascade"])
    try:
        message = reader.poll(15)
        assert message is not None and message.error() is not None and message.error().code() in DENIED
    finally:
        reader.close()


def test_nobody_but_the_deploy_makes_topics(parameters: Parameters) -> None:
    client = AdminClient(parameters("agent"))
    (future,) = client.create_topics([NewTopic("mine", 1, 1)]).values()
    with pytest.raises(KafkaException) as refused:
        future.result(timeout=15)
    assert refused.value.args[0].code() in DENIED


def test_a_topic_that_nobody_declared_does_not_come_by_being_written(parameters: Parameters, admin: AdminClient) -> None:
    quick = {"topic.metadata.refresh.interval.ms": 500, "topic.metadata.propagation.max.ms": 500}
    error = send(parameters("admin", **quick), "nobody.declared", b"x")
    assert error is not None and error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART, error
    assert "nobody.declared" not in admin.list_topics(timeout=10).topics


@pytest.mark.parametrize("change", [{"sasl.password": "wrong"}, {"sasl.username": "root"}])
def test_who_does_not_know_a_password_comes_not_in(parameters: Parameters, change: dict[str, str]) -> None:
    errors: list[KafkaError] = []
    client = AdminClient(parameters("agent", error_cb=errors.append) | change)

    def refused() -> bool:
        client.poll(0.1)
        return KafkaError._AUTHENTICATION in [error.code() for error in errors]

    wait_until(refused, 15, "the broker refuses it", every_s=0)
    with pytest.raises(KafkaException):
        client.list_topics(timeout=0.5)


@pytest.mark.parametrize("setting", ["client_port", "controller_port"])
def test_without_tls_nobody_is_listened_to(members: list[PlatformHost], first: Host, setting: str) -> None:
    port = getattr(members[0][KafkaSettings], setting)
    address = members[0].data["host_address"]
    assert first.run(f"openssl s_client -connect {address}:{port} -CAfile {CA} -verify_return_error </dev/null").succeeded
    plain = first.run(
        f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 5 bash -c 'exec 3<>/dev/tcp/{address}/{port}; cat >&3; cat <&3' | head -c 1 | wc -c"
    )
    assert plain.stdout.strip() in ("0", "1")  # closed, or the one byte of a TLS alert
    assert not first.run(f"openssl s_client -tls1_2 -connect {address}:{port} </dev/null").succeeded


def test_what_it_says_of_itself_is_for_those_with_a_certificate(members: list[PlatformHost], first: Host) -> None:
    url = f"https://{members[0].data['host_address']}:{members[0][KafkaSettings].metrics_port}/metrics"
    text = first.check_output(f"{CURL} {url}")
    assert re.search(r"^phoenix_kafka_up 1$", text, re.M) and re.search(r"^kafka_broker_state 3\.0$", text, re.M)
    for topic, (partitions, seconds) in SPEC.items():
        assert f'phoenix_kafka_topic_partitions{{topic="{topic}"}} {partitions}\n' in text
        assert f'phoenix_kafka_topic_retention_seconds{{topic="{topic}"}} {seconds}\n' in text
    assert not first.run(f"curl -s --max-time 5 --cacert {CA} {url}").succeeded
    listening = first.check_output(f"ss -Hltn sport = :{members[0][KafkaSettings].metrics_port} | awk '{{print $4}}'")
    assert {re.sub(r"^\[?(::ffff:)?", "", one.rpartition(":")[0]).rstrip("]") for one in listening.split()} == {
        members[0].data["host_address"],
        "127.0.0.1",
    }


def test_status_has_an_entry_for_every_topic(phoenix: Callable[..., Any], members: list[PlatformHost]) -> None:
    answer = json.loads(phoenix("status", "--json", members[0].name).stdout)
    entries = {one["name"]: one for one in answer["services"]}
    assert entries["kafka/task.created"]["ok"] and entries["kafka/task.created"]["detail"].startswith("6 partitions")
    assert entries["kafka/task.created"]["detail"].endswith("kept 7 d")
    assert {f"kafka/{topic}" for topic in members[0][KafkaSettings].topics} <= entries.keys()


def test_files_with_passwords_are_their_readers(first: Host) -> None:
    for path, owner in (("/etc/phoenix-kafka/server.properties", "phoenix-kafka"), ("/etc/phoenix-kafka/content.json", "root")):
        file = first.file(path)
        assert (file.user, file.mode) == (owner, 0o600)


def test_units_are_confined(first: Host) -> None:
    for unit in ("phoenix-kafka", "phoenix-kafka-exporter"):
        score = re.search(r"level for .*?: ([\d.]+)", first.run(f"systemd-analyze security {unit} --no-pager").stdout)
        assert score is not None and float(score[1]) < 2.5, unit


@pytest.mark.slow
def test_lag_is_what_a_group_has_not_committed(
    parameters: Parameters, members: list[PlatformHost], first: Host, admin: AdminClient
) -> None:
    group, topic = f"stream-lag-{uuid.uuid4().hex[:8]}", "dead-letter"
    url = f"https://{members[0].data['host_address']}:{members[0][KafkaSettings].metrics_port}/metrics"
    reader = Consumer(parameters("worker", **{"group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False}))
    reader.subscribe([topic])
    try:
        assert send(parameters("worker"), topic, b"one") is None
        message = reader.poll(30)
        assert message is not None and message.error() is None
        reader.commit(message, asynchronous=False)
    finally:
        reader.close()
    for _ in range(7):
        assert send(parameters("worker"), topic, b"waits") is None
    place_keeper = Consumer(parameters("worker", **{"group.id": group}))
    places = [TopicPartition(topic, number) for number in range(3)]
    committed = {place.partition: place.offset for place in place_keeper.committed(places, timeout=10)}
    expected = 0
    for place in places:
        low, high = place_keeper.get_watermark_offsets(place, timeout=10)
        expected += high - max(low, committed[place.partition])
    place_keeper.close()
    assert expected >= 7
    wanted = f'phoenix_kafka_consumer_lag{{group="{group}",topic="{topic}"}} {expected}'
    wait_until(lambda: wanted in first.check_output(f"{CURL} {url}").splitlines(), 30, wanted, every_s=1)
    admin.delete_consumer_groups([group])[group].result(timeout=15)


@pytest.mark.changes
@pytest.mark.slow
def test_what_was_changed_by_hand_is_put_back(
    parameters: Parameters, admin: AdminClient, phoenix: Callable[..., Any], members: list[PlatformHost]
) -> None:
    resource = ConfigResource(
        ConfigResource.Type.TOPIC,
        "task.created",
        incremental_configs=[ConfigEntry("retention.ms", "60000", incremental_operation=AlterConfigOpType.SET)],
    )
    everything = AclBinding(
        ResourceType.TOPIC, "*", ResourcePatternType.LITERAL, "User:agent", "*", AclOperation.ALL, AclPermissionType.ALLOW
    )
    stolen = UserScramCredentialUpsertion("worker", ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), b"stolen")
    for future in (
        *admin.incremental_alter_configs([resource]).values(),
        *admin.create_acls([everything]).values(),
        *admin.alter_user_scram_credentials([stolen]).values(),
        *admin.delete_topics(["dead-letter"], operation_timeout=20).values(),
    ):
        future.result(timeout=20)
    drift = phoenix("drift", "--json", members[0].name)
    assert drift.returncode == 3, drift.stderr
    for said in ("retention.ms is 60000", "agent may ALL topic *", "user worker has another password", "topic dead-letter is missing"):
        assert said in drift.stdout + drift.stderr
    assert phoenix("deploy", "--json", members[0].name).returncode == 0

    configs = admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, "task.created")])
    (entries,) = [future.result(timeout=15) for future in configs.values()]
    assert entries["retention.ms"].value == str(7 * 86_400_000)
    every = AclBindingFilter(ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY)
    assert everything not in admin.describe_acls(every).result(timeout=15)
    AdminClient(parameters("worker")).list_topics(timeout=10)
    assert len(admin.list_topics(timeout=10).topics["dead-letter"].partitions) == 3


@pytest.mark.changes
@pytest.mark.slow
def test_partitions_beyond_those_declared_are_refused_in_a_sentence(
    admin: AdminClient, phoenix: Callable[..., Any], platform: Platform, members: list[PlatformHost], tmp_path: Path
) -> None:
    """The declaration is what shrinks here, not the topic: nothing has to be made anew afterwards."""
    topics = {
        name: {"partitions": one.partitions, "retention_h": one.retention_h} for name, one in members[0][KafkaSettings].topics.items()
    }
    topics["persona.enriched"]["partitions"] = 2
    fewer = tmp_path / "fewer.py"
    text = platform.inventory.read_text(encoding="utf-8")
    fewer.write_text(f"{text}\nfor _name, _data in kafka:\n    _data['kafka_topics'] = {topics!r}\n", encoding="utf-8")
    refused = phoenix("deploy", "-i", str(fewer), members[0].name)
    assert refused.returncode == 1
    assert "topic persona.enriched has 3 partitions and 2 are declared" in refused.stderr
    assert len(admin.list_topics(timeout=10).topics["persona.enriched"].partitions) == 3


@pytest.mark.changes
@pytest.mark.slow
def test_a_killed_broker_is_back_and_has_what_it_acknowledged(
    parameters: Parameters, first: Host, members: list[PlatformHost], admin: AdminClient
) -> None:
    value = uuid.uuid4().hex.encode()
    assert send(parameters("agent"), "consciousness.update", value) is None
    first.check_output("systemctl kill --signal=KILL phoenix-kafka")
    started = time.monotonic()
    producer = Producer(parameters("agent", **{"message.timeout.ms": 60_000, "reconnect.backoff.max.ms": 500}))
    outcome: list[KafkaError | None] = []
    producer.produce("consciousness.update", b"after", on_delivery=lambda error, _: outcome.append(error))
    producer.flush(60)
    took = time.monotonic() - started
    assert outcome == [None]
    print(f"first event after a kill: {took:.1f} s")
    reader = Consumer(parameters("worker", **{"group.id": f"stream-test-{uuid.uuid4().hex}", "auto.offset.reset": "earliest"}))
    reader.subscribe(["consciousness.update"])
    wait_until(lambda: next_value(reader) == value, 30, "what was acknowledged can be read", every_s=0)
    reader.close()
    url = f"https://{members[0].data['host_address']}:{members[0][KafkaSettings].metrics_port}/metrics"
    wait_until(lambda: "phoenix_kafka_up 1\n" in first.check_output(f"{CURL} {url}"), 60, "its exporter sees it again", every_s=1)
    assert took < 60  # the platform's ten seconds are a figure of a quiet machine: a start takes 13 s of CPU time
