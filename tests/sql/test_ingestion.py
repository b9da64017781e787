"""The steps of n8n's workflows, answered by the lab's stand-ins in this process: what they do without n8n and without a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from services import upstreams
from tests.sql.server import Server

Answer = Mapping[str, Any]
HUBSPOT = {"new_per_run": 1000, "verify_per_run": 500, "max_vanished": 0.2}
ENRICHMENT = {"source": "provider", "per_run": 5, "per_day": 100, "refresh_d": 90}


class Runner:
    """Does what n8n does: asks for the next step, makes the request, brings the answer; waits are not waited for."""

    def __init__(self, server: Server, admin: psycopg.Connection) -> None:
        self._server, self.admin = server, admin
        self.crm = upstreams.Crm()
        self.runs = 0

    def ask(self, sql: str) -> list[Any]:
        return [row[0] if len(row) == 1 else row for row in self.admin.execute(sql.encode())]

    def run(
        self, flow: str, settings: Mapping[str, Any], answer: Callable[[Mapping[str, Any]], Answer]
    ) -> tuple[dict[str, Any], list[Any]]:
        """The last step, and all requests."""
        self.runs += 1
        said: Answer | None = None
        requests: list[Any] = []
        with self._server.connect("n8n_flows") as flows:
            while len(requests) < 500:
                row = flows.execute(
                    "SELECT phoenix.ingestion_step(%s, %s, %s, %s)", [flow, f"run-{self.runs}", json.dumps(settings), json.dumps(said)]
                ).fetchone()
                assert row
                step: dict[str, Any] = row[0]
                if step["next"] in (2, 3):
                    return step, requests
                requests.append(step)
                said = answer(step)
        raise AssertionError("the run does not end")

    def hubspot(self, *faults: Answer) -> dict[str, Any]:
        """One run of the synchronisation; the first requests are answered by `faults`."""
        left = list(faults)
        step, _ = self.run("hubspot_sync", HUBSPOT, lambda request: left.pop(0) if left else self.asked(request))
        return step

    def asked(self, request: Mapping[str, Any]) -> Answer:
        url = urlsplit(request["path"])
        world = upstreams.World({})
        world.crm = self.crm
        handler = upstreams.Handler.__new__(upstreams.Handler)
        handler.world, handler.command = world, request["method"]
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        try:
            status, content = handler._crm(url.path.strip("/").split("/")[2:], query, request["body"])
        except upstreams.Refused as refusal:
            return {"status": refusal.status, "body": str(refusal)}
        return {"status": status, "body": "" if content is None else json.dumps(content)}


@pytest.fixture
def runner(server: Server, admin: psycopg.Connection) -> Iterator[Runner]:
    tables = "ingestion_runs, publications, enrichments, consents, recent_posts, hubspot_links, hubspot_conflicts, hubspot_refused"
    admin.execute("TRUNCATE phoenix.personas, phoenix.persona_registry, phoenix.food_companies, phoenix.opportunities CASCADE")
    admin.execute(f"TRUNCATE {', '.join('phoenix.' + name for name in tables.split(', '))} CASCADE".encode())
    admin.execute("UPDATE phoenix.hubspot_cursors SET prepared_at = NULL, listed_at = NULL, changed_since = NULL")
    admin.execute("GRANT CONNECT ON DATABASE phoenix TO n8n_flows")
    yield Runner(server, admin)


def ok(content: object) -> Answer:
    return {"status": 200, "body": content if isinstance(content, str) else json.dumps(content)}


# ---------------------------------------------------------------------------------------------------------------- rights
def test_the_workflows_login_reads_no_table(server: Server, runner: Runner) -> None:
    with server.connect("n8n_flows") as flows, pytest.raises(psycopg.errors.InsufficientPrivilege):
        flows.execute("SELECT * FROM phoenix.personas")
    with server.connect("n8n_flows") as flows, pytest.raises(psycopg.errors.InsufficientPrivilege):
        flows.execute("SELECT phoenix.hubspot_apply('contacts', '[]')")


# ---------------------------------------------------------------------------------------------------------------- the loop
def test_a_request_is_tried_again_after_what_the_other_side_asks_for_and_given_up_at_last(runner: Runner) -> None:
    step, requests = runner.run("hubspot_sync", HUBSPOT, lambda _: {"status": 429, "retry_after": "7", "body": ""})
    assert step["next"] == 3 and "status 429" in step["error"]
    assert [one.get("wait_s") for one in requests] == [None, 7, 7, 7, 7, 7]


def test_a_second_run_beside_the_first_does_nothing(server: Server, runner: Runner) -> None:
    with server.connect("n8n_flows") as flows:
        call = "SELECT phoenix.ingestion_step('hubspot_sync', %s, %s, NULL)"
        first = flows.execute(call, ["one", json.dumps(HUBSPOT)]).fetchone()
        second = flows.execute(call, ["two", json.dumps(HUBSPOT)]).fetchone()
    assert first and first[0]["next"] == 0
    assert second and second[0] == {"next": 2, "skipped": "another run is under way"}
    runner.admin.execute("UPDATE phoenix.ingestion_runs SET touched_at = now() - INTERVAL '1 hour'")
    assert runner.hubspot()["next"] == 2
    assert runner.ask("SELECT state FROM phoenix.ingestion_runs WHERE execution = 'one'") == ["abandoned"]


# ---------------------------------------------------------------------------------------------------------------- publications
def item(guid: str, title: str, link: str, summary: str = "") -> dict[str, str]:
    return {"guid": guid, "title": title, "link": link, "summary": summary, "published": "2026-11-25T04:00:00+00:00"}


def test_feeds_of_both_kinds_are_read_once_and_a_broken_one_does_not_hold_up_the_others(runner: Runner) -> None:
    runner.admin.execute("INSERT INTO phoenix.food_companies (name) VALUES ('Acme Foods'), ('Acme Food')")
    feeds = {
        "https://a/": upstreams.feed(
            {
                "items": [
                    item("1", "Acme Foods grows plant-based sales", "https://x/1", "<p>FDA recall</p>"),
                    item("", "Cocoa prices fall", "https://x/2"),
                ]
            },
            "a",
        ),
        "https://b/": upstreams.feed(
            {"format": "atom", "items": [item("u", "Same article", "https://x/1"), item("v", "Nothing", "https://x/3?a=1&b=2")]}, "b"
        ),
        "https://c/": "<rss><channel><item>",
    }
    settings = {"feeds": {"a": "https://a/", "b": "https://b/", "c": "https://c/"}}
    for _ in range(2):
        step, _ = runner.run("publication_monitor", settings, lambda request: ok(feeds[request["path"]]))
        assert step["next"] == 3 and "c: the body is no xml" in step["error"]
    assert runner.ask("SELECT source, guid, link FROM phoenix.publications ORDER BY link") == [
        ("a", "1", "https://x/1"),
        ("a", "https://x/2", "https://x/2"),
        ("b", "v", "https://x/3?a=1&b=2"),
    ]
    assert runner.ask("SELECT topic, trend FROM phoenix.market_trends ORDER BY topic") == [
        ("ingredient prices", "declining"),
        ("plant-based", "growing"),
    ]
    assert runner.ask("SELECT topic, authority FROM phoenix.regulatory_updates ORDER BY topic") == [("FDA", "FDA"), ("recall", None)]
    assert runner.ask("SELECT matched FROM phoenix.company_mentions") == ["Acme Foods"]


# ---------------------------------------------------------------------------------------------------------------- enrichment
def test_nobody_is_looked_up_without_a_consent_that_holds(runner: Runner) -> None:
    runner.admin.execute(
        "INSERT INTO phoenix.personas (name, linkedin_url) VALUES ('Ann', 'https://l/ann'), ('Bob', 'https://l/bob'), ('Cyd', 'https://l/cyd')"
    )
    for name, columns in (("Ann", ""), ("Bob", ", withdrawn_at"), ("Cyd", ", expires_at")):
        value = {"Ann": "", "Bob": ", now()", "Cyd": ", now() - INTERVAL '1 s'"}[name]
        runner.admin.execute(
            f"INSERT INTO phoenix.consents (persona_id, purpose, source, granted_at{columns}) "
            f"SELECT id, 'enrichment', 'form', now() - INTERVAL '1 day'{value} FROM phoenix.personas WHERE name = '{name}'".encode()
        )
    answer = {
        "company_revenue": 12.50,
        "employee_count": "7",
        "recent_posts": [{"id": "p", "text": "t", "published_at": "no time"}],
        "license": "L",
    }
    step, requests = runner.run("linkedin_scraper", ENRICHMENT, lambda _: ok(answer))
    assert step == {"next": 2, "counts": {"enriched": 1}}
    assert [one["path"] for one in requests] == ["/v1/people?linkedin_url=https%3A%2F%2Fl%2Fann"]
    assert runner.ask("SELECT outcome, consent_id IS NOT NULL, licence FROM phoenix.enrichments") == [("enriched", True, "L")]
    assert runner.ask("SELECT employee_count FROM phoenix.personas WHERE name = 'Ann'") == [7]
    assert runner.run("linkedin_scraper", ENRICHMENT, lambda _: ok(answer))[1] == [], "it is asked again after 90 days only"


def test_the_limits_of_a_run_and_of_a_day_hold(runner: Runner) -> None:
    runner.admin.execute("INSERT INTO phoenix.food_companies (name) SELECT 'Company ' || n FROM generate_series(1, 20) n")
    settings = ENRICHMENT | {"per_day": 7}
    counts = [len(runner.run("linkedin_scraper", settings, lambda _: {"status": 404, "body": ""})[1]) for _ in range(3)]
    assert counts == [5, 2, 0]


# ---------------------------------------------------------------------------------------------------------------- HubSpot
def test_hubspot_both_ways_without_an_echo(runner: Runner) -> None:
    runner.admin.execute("INSERT INTO phoenix.food_companies (name, annual_revenue) VALUES ('Own', 12.50)")
    runner.admin.execute("INSERT INTO phoenix.personas (name, role) VALUES ('Jane van Dyk', 'CEO'), ('Nobody''s contact', NULL)")
    runner.admin.execute(
        "INSERT INTO phoenix.opportunities (name, company_id, contact_persona_id, value, stage) "
        "SELECT 'Own deal', c.id, p.id, 100.5, 'proposal' FROM phoenix.food_companies c, phoenix.personas p WHERE p.role = 'CEO'"
    )
    for _ in range(2):
        runner.crm.put("contacts", {"firstname": "Carla", "lastname": "C", "company": "Their", "email": "carla@example.org"})
    runner.crm.put("contacts", {"email": "only@example.org"})
    runner.crm.put("deals", {"dealname": "Their deal", "amount": "50", "dealstage": "contractsent"})
    counts = runner.hubspot()["counts"]
    assert counts["contacts.made_here"] == 1 and counts["contacts.duplicates"] == 1 and counts["contacts.unnamed"] == 1
    assert (counts["companies.made_there"], counts["contacts.made_there"], counts["deals.made_there"]) == (1, 1, 1)
    assert runner.ask("SELECT name, stage::text, value FROM phoenix.opportunities WHERE source = 'inbound'") == [
        ("Their deal", "negotiation", 50)
    ]
    jane = next(one["properties"] for one in runner.crm.objects["contacts"].values() if one["properties"].get("firstname") == "Jane")
    assert jane["lastname"] == "van Dyk" and jane["jobtitle"] == "CEO"
    written = {name for name in runner.hubspot()["counts"] if name.endswith(("_here", "_there", ".met", ".conflicts"))}
    assert written == set(), "the second run has nothing to write"


def test_hubspot_a_field_belongs_to_whoever_changed_it_and_a_conflict_to_the_newer(runner: Runner) -> None:
    key = runner.crm.put("contacts", {"firstname": "Carla", "lastname": "C", "company": "Old", "jobtitle": "Old"})["id"]
    runner.hubspot()
    runner.admin.execute("UPDATE phoenix.personas SET role = 'Here', company = 'Here'")
    runner.admin.execute("SELECT pg_sleep(0.05)")
    runner.crm.put("contacts", {"industry": "There", "company": "There"}, key=key)
    runner.hubspot()
    assert runner.ask("SELECT company, role, industry FROM phoenix.personas") == [("There", "Here", "There")]
    there = runner.crm.objects["contacts"][key]["properties"]
    assert (there["company"], there["jobtitle"], there["industry"]) == ("There", "Here", "There")
    assert runner.ask("SELECT fields, winner, here ->> 'company' FROM phoenix.hubspot_conflicts") == [(["company"], "there", "Here")]


def test_hubspot_deletes_in_both_directions(runner: Runner) -> None:
    contact = runner.crm.put("contacts", {"firstname": "Carla", "lastname": "C"})["id"]
    binned = runner.crm.put("deals", {"dealname": "Binned", "amount": "1", "dealstage": "contractsent"})["id"]
    removed = runner.crm.put("companies", {"name": "Removed"})["id"]
    runner.hubspot()
    runner.admin.execute("DELETE FROM phoenix.personas")
    runner.crm.put("deals", {}, key=binned, archived=True)
    del runner.crm.objects["companies"][removed]
    # What was seen within the cursor's two minutes is not looked up in the same run.
    for _ in range(2):
        runner.hubspot()
    assert runner.crm.objects["contacts"][contact]["archived"]
    assert runner.ask("SELECT entity, state FROM phoenix.hubspot_links ORDER BY entity") == [
        ("companies", "gone_there"),
        ("contacts", "archived_here"),
        ("deals", "archived_there"),
    ]
    assert runner.ask("SELECT stage::text FROM phoenix.opportunities") == ["closed_lost"]
    runner.crm.put("deals", {}, key=binned, archived=False)
    runner.hubspot()
    assert runner.ask("SELECT stage::text, probability > 0 FROM phoenix.opportunities") == [("negotiation", True)]
    assert runner.crm.objects["deals"][binned]["properties"]["dealstage"] == "contractsent"


def test_hubspot_does_not_archive_everything_because_everything_is_gone_here(runner: Runner) -> None:
    for number in range(30):
        runner.crm.put("contacts", upstreams.generated("contacts", number))
    runner.hubspot()
    runner.admin.execute("DELETE FROM phoenix.personas")
    step = runner.hubspot()
    assert step["next"] == 3 and "30 of 30 linked contacts are gone here" in step["error"]
    assert not any(one["archived"] for one in runner.crm.objects["contacts"].values())


def test_hubspot_a_refused_record_does_not_hold_up_the_others(runner: Runner) -> None:
    runner.admin.execute("INSERT INTO phoenix.food_companies (name) VALUES ('refused by the CRM'), ('Good')")
    runner.admin.execute("INSERT INTO phoenix.opportunities (name, company_id, value) SELECT name, id, 1 FROM phoenix.food_companies")
    counts = runner.hubspot()["counts"]
    assert counts["companies.made_there"] == 1 and counts["companies.refused"] == 1
    assert "companies.refused" not in runner.hubspot()["counts"], "it is not offered again at once"


def test_hubspot_survives_what_a_server_can_say(runner: Runner) -> None:
    runner.crm.put("contacts", {"firstname": "Carla", "lastname": "C"})
    faults: list[Answer] = [
        {"status": 500, "body": "<html>"},
        ok("{<<<"),
        {"error": "timeout"},
        {"status": 429, "retry_after": "3", "body": ""},
        ok("[]"),
    ]
    assert runner.hubspot(*faults)["next"] == 2
    step = runner.hubspot({"status": 401, "body": "no"})
    assert step["next"] == 3 and "status 401" in step["error"]
    assert runner.ask("SELECT count(*) FROM phoenix.personas") == [1]


def test_hubspot_pages_beyond_what_a_search_shows(runner: Runner) -> None:
    runner.hubspot()
    for number in range(10_100):
        runner.crm.put("companies", {"name": f"Company {number}"})
        runner.crm._last += 1
    runner.hubspot()
    assert runner.ask("SELECT count(*) FROM phoenix.food_companies") == [10_100]
