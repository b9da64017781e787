"""The second region's pure parts: what is repaired of publication and subscription, what is refused, how migrations are ordered."""

from __future__ import annotations

import copy
import runpy
from typing import Any

import pytest

from deploys.lib import region2
from deploys.lib.region2 import Publisher
from deploys.lib.settings import GROUP_DATA
from deploys.postgresql import publication, schema, subscription

DECLARED = {"agents": frozenset[str](), "people": frozenset({"id", "name"})}
OPTIONS = region2.subscription_options(17)


def table(**differing: Any) -> dict[str, Any]:
    """A table of the schema as publication.STATE gives it."""
    row = {"columns": ["id", "name"], "key": ["id"], "hypertable": False, "references": None, "granted": None, "granted_columns": None}
    return {**row, **differing}


def published(**differing: Any) -> dict[str, Any]:
    """A row of publication.STATE in which all is as DECLARED says, but for what differs."""
    state: dict[str, Any] = {
        "publication": {"actions": True, "root": True, "all": False},
        "published": {"phoenix.agents": {"columns": [], "filter": None}, "phoenix.people": {"columns": ["name", "id"], "filter": None}},
        "tables": {"agents": table(granted=["SELECT"]), "people": table(granted_columns=["id", "name"]), "secrets": table()},
        "enters": True,
    }
    return {**copy.deepcopy(state), **differing}


def test_a_publication_as_declared_needs_nothing() -> None:
    assert publication.changes(DECLARED, published()) == []


def test_a_publication_that_is_missing_is_made_whole() -> None:
    ((what, sql),) = publication.changes(DECLARED, published(publication=None, published={}))
    assert what == "publication region2 is missing"
    assert sql == (
        'CREATE PUBLICATION "region2" FOR TABLE phoenix."agents", phoenix."people" ("id", "name") '
        "WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);"
    )


@pytest.mark.parametrize(
    ("differing", "what", "sql"),
    [
        (
            {"publication": {"actions": False, "root": True, "all": False}},
            "publication region2 has other options",
            'PUBLICATION "region2" SET (',
        ),
        (
            {"publication": {"actions": True, "root": False, "all": False}},
            "publication region2 has other options",
            "via_partition_root = true",
        ),
        ({"publication": {"actions": True, "root": True, "all": True}}, "publishes whole schemas", 'DROP PUBLICATION "region2";'),
        (
            {"published": {"phoenix.people": {"columns": ["id", "name"], "filter": None}}},
            "publication region2 lacks phoenix.agents",
            'SET TABLE phoenix."agents", phoenix."people" ("id", "name");',
        ),
        (
            {"published": {**published()["published"], "phoenix.secrets": {"columns": [], "filter": None}}},
            "publication region2 has phoenix.secrets",
            "SET TABLE",
        ),
        (
            {"published": {**published()["published"], "phoenix.people": {"columns": [], "filter": None}}},
            "publication region2 has other columns of phoenix.people",
            "SET TABLE",
        ),
        (
            {"published": {**published()["published"], "phoenix.agents": {"columns": [], "filter": "(id > 3)"}}},
            "publication region2 filters phoenix.agents",
            "SET TABLE",
        ),
        ({"enters": False}, "subscriber may not enter", "GRANT USAGE ON SCHEMA phoenix"),
        (
            {"tables": {**published()["tables"], "people": table(granted=["SELECT"])}},
            "subscriber has other rights on people",
            'REVOKE ALL ON phoenix."people" FROM "subscriber"; GRANT SELECT ("id", "name") ON phoenix."people" TO "subscriber";',
        ),
        (
            {"tables": {**published()["tables"], "agents": table(granted=["SELECT", "DELETE"])}},
            "subscriber has other rights on agents",
            "REVOKE ALL",
        ),
        (
            {"tables": {**published()["tables"], "secrets": table(granted_columns=["id"])}},
            "subscriber has other rights on secrets",
            'REVOKE ALL ON phoenix."secrets" FROM "subscriber";',
        ),
    ],
)
def test_what_differs_from_the_publication_is_named_and_mended(differing: dict[str, Any], what: str, sql: str) -> None:
    found = publication.changes(DECLARED, published(**differing))
    assert what in found[0][0]
    assert sql in found[0][1]


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        ({"people": table()}, "schema phoenix has no table agents"),
        ({"people": table(), "agents": table(hypertable=True)}, "agents is a hypertable, whose rows no publication follows"),
        ({"people": table(), "agents": table(key=None)}, "agents has no primary key"),
        ({"agents": table(), "people": table(columns=["id"])}, "people has no column name"),
        ({"agents": table(), "people": table(key=["id", "created_at"])}, "people is declared without created_at of its primary key"),
        (
            {"agents": table(), "people": table(), "credentials": table(references=["agents"])},
            "agents is declared and credentials is not, and credentials references agents",
        ),
        (
            {"agents": table(references=["teams"]), "people": table(), "teams": table()},
            "agents is declared and teams is not, and agents references teams",
        ),
    ],
)
def test_what_cannot_be_published_is_refused_in_a_sentence(tables: dict[str, Any], reason: str) -> None:
    (fault,) = publication.faults(DECLARED, tables)
    assert reason in fault
    assert fault.startswith("region2_tables: ")


def subscribed(**differing: Any) -> dict[str, Any]:
    """A row of subscription.STATE as it has to be, but for what differs in the subscription itself."""
    row = {
        "subconninfo": "host=a",
        "subslotname": "region2",
        "subpublications": ["region2"],
        "subenabled": True,
        "owner": "region2_apply",
        **{option.column: option.stored for option in OPTIONS},
    }
    return {"subscription": {**row, **differing}, "tables": sorted(DECLARED)}


