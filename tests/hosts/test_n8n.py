"""n8n on its host: reached as a person and as Prometheus reach it, its workflows run by their schedule's neighbour, the rows read by psql.

The tests that change things tell the world's upstreams how to misbehave, run each workflow once beside the server, and look at both sides.
"""

from __future__ import annotations

import json
import shlex
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from testinfra.host import Host

from deploys.lib.secrets import SecretStore
from deploys.lib.settings import HostSettings, N8nSettings, Platform, PlatformHost, WorldSettings
from tests.hosts.conftest import CA, CURL

On = Callable[[str], Host]
Psql = Callable[..., str]
FLOWS = ("linkedin_scraper", "publication_monitor", "hubspot_sync")


@pytest.fixture(scope="module")
def member(platform: Platform) -> PlatformHost:
    found = platform.group("n8n")
    if not found:
        pytest.skip("this inventory has no n8n")
    return found[0]


@pytest.fixture(scope="module")
def machine(on: On, member: PlatformHost) -> Host:
    return on(member.name)


@pytest.fixture(scope="module")
def url(member: PlatformHost) -> str:
    return f"https://{member[HostSettings].address}:{member[N8nSettings].port}"


@pytest.fixture(scope="module")
def control(platform: Platform, machine: Host) -> Callable[..., Any]:
    """`control("faults", [...])` posts to the upstreams' control, `control("state")` reads it."""
    if "world" not in platform.hosts:
        pytest.skip("this inventory has no world to play the upstreams: it is the lab's")
    world = platform.hosts["world"]
    base = f"https://{world[HostSettings].address}:{world[WorldSettings].upstreams_port}/control"

    def asked(path: str, body: object = None, method: str = "") -> Any:
        data = "" if body is None else f" --data-binary {shlex.quote(json.dumps(body))}"
        how = f"-X {method}" if method else ""
        said = machine.check_output(f"{CURL} -f {how}{data} {shlex.quote(f'{base}/{path}')}")
        return json.loads(said) if said else None

    return asked


@pytest.fixture(scope="module")
def run(machine: Host, psql: Psql) -> Callable[[str], dict[str, Any]]:
    """Run a workflow once beside the server, by n8n itself, and give what the database kept of the run."""

    def once(flow: str) -> dict[str, Any]:
        before = int(psql(f"SELECT count(*) FROM phoenix.ingestion_runs WHERE workflow = '{flow}'"))
        # A run of the schedule may be under way: then this one has nothing to do, and is made again.
        for _ in range(5):
            machine.run(f"systemctl start phoenix-n8n-run@{flow}.service")
            if int(psql(f"SELECT count(*) FROM phoenix.ingestion_runs WHERE workflow = '{flow}' AND state <> 'running'")) > before:
                break
        said = psql(
            "SELECT jsonb_build_object('state', state, 'error', error, 'requests', requests, 'retries', retries, "
            "'counts', plan -> 'counts', "
            f"'seconds', extract(epoch FROM finished_at - started_at)) FROM phoenix.ingestion_runs WHERE workflow = '{flow}' "
            "ORDER BY started_at DESC LIMIT 1"
        )
        found: dict[str, Any] = json.loads(said)
        return found

    return once


# ---------------------------------------------------------------------------------------------------------------- as it stands
def test_it_answers_over_tls_with_the_platforms_certificate(machine: Host, url: str) -> None:
    assert json.loads(machine.check_output(f"{CURL} {url}/healthz/readiness")) == {"status": "ok"}
    assert machine.run(f"curl -s --max-time 5 {url}/healthz").rc == 60, "without the authority nobody believes it"


def test_all_workflows_are_active(machine: Host, url: str) -> None:
    assert f"n8n_active_workflow_count {len(FLOWS)}" in machine.check_output(f"{CURL} {url}/metrics")


