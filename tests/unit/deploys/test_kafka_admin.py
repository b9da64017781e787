"""What differs between a cluster and what is declared, in words, and which of it is repaired."""

from __future__ import annotations

import kafka_admin
import pytest
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType
from kafka_admin import Topic, as_rule, compare_rules, compare_topics, compare_users

CONFIG = {"cleanup.policy": "delete", "retention.ms": "3600000"}
WANTED = {"task.created": {"partitions": 6, "copies": 1, "config": CONFIG}}


@pytest.mark.parametrize(
    ("topic", "said", "repaired"),
    [
        (Topic(6, 1, CONFIG), None, None),
        (None, "topic task.created is missing", True),
        (Topic(4, 1, CONFIG), "topic task.created has 4 partitions, not 6", True),
        (Topic(9, 1, CONFIG), "topic task.created has 9 partitions and 6 are declared", False),
        (Topic(6, 3, CONFIG), "topic task.created has 3 copies and 1 are declared", False),
        (Topic(6, 1, CONFIG | {"retention.ms": "1"}), "topic task.created: retention.ms is 1, not 3600000", True),
        (Topic(6, 1, {"cleanup.policy": "delete"}), "topic task.created: retention.ms is not set, not 3600000", True),
        (Topic(6, 1, CONFIG | {"max.message.bytes": "9"}), "topic task.created: max.message.bytes is set to 9", True),
    ],
)
def test_a_topic_that_differs_is_told_and_repaired_where_that_can_be(topic: Topic | None, said: str | None, repaired: bool | None) -> None:
    found = compare_topics(WANTED, {} if topic is None else {"task.created": topic, "connect-offsets": Topic(25, 1, {})})
    assert [one.what.startswith(said or "") for one in found] == ([True] if said else [])
    assert [one.repair is not None for one in found] == ([repaired] if said else [])


def test_fewer_partitions_are_never_a_repair_even_beside_one() -> None:
    found = compare_topics(WANTED, {"task.created": Topic(9, 1, {})})
    assert {one.repair[0] if one.repair else None for one in found} == {None, "configure"}


def test_rules_that_nobody_declared_go() -> None:
    declared = ("agent", "topic", "task.created", False, "READ")
    foreign = ("agent", "topic", "*", False, "ALL")
    found = compare_rules([declared], {foreign})
    assert [(one.what, one.repair) for one in found] == [
        ("access rule missing: agent may READ topic task.created", ("allow", declared)),
        ("access rule that nobody declared: agent may ALL topic *", ("forbid", foreign)),
    ]


@pytest.mark.parametrize(
    ("principal", "where", "permission"),
    [
        ("User:agent", "10.0.0.1", AclPermissionType.ALLOW),
        ("User:agent", "*", AclPermissionType.DENY),
        ("Group:agent", "*", AclPermissionType.ALLOW),
    ],
)
def test_a_rule_that_looks_like_none_of_ours_equals_none_of_ours(principal: str, where: str, permission: AclPermissionType) -> None:
    binding = AclBinding(ResourceType.TOPIC, "t", ResourcePatternType.LITERAL, principal, where, AclOperation.READ, permission)
    assert isinstance(as_rule(binding), str)


def test_a_declared_rule_comes_back_as_it_was_sent() -> None:
    for rule in (("agent", "topic", "task.", True, "READ"), ("monitor", "broker", "kafka-cluster", False, "DESCRIBE_CONFIGS")):
        assert as_rule(kafka_admin._binding(rule)) == rule


def test_users_are_put_back_and_strangers_removed() -> None:
    credentials = {"agent": ["SCRAM_SHA_512"], "worker": ["SCRAM_SHA_512"], "mallory": ["SCRAM_SHA_256"], "admin": ["SCRAM_SHA_256"]}
    found = compare_users(["admin", "agent", "worker"], credentials, refused=["worker"])
    assert [one.repair for one in found] == [
        ("password", "admin"),
        ("password", "worker"),
        ("remove", "admin", "SCRAM_SHA_256"),
        ("remove", "mallory", "SCRAM_SHA_256"),
    ]
