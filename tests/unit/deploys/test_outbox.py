"""The outbox on its way to Kafka, as pure functions: the connector, its side of PostgreSQL, the slots that a failover needs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from deploys.kafka import users
from deploys.lib import outbox, region2, sizing
from deploys.lib.settings import GROUP_DATA, ROOT, ConnectSettings, load
from deploys.postgresql.outbox import changes

DATA = runpy.run_path(str(GROUP_DATA / "connect.py"))
SETTINGS = ConnectSettings(**{key.removeprefix("connect_"): value for key, value in DATA.items() if key.startswith("connect_")})


def connector(version: int = 17) -> dict[str, str]:
    return outbox.connector(SETTINGS, address="10.0.0.1", port=5432, version=version, copies=3, ca="/ca.crt")


def test_everything_is_text_as_connect_stores_it() -> None:
    """Else each deploy would find another configuration than it gave."""
    assert all(isinstance(value, str) for value in connector().values())
    assert {"True", "False", "None"} & set(connector().values()) == set()


def test_a_password_is_a_reference() -> None:
    assert connector()["database.password"] == "${file:/run/credentials/phoenix-connect.service/secrets.properties:postgresql}"


@pytest.mark.parametrize(("version", "said"), [(16, None), (17, "true"), (18, "true")])
def test_a_failover_slot_where_the_server_has_them(version: int, said: str | None) -> None:
    assert connector(version).get("slot.failover") == said
    assert (outbox.SLOT in region2.permanent_slots(version, "phoenix", [outbox.SLOT])) == (said is None)


def test_events_may_be_written_to_every_topic_of_the_outbox() -> None:
    emit = re.search(r"type = ANY \('\{(.+?)\}'", (ROOT / "sql" / "R__41_outbox.sql").read_text())
    assert emit is not None
    topics = emit.group(1).split(",")
    allowed = [rule for rule in users.rules() if (rule.user, rule.resource, rule.operation) == ("connect", "topic", "WRITE")]
    for topic in [*topics, outbox.HEARTBEAT_TOPIC, *outbox.TOPICS.values()]:
        assert any(topic.startswith(rule.name) if rule.prefixed else topic == rule.name for rule in allowed), topic
    assert set(topics) <= set(runpy.run_path(str(GROUP_DATA / "kafka.py"))["kafka_topics"])


GOOD: dict[str, Any] = {
    "table": True,
    "publication": {"insert": True, "others": False, "tables": ["outbox"]},
    "enters": True,
    "emits": True,
    "granted": ["outbox SELECT"],
    "keep": "7 days",
}


def test_nothing_is_changed_where_everything_is_right() -> None:
    assert changes(GOOD, keep="7 days") == []
    assert changes(GOOD | {"granted": ["phoenix.outbox SELECT"]}, keep="7 days") == []


@pytest.mark.parametrize(
    ("what", "sql"),
    [
        ({"publication": None}, "CREATE PUBLICATION \"outbox\" FOR TABLE phoenix.outbox WITH (publish = 'insert');"),
        ({"publication": {"insert": True, "others": True, "tables": ["outbox"]}}, "DROP PUBLICATION"),
        ({"publication": {"insert": True, "others": False, "tables": ["outbox", "agents"]}}, "DROP PUBLICATION"),
        ({"enters": False}, "GRANT CONNECT ON DATABASE phoenix"),
        ({"emits": None}, "pg_logical_emit_message"),
        ({"granted": ["outbox SELECT", "agents SELECT"]}, "REVOKE ALL ON ALL TABLES IN SCHEMA phoenix"),
        ({"granted": []}, "GRANT SELECT ON phoenix.outbox"),
        ({"keep": None}, "SET phoenix.outbox_keep = '7 days'"),
    ],
)
def test_what_was_changed_by_hand_is_put_back(what: dict[str, Any], sql: str) -> None:
    ((_, statement),) = changes(GOOD | what, keep="7 days")
    assert sql in statement


def test_a_planned_failover_waits_for_both_slots() -> None:
    assert region2.failover_slots(load(Path(ROOT / "inventory" / "lab.py"))) == ["region2", "outbox"]


@pytest.mark.parametrize(("memory_mb", "heap_mb"), [(2048, 256), (8192, 256), (16_384, 512), (65_536, 1024)])
def test_the_heap_grows_with_the_machine(memory_mb: int, heap_mb: int) -> None:
    assert sizing.connect_heap_mb(memory_mb) == heap_mb
