"""Kafka as the inventory describes it: numbers of nodes, copies, what is rendered, who may do what."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deploys import tls
from deploys.kafka import cluster, content, users
from deploys.lib import generated, sizing
from deploys.lib.operations import template
from deploys.lib.settings import ROOT, KafkaSettings, SettingsError, load

LAB = load(ROOT / "inventory" / "lab.py")
SETTINGS = LAB.group("kafka")[0][KafkaSettings]


def properties(brokers: int) -> dict[str, str]:
    text = template(
        "kafka/server.properties.j2",
        cfg=SETTINGS,
        address="10.0.0.1",
        node_id=1,
        controllers="10.0.0.1:9094",
        copies=cluster.copies(brokers),
        in_sync=cluster.in_sync(brokers),
        super_users=users.SUPER_USERS,
        data="/d",
        keystore="/k",
        tls=tls,
        password="secret",
    )()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize(("brokers", "copies", "in_sync"), [(1, 1, 1), (2, 2, 1), (3, 3, 2), (5, 3, 2)])
def test_copies_follow_from_the_number_of_hosts(brokers: int, copies: int, in_sync: int) -> None:
    found = properties(brokers)
    assert found["default.replication.factor"] == found["offsets.topic.replication.factor"] == str(copies)
    assert found["transaction.state.log.replication.factor"] == found["share.coordinator.state.topic.replication.factor"] == str(copies)
    assert found["min.insync.replicas"] == found["transaction.state.log.min.isr"] == str(in_sync)
    assert ("log.flush.interval.ms" in found) == (brokers == 1)


def test_nobody_gets_in_without_tls_and_a_password() -> None:
    found = properties(1)
    assert set(found["listener.security.protocol.map"].split(",")) == {"CLIENT:SASL_SSL", "CONTROLLER:SASL_SSL"}
    assert found["allow.everyone.if.no.acl.found"] == found["auto.create.topics.enable"] == "false"
    assert found["super.users"] == "User:admin;User:broker"
    assert [key for key, value in found.items() if "secret" in value] == [
        "listener.name.client.scram-sha-512.sasl.jaas.config",
        "listener.name.controller.plain.sasl.jaas.config",
    ]


@pytest.mark.parametrize(("name", "chosen", "number"), [("vps1", None, 1), ("kafka-12", None, 12), ("vps1", 7, 7), ("node10", None, 10)])
def test_a_node_has_the_number_of_its_name(name: str, chosen: int | None, number: int) -> None:
    assert cluster.node_id(name, chosen) == number


def test_a_name_without_a_number_gives_one_that_stays() -> None:
    assert cluster.node_id("alpha", None) == cluster.node_id("alpha", None) != cluster.node_id("beta", None)
    assert 10_000 <= cluster.node_id("alpha", None) < 2**31


@pytest.mark.parametrize(("memory_mb", "heap_mb"), [(2048, 384), (4096, 384), (8192, 512), (32_768, 2048), (262_144, 4096)])
def test_heap_follows_from_the_hosts_memory(memory_mb: int, heap_mb: int) -> None:
    assert sizing.kafka_heap_mb(memory_mb) == heap_mb


def test_the_topics_are_the_specs_and_ours() -> None:
    found = {name: (topic.partitions, topic.retention_h) for name, topic in SETTINGS.topics.items()}
    assert found == {
        "agent.heartbeat": (12, 24),
        "task.created": (6, 168),
        "task.completed": (6, 720),
        "persona.enriched": (3, 2160),
        "consciousness.update": (24, 1),
        "hormone.cascade": (12, 1),
        "graph.changed": (6, 168),
        "dead-letter": (3, 720),
    }


@pytest.mark.parametrize(("hours", "segment_ms"), [(1, 900_000), (24, 21_600_000), (2160, 86_400_000)])
def test_a_segment_is_no_longer_than_a_quarter_of_the_retention_or_a_day(hours: int, segment_ms: int) -> None:
    assert content.topic_config(hours) == {
        "cleanup.policy": "delete",
        "retention.ms": str(hours * 3_600_000),
        "segment.ms": str(segment_ms),
    }


def may(user: str, operation: str, topic: str, resource: str = "topic") -> bool:
    """As Kafka decides: a rule of this name, of a prefix of it, or of every name."""
    return any(
        rule.user == user
        and rule.resource == resource
        and rule.operation == operation
        and (topic.startswith(rule.name) if rule.prefixed else rule.name in (topic, "*"))
        for rule in users.rules()
    )


@pytest.mark.parametrize("topic", list(SETTINGS.topics))
def test_each_topic_has_its_writers_and_readers_and_no_others(topic: str) -> None:
    agents, dead = topic in ("agent.heartbeat", "consciousness.update"), topic == "dead-letter"
    assert may("agent", "WRITE", topic) == agents
    assert may("connect", "WRITE", topic) == (not agents)
    assert may("worker", "WRITE", topic) == dead
    assert may("worker", "READ", topic)
    assert may("agent", "READ", topic) == (topic in ("task.created", "task.completed", "hormone.cascade"))
    assert not may("connect", "READ", topic)
    assert may("monitor", "DESCRIBE", topic) and not may("monitor", "READ", topic) and not may("monitor", "WRITE", topic)


def test_groups_and_what_connect_owns() -> None:
    assert may("worker", "READ", "stream-redis", "group") and not may("worker", "READ", "connect-phoenix", "group")
    assert may("agent", "READ", "agent-7", "group") and not may("agent", "READ", "stream-redis", "group")
    assert may("connect", "CREATE", "connect-offsets") and not may("connect", "CREATE", "task.created")
    assert not any(rule.operation in ("ALL", "ALTER", "DELETE", "CLUSTER_ACTION") for rule in users.rules())
    assert {rule.user for rule in users.rules()} | set(users.SUPER_USERS) == set(generated.KAFKA_USERS)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"kafka_topics": {"task.created": {"partitions": 0, "retention_h": 1}}}, "kafka_topics.task.created.partitions"),
        ({"kafka_topics": {"Task": {"partitions": 1, "retention_h": 1}}}, "kafka_topics"),
        ({"kafka_session_timeout_ms": 1000}, "a lost heartbeat fences a broker"),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, more: dict[str, object], said: str) -> None:
    host = {
        "ssh_hostname": "192.0.2.1",
        "host_address": "10.0.0.1",
        "host_operator_keys": ["ssh-ed25519 AAAA somebody@example.org"],
        "host_secrets_file": "inventory/site.secrets.yaml",
        **more,
    }
    path = tmp_path / "site.py"
    path.write_text(f"kafka = [('one', {host!r})]\n")
    with pytest.raises(SettingsError, match=re.escape(said)):
        load(path)