def test_the_owner_is_set_and_nobody_else_can_claim_the_instance(
    machine: Host, url: str, secrets: SecretStore, member: PlatformHost
) -> None:
    def login(password: str) -> str:
        body = json.dumps({"emailOrLdapLoginId": member[N8nSettings].owner_email, "password": password})
        # The password over stdin: it is in no list of processes.
        return machine.check_output(
            f"printf %s {shlex.quote(body)} | {CURL} -o /dev/null -w '%{{http_code}}' -H 'content-type: application/json' "
            f"--data-binary @- {url}/rest/login"
        )

    assert login(secrets.get("n8n/owner-password")) == "200"
    assert login("wrong") == "401"
    claim = json.dumps({"email": "a@example.org", "firstName": "A", "lastName": "B", "password": "Abcdefgh1"})
    said = machine.check_output(
        f"{CURL} -o /dev/null -w '%{{http_code}}' -H 'content-type: application/json' --data-binary {shlex.quote(claim)} "
        f"{url}/rest/owner/setup"
    )
    assert said.startswith("4")


def test_it_runs_as_nobody_else_and_is_confined(machine: Host) -> None:
    pid = machine.check_output("systemctl show -P MainPID phoenix-n8n")
    assert machine.check_output(f"stat -c %U /proc/{pid}") == "phoenix-n8n"
    assert int(machine.check_output(f"awk '/^CapEff/ {{print $2}}' /proc/{pid}/status"), 16) == 0
    assert machine.run(f"nsenter -t {pid} -m touch /opt/phoenix/n8n/x").failed


def test_the_workflows_login_may_do_one_thing(psql_as: Callable[..., Any], psql: Psql) -> None:
    assert "permission denied" in psql_as("n8n_flows", "SELECT count(*) FROM phoenix.personas").stderr
    allowed = psql(
        "SELECT string_agg(p.proname, ',') FROM pg_proc p WHERE pronamespace = 'phoenix'::regnamespace "
        "AND has_function_privilege('n8n_flows', p.oid, 'EXECUTE')"
    )
    assert allowed == "ingestion_step"
    assert psql("SELECT count(*) FROM pg_class WHERE relnamespace = 'phoenix'::regnamespace AND relkind IN ('r', 'p', 'v') "
                "AND has_table_privilege('n8n_flows', oid, 'SELECT')") == "0"  # fmt: skip


def test_its_own_database_is_its_alone(psql: Psql) -> None:
    entering = "SELECT string_agg(r, ',') FROM unnest(ARRAY['samurai_agent', 'public_api', 'n8n_flows', 'monitor']) r"
    assert psql(f"{entering} WHERE has_database_privilege(r, 'n8n', 'CONNECT')") == ""
    assert psql("SELECT has_database_privilege('n8n', 'phoenix', 'CONNECT')") == "f"
    assert psql("SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename IN ('n8n', 'n8n_flows')") == "t"


def test_the_import_finds_nothing_to_do(machine: Host) -> None:
    assert machine.run("/usr/local/lib/phoenix/n8n_workflows.py check").rc == 0


# ---------------------------------------------------------------------------------------------------------------- at work
@pytest.mark.changes
@pytest.mark.slow
def test_publications_come_in_from_feeds_that_misbehave(control: Callable[..., Any], run: Callable[..., Any], psql: Psql) -> None:
    mark = uuid.uuid4().hex[:8]
    psql(f"INSERT INTO phoenix.food_companies (name) VALUES ('Mark{mark} Foods')")
    one = {
        "guid": mark,
        "title": f"Mark{mark} Foods grows plant-based sales",
        "link": f"https://x.example/{mark}",
        "published": "2026-11-25T04:00:00+00:00",
    }
    control("feeds/foodnavigator.com", {"format": "rss", "items": [one, one]})
    control(
        "feeds/foodbusinessnews.net",
        {"format": "atom", "items": [one, one | {"guid": mark + "2", "link": one["link"] + "/2", "title": "FDA recall"}]},
    )
    control("feeds/bakingbusiness.com", {"items": []})
    control("faults", [{"path": "/feeds/", "kind": kind, **more} for kind, more in (
        ("status", {"status": 429, "retry_after": 1}), ("status", {"status": 500}), ("malformed", {}), ("dropped", {}))])  # fmt: skip
    found = run("publication_monitor")
    assert found["state"] == "done", found
    assert found["retries"] == 4
    kept = psql(
        "SELECT count(*), count(t), count(m), count(u) FROM phoenix.publications p "
        "LEFT JOIN phoenix.market_trends t ON t.publication_id = p.id "
        "LEFT JOIN phoenix.company_mentions m ON m.publication_id = p.id "
        "LEFT JOIN phoenix.regulatory_updates u ON u.publication_id = p.id AND u.topic = 'FDA' "
        f"WHERE p.link LIKE 'https://x.example/{mark}%'"
    )
    assert kept == "2|1|1|1"