def test_a_subscription_as_declared_needs_nothing() -> None:
    assert subscription.changes(DECLARED, "host=a", OPTIONS, subscribed()) == []


@pytest.mark.parametrize(
    ("differing", "whats", "sql"),
    [
        ({"subenabled": False}, ["is disabled"], 'SUBSCRIPTION "region2" ENABLE;'),
        ({"subconninfo": "host=b"}, ["connects elsewhere"], "CONNECTION 'host=a';"),
        ({"owner": "postgres"}, ["belongs to postgres"], 'OWNER TO "region2_apply";'),
        ({"subpublications": ["other"]}, ["has other publications"], 'SET PUBLICATION "region2";'),
        ({"subfailover": False}, ["is stopped for a moment", "failover differs", "starts again"], "SET (failover = true);"),
        ({"subdisableonerr": True}, ["is stopped", "disable_on_error differs", "starts again"], "SET (disable_on_error = false);"),
        ({"subslotname": None, "subenabled": False}, ["is stopped", "has another slot", "is disabled"], 'SET (slot_name = "region2");'),
    ],
)
def test_what_differs_from_the_subscription_is_named_and_mended(differing: dict[str, Any], whats: list[str], sql: str) -> None:
    found = subscription.changes(DECLARED, "host=a", OPTIONS, subscribed(**differing))
    assert len(found) == len(whats)
    assert all(what in said for what, (said, _) in zip(whats, found, strict=True))
    assert sql in "\n".join(one for _, one in found)


def test_tables_that_come_and_go_are_followed() -> None:
    ((what, sql),) = subscription.changes(DECLARED, "host=a", OPTIONS, {**subscribed(), "tables": ["agents", "old"]})
    assert what == "subscription region2 lacks people; has old"
    assert sql == 'ALTER SUBSCRIPTION "region2" REFRESH PUBLICATION;'


def test_the_guard_hangs_on_every_copied_table_and_on_no_other() -> None:
    whole = sorted(subscription.GUARD_TRIGGERS)
    right = subscription.guards({}, {"guard": None, "guarded": {}})
    assert right[0][0] == "the function that guards the copied tables is another"
    state = {"guard": None, "guarded": {"agents": whole, "people": whole[:1], "old": whole}}
    named = [what for what, _ in subscription.guards(DECLARED, state)][1:]
    assert named == ["people may be written by anybody", "old is guarded and not copied"]


def test_the_connection_goes_to_whichever_member_leads_and_holds_no_password() -> None:
    words = region2.conninfo([Publisher("10.0.0.1", 5432), Publisher("10.0.0.2", 5433)], ca="/ca.crt").split(" ")
    pairs = dict(word.split("=", 1) for word in words if "=" in word)
    assert (pairs["host"], pairs["port"]) == ("10.0.0.1,10.0.0.2", "5432,5433")
    assert pairs["target_session_attrs"] == "primary"
    assert pairs["sslmode"] == "verify-full"
    assert "password" not in pairs
    assert pairs["passfile"] == region2.PASSFILE


def test_who_carries_the_slot_over_a_failover_follows_from_the_version() -> None:
    """PostgreSQL itself from 17 on, Patroni before."""
    for version in (16, 17, 18):
        native = "failover" in {option.name for option in region2.subscription_options(version)}
        assert native == (version >= 17)
        assert (region2.permanent_slots(version, "phoenix") == {}) == native


@pytest.mark.parametrize(("member", "slot"), [("vps2", "vps2"), ("VPS-2.example", "vps_2_example"), ("a@b", "au0064b")])
def test_slots_of_members_are_named_as_patroni_names_them(member: str, slot: str) -> None:
    assert region2.member_slot(member) == slot


def test_what_reaches_a_person_is_not_declared() -> None:
    tables = runpy.run_path(str(GROUP_DATA / "region2.py"))["region2_tables"]
    assert tables["personas"]
    assert not set(tables["personas"]) & {"email_encrypted", "email_hash", "email_key_id", "linkedin_url"}
    assert not set(tables) & {"consciousness_timeline", "task_ledger"}


def test_the_copy_stops_in_front_of_the_first_contraction(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "SQL", tmp_path)
    for name, first in {
        "V1.2__a": "-- more",
        "V1.10__b": "-- contracts: a.old",
        "V2.1__c": "-- more",
        "R__x": "-- contracts: nothing",
    }.items():
        (tmp_path / f"{name}.sql").write_text(f"{first}\nSELECT 1;\n")
    names = list(schema.migrations())
    assert schema._before_contraction(names) == "1.2"
    assert schema._before_contraction(["V1.10__b.sql", "V2.1__c.sql"]) is None
    assert schema._before_contraction(["V2.1__c.sql", "R__x.sql"]) == "latest"


def test_a_migration_that_takes_something_away_says_so() -> None:
    """What drops, renames or narrows begins with `-- contracts:`, or the copy would lose it before the last row that has it arrives."""
    taking = ("DROP COLUMN", "DROP TABLE", "RENAME COLUMN", "RENAME TO", "SET NOT NULL", "DROP TYPE")
    for path in schema.SQL.glob("V*.sql"):
        text = "\n".join(line for line in path.read_text(encoding="utf-8").upper().splitlines() if not line.strip().startswith("--"))
        if any(words in text for words in taking):
            assert schema.contracts(path.name), f"{path.name} takes something away: begin it with '{schema.CONTRACTS} WHAT'"
