"""The lab's stand-in for the systems that n8n's workflows ask: over a real socket, so that what it tells workflows is what a test saw."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from services import upstreams

Call = Callable[..., tuple[int, Any, dict[str, str]]]


@pytest.fixture
def call() -> Iterator[Call]:
    world = upstreams.World({"hubspot-token": "token", "enrichment-key": "key"})
    server = upstreams.serve("127.0.0.1", 0, world)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def asked(method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.server_address[1]}{path}", data, {"Authorization": "Bearer token", **headers}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return answer.status, answer.read().decode(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), dict(error.headers)

    yield asked
    server.shutdown()
    server.server_close()


def test_pages_follow_each_other_until_all_are_seen(call: Call) -> None:
    call("POST", "/control/objects/contacts", {"generate": 250})
    seen, after = [], ""
    while after is not None:
        _, text, _ = call("GET", f"/crm/v3/objects/contacts?limit=100&after={after or 0}")
        page = json.loads(text)
        seen += [one["id"] for one in page["results"]]
        after = page.get("paging", {}).get("next", {}).get("after")
    assert len(seen) == len(set(seen)) == 250


def test_an_upsert_by_our_id_makes_one_record_only(call: Call) -> None:
    batch = {"inputs": [{"idProperty": "phoenix_id", "id": "u", "properties": {"phoenix_id": "u", "firstname": "A"}}]}
    assert call("POST", "/crm/v3/objects/contacts/batch/upsert", batch)[0] == 400, "the property has to be made first"
    assert [call("POST", "/crm/v3/properties/contacts", {"name": "phoenix_id"})[0] for _ in range(2)] == [201, 409]
    for _ in range(2):
        assert call("POST", "/crm/v3/objects/contacts/batch/upsert", batch)[0] == 200
    assert json.loads(call("GET", "/control/state")[1])["objects"]["contacts"] == 1


def test_it_misbehaves_as_often_as_it_was_told_and_remembers_what_was_asked(call: Call) -> None:
    call("POST", "/control/objects/contacts", {"generate": 1})
    call(
        "POST",
        "/control/faults",
        [{"path": "contacts", "kind": "status", "status": 429, "retry_after": 7}, {"path": "contacts", "kind": "malformed"}],
    )
    status, _, headers = call("GET", "/crm/v3/objects/contacts")
    assert (status, headers["Retry-After"]) == (429, "7")
    with pytest.raises(ValueError, match="line 1"):
        json.loads(call("GET", "/crm/v3/objects/contacts")[1])
    assert call("GET", "/crm/v3/objects/contacts")[0] == 200
    asked = json.loads(call("GET", "/control/requests?path=contacts")[1])["requests"]
    assert [one["status"] for one in asked] == [429, 200, 200]


def test_a_wrong_key_opens_nothing(call: Call) -> None:
    assert call("GET", "/crm/v3/objects/contacts", Authorization="Bearer other")[0] == 401
    assert call("GET", "/v1/companies?name=x")[0] == 401
    assert call("GET", "/v1/companies?name=x", **{"X-Api-Key": "key"})[0] == 404