@pytest.mark.changes
@pytest.mark.slow
def test_enrichment_asks_about_who_agreed_and_records_it(control: Callable[..., Any], run: Callable[..., Any], psql: Psql) -> None:
    mark = uuid.uuid4().hex[:8]
    people = {name: f"https://www.linkedin.com/in/{name}{mark}" for name in ("yes", "no")}
    for name, address in people.items():
        psql(f"INSERT INTO phoenix.personas (name, linkedin_url, created_at) VALUES ('{name} {mark}', '{address}', '2020-01-01Z')")
    psql(
        f"INSERT INTO phoenix.consents (persona_id, purpose, source) "
        f"SELECT id, 'enrichment', 'form' FROM phoenix.personas WHERE name = 'yes {mark}'"
    )
    answer = {"company_revenue": 1250000.5, "employee_count": 42, "recent_posts": [{"id": mark, "text": "Hello"}], "license": "test"}
    control("enrichment", {"people": dict.fromkeys(people.values(), answer), "companies": {}})
    control("faults", [{"path": "/v1/", "kind": "status", "status": 429, "retry_after": 1}, {"path": "/v1/", "kind": "malformed"}])
    found = run("linkedin_scraper")
    assert found["state"] == "done", found
    assert psql(f"SELECT company_revenue, employee_count FROM phoenix.personas WHERE name = 'yes {mark}'") == "1250000.50|42"
    assert psql(f"SELECT content FROM phoenix.recent_posts WHERE external_id = '{mark}'") == "Hello"
    kept = "SELECT outcome, consent_id IS NOT NULL, licence FROM phoenix.enrichments e JOIN phoenix.personas p ON p.id = e.persona_id"
    assert psql(f"{kept} WHERE p.name LIKE '% {mark}'") == "enriched|t|test"
    asked = [one["path"] for one in control("requests?path=/v1/people")["requests"]]
    assert not any(f"no{mark}" in path for path in asked)


