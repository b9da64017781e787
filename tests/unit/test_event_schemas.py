"""Schemas of the change events: complete, valid, with examples that hold, and each version readable by consumers of the one before."""

from __future__ import annotations

import copy
import itertools
import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.event_schemas import SCHEMAS, breaks, faults, validator, versions

SPEC = {"agent.heartbeat", "task.created", "task.completed", "persona.enriched", "consciousness.update", "hormone.cascade"}
EVENTS = SPEC | {"graph.changed"}
BY_AGENTS = {"agent.heartbeat", "consciousness.update"}
NOBODY = "00000000-0000-0000-0000-000000000000"
TRUSTS = {"op": "delete", "edge": "TRUSTS", "from_label": "Agent", "from": NOBODY, "to_label": "Agent", "to": NOBODY}
ALL = [(event, version) for event in sorted(EVENTS) for version in versions(event)]


def test_every_event_of_the_spec_has_a_schema_and_versions_have_no_gap() -> None:
    assert {path.name for path in SCHEMAS.iterdir() if path.is_dir()} == EVENTS
    for event in EVENTS:
        assert list(versions(event)) == list(range(1, len(versions(event)) + 1)), event


@pytest.mark.parametrize(("event", "version"), ALL)
def test_a_schema_is_valid_and_names_itself(event: str, version: int) -> None:
    schema = versions(event)[version]
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:phoenix:event:{event}:{version}"
    assert schema["properties"]["event"]["const"] == event
    assert schema["properties"]["version"]["const"] == version
    assert ("seq" in schema["required"]) == (event not in BY_AGENTS)
    assert "additionalProperties" not in json.dumps(schema), "a later version may add fields"


@pytest.mark.parametrize(("event", "version"), ALL)
def test_examples_hold_and_broken_ones_do_not(event: str, version: int) -> None:
    examples = versions(event)[version]["examples"]
    assert examples
    for example in examples:
        assert faults(example) == []
        for name in example["data"].keys() & set(versions(event)[version]["properties"]["data"]["required"]):
            broken = copy.deepcopy(example)
            del broken["data"][name]
            assert not validator(event, version).is_valid(broken), f"without {name}"
        assert not validator(event, version).is_valid({**example, "id": "not a uuid"})
        assert not validator(event, version).is_valid({**example, "occurred_at": "yesterday"})


@pytest.mark.parametrize("event", sorted(EVENTS))
def test_each_version_can_be_read_by_consumers_of_the_one_before(event: str) -> None:
    for (old, older), (new, newer) in itertools.pairwise(versions(event).items()):
        assert breaks(older, newer) == [], f"{event}: {new} after {old}"
        for example in newer["examples"]:
            assert validator(event, old).is_valid({**example, "version": old})


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"op": "upsert", "node": "Agent", "id": NOBODY}, "an upsert says what is there"),
        ({"op": "delete", "node": "Agent", "id": NOBODY, "properties": {}}, "a delete has no properties"),
        ({"op": "delete", "edge": "TRUSTS", "from_label": "Agent", "from": NOBODY, "to_label": "Agent"}, "an edge has two ends"),
        ({**TRUSTS, "node": "Agent", "id": NOBODY}, "a node is no edge"),
        ({"op": "upsert", "node": "Agent", "id": NOBODY, "properties": {"team": None}}, "what is not known is absent"),
        ({"op": "upsert", "node": "Agent", "id": NOBODY, "properties": {"team": {"name": "iota"}}}, "no properties in properties"),
    ],
)  # fmt: skip
def test_what_the_graph_cannot_take_is_not_by_its_schema(data: dict[str, Any], why: str) -> None:
    assert faults({**versions("graph.changed")[1]["examples"][0], "data": data}), why


def changed(**how: Any) -> dict[str, Any]:
    """The schema of task.created with one thing in data changed: a property by name, or None to remove it."""
    schema = copy.deepcopy(versions("task.created")[1])
    data = schema["properties"]["data"]
    for name, value in how.items():
        if value is None:
            del data["properties"][name]
        else:
            data["properties"][name] = value
    return schema


@pytest.mark.parametrize(
    ("newer", "why"),
    [
        (changed(priority=None), "/data/priority is gone"),
        (changed(priority={"type": "string"}), "/data/priority may be of another type"),
        (changed(priority={"type": ["integer", "null"], "minimum": 1, "maximum": 10}), "/data/priority may be of another type"),
        (changed(priority={"type": "integer", "minimum": 1, "maximum": 100}), "/data/priority has a wider maximum"),
        (changed(status={"enum": ["open", "sleeping"]}), "/data/status may have values that it did not have"),
        (changed(id={"type": "string"}), "/data/id has another format"),
    ],
)
def test_what_would_break_a_consumer_is_found(newer: dict[str, Any], why: str) -> None:
    assert why in breaks(versions("task.created")[1], newer)


def test_a_field_may_be_added_but_not_demanded() -> None:
    newer = changed(team_size={"type": "integer"})
    assert breaks(versions("task.created")[1], newer) == []
    newer["properties"]["data"]["required"].append("team_size")
    assert breaks(versions("task.created")[1], newer) == ["/data/team_size is required now"]