@pytest.mark.changes
@pytest.mark.slow
def test_hubspot_is_kept_alike_in_both_directions(control: Callable[..., Any], run: Callable[..., Any], psql: Psql) -> None:
    mark = uuid.uuid4().hex[:8]
    (there,) = control("objects/contacts", [{"properties": {"firstname": "There", "lastname": mark, "email": "t@example.org"}}])["objects"]
    psql(f"INSERT INTO phoenix.personas (name, role) VALUES ('Here {mark}', 'CEO')")
    psql(
        f"INSERT INTO phoenix.opportunities (name, value, contact_persona_id) "
        f"SELECT 'Deal {mark}', 5, id FROM phoenix.personas WHERE name = 'Here {mark}'"
    )
    control("faults", [{"path": "contacts", "kind": kind, **more} for kind, more in (
        ("status", {"status": 429, "retry_after": 1}), ("status", {"status": 500}), ("malformed", {}), ("truncated", {}), ("dropped", {}))]
        + [{"path": "contacts/batch/upsert", "kind": "truncated"}, {"path": "deals", "kind": "duplicate"}])  # fmt: skip
    found = run("hubspot_sync")
    assert found["state"] == "done", found
    assert found["retries"] >= 5

    def contacts() -> dict[str, dict[str, Any]]:
        mine = [one for one in control("objects/contacts")["objects"] if one["properties"].get("lastname") == mark]
        return {one["properties"]["firstname"]: one for one in mine}

    assert psql(f"SELECT source FROM phoenix.personas WHERE name = 'There {mark}'") == "hubspot"
    assert contacts()["Here"]["properties"]["jobtitle"] == "CEO"
    # Nothing to do, nothing done: no echo.
    again = run("hubspot_sync")
    assert {name for name in again["counts"] if name.endswith(("_here", "_there", ".conflicts"))} == set()
    # Each side changes a field of its own, and both the same one; there is newer.
    psql(f"UPDATE phoenix.personas SET role = 'Here', company = 'Here' WHERE name = 'There {mark}'")
    control("objects/contacts", [{"id": there["id"], "properties": {"industry": "There", "company": "There"}}])
    assert run("hubspot_sync")["state"] == "done"
    assert psql(f"SELECT company, role, industry FROM phoenix.personas WHERE name = 'There {mark}'") == "There|Here|There"
    assert contacts()["There"]["properties"]["jobtitle"] == "Here"
    assert psql(f"SELECT fields, winner FROM phoenix.hubspot_conflicts WHERE hubspot_id = '{there['id']}'") == "{company}|there"
    # Deleted here, and removed there for good.
    psql(f"DELETE FROM phoenix.personas WHERE name = 'There {mark}'")
    control(f"objects/contacts/{contacts()['Here']['id']}", method="DELETE")
    # Of thousands of links a run looks up some; this one is due.
    psql(
        f"UPDATE phoenix.hubspot_links l SET checked_at = '2020-01-01Z' "
        f"FROM phoenix.personas p WHERE p.id = l.local_id AND p.name = 'Here {mark}'"
    )
    for _ in range(2):
        run("hubspot_sync")
    assert contacts()["There"]["archived"]
    assert (
        psql(f"SELECT l.state FROM phoenix.hubspot_links l JOIN phoenix.personas p ON p.id = l.local_id WHERE p.name = 'Here {mark}'")
        == "gone_there"
    )


@pytest.mark.changes
@pytest.mark.slow
def test_hubspot_ten_thousand_contacts_in_one_run(control: Callable[..., Any], run: Callable[..., Any], psql: Psql) -> None:
    control("reset", {})
    psql("DELETE FROM phoenix.hubspot_links; UPDATE phoenix.hubspot_cursors SET prepared_at = NULL, listed_at = NULL, changed_since = NULL")
    before = int(psql("SELECT count(*) FROM phoenix.personas"))
    control("objects/contacts", {"generate": 10_000})
    found = run("hubspot_sync")
    assert found["state"] == "done", found
    assert int(psql("SELECT count(*) FROM phoenix.personas")) >= before
    assert 10_000 <= found["counts"]["contacts.read"] <= 10_000 + before  # what went there from here may be read again
    # And those that went there from here.
    assert int(psql("SELECT count(*) FROM phoenix.hubspot_links WHERE entity = 'contacts' AND state = 'linked'")) >= 10_000
    assert found["seconds"] <= 180, found  # promised are 60 (docs/benchmarks.md); others may keep this computer busy
    control("reset", {})
    # Without their links nobody is told that they went.
    psql("DELETE FROM phoenix.hubspot_links; DELETE FROM phoenix.personas WHERE name ~ '^First[0-9]+ Last[0-9]+$'")


@pytest.mark.changes
@pytest.mark.slow
def test_a_workflow_that_somebody_changed_in_n8n_is_found(machine: Host, psql: Psql) -> None:
    psql("UPDATE workflow_entity SET active = false WHERE id = 'hubspot_sync'", database="n8n")
    try:
        said = machine.run("/usr/local/lib/phoenix/n8n_workflows.py check")
        assert (said.rc, said.stdout.strip()) == (1, "somebody changed a workflow or a credential in n8n")
    finally:
        psql("UPDATE workflow_entity SET active = true WHERE id = 'hubspot_sync'", database="n8n")
    assert machine.run("/usr/local/lib/phoenix/n8n_workflows.py check").rc == 0


def test_the_authority_is_the_only_one_that_the_workflows_believe_beside_the_worlds(machine: Host) -> None:
    assert f"NODE_EXTRA_CA_CERTS={CA}" in machine.file("/etc/phoenix-n8n/environment").content_string.splitlines()
