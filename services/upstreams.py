"""The lab's stand-in for what belongs to somebody else: an enrichment API, feeds and a CRM with the shape of HubSpot's API v3.

    GET  /v1/people?linkedin_url=       enrichment of a person, header X-Api-Key; 404 for somebody unknown
    GET  /v1/companies?name=            of a company
    GET  /feeds/NAME                    RSS or Atom
    /crm/v3/objects/TYPE                list (limit, after, properties, archived), search, batch/read, batch/upsert, batch/update,
                                        batch/archive; /crm/v3/properties/TYPE; Authorization: Bearer

What follows is only for who shows a certificate of the platform:

    POST /control/faults                [{"path": REGEX, "times": N, "kind": KIND, ...}]: how the next N matching requests are answered:
                                        status (status, retry_after), malformed, truncated, slow (seconds), dropped, duplicate
    GET  /control/requests              what was asked: method, path, body, status
    GET  /control/state                 numbers of all that is kept
    POST /control/objects/TYPE          [{"id"?, "properties", "archived"?}]: somebody works in the CRM; or {"generate": N}
    DELETE /control/objects/TYPE/ID     somebody removes it for good; with ?archive=1 into the CRM's bin
    GET  /control/objects/TYPE          all of them
    POST /control/feeds/NAME            {"format": "rss" or "atom", "items": [{"guid", "title", "link", "summary", "published"}]} or {"raw"}
    POST /control/enrichment            {"people": {URL: ANSWER}, "companies": {NAME: ANSWER}}
    POST /control/reset                 forget everything

Standard library only: it runs on a bare machine. Everything is in memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import ssl
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

TYPES = {"contacts": "lastmodifieddate", "companies": "hs_lastmodifieddate", "deals": "hs_lastmodifieddate"}
"""Kinds of objects of the CRM, with the property that says when one was changed."""
MAX_BATCH = 100
MAX_SEARCH = 10_000
MAX_BODY_BYTES = 16 * 1024 * 1024
KEPT_REQUESTS = 20_000
TIMEOUT_S = 30


class Refused(Exception):
    """The request is answered with this status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def iso(milliseconds: int) -> str:
    """A time as the CRM writes it."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{milliseconds % 1000:03d}Z"


class Crm:
    """Objects by type and id. Changes get ever later times."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in TYPES}
        self.properties: dict[str, set[str]] = {kind: set() for kind in TYPES}
        self._ids = itertools.count(1001)
        self._last = 0

    def put(self, kind: str, properties: Mapping[str, Any], *, key: str | None = None, archived: bool | None = None) -> dict[str, Any]:
        """Make or change an object; the empty string removes a property."""
        self._last = now = max(int(time.time() * 1000), self._last)
        key = key or str(next(self._ids))
        found = self.objects[kind].setdefault(key, {"created": now, "archived": False, "properties": {}})
        found["properties"].update({name: None if value in (None, "") else str(value) for name, value in properties.items()})
        found["modified"] = now
        if archived is not None:
            found["archived"] = archived
        return self.shown(kind, key)

    def shown(self, kind: str, key: str, wanted: Sequence[str] | None = None) -> dict[str, Any]:
        """An object as the API gives it, with the properties that were asked for."""
        found = self.objects[kind][key]
        own = {"hs_object_id": key, "createdate": iso(found["created"]), TYPES[kind]: iso(found["modified"])}
        chosen = found["properties"] if wanted is None else {name: found["properties"].get(name) for name in wanted}
        shown = {
            "id": key,
            "properties": {**chosen, **own},
            "createdAt": iso(found["created"]),
            "updatedAt": iso(found["modified"]),
            "archived": found["archived"],
        }
        return shown | ({"archivedAt": iso(found["modified"])} if found["archived"] else {})

    def list(self, kind: str, query: Mapping[str, str]) -> dict[str, Any]:
        """One page, by id."""
        limit, after = min(int(query.get("limit", "10")), 100), int(query.get("after", "0"))
        archived = query.get("archived") == "true"
        keys = sorted((int(key) for key, one in self.objects[kind].items() if one["archived"] == archived and int(key) > after))
        wanted = [name for name in query.get("properties", "").split(",") if name]
        answer: dict[str, Any] = {"results": [self.shown(kind, str(key), wanted) for key in keys[:limit]]}
        if len(keys) > limit:
            answer["paging"] = {"next": {"after": str(keys[limit - 1])}}
        return answer

    def search(self, kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Objects changed since a moment, oldest first; not more than 10,000 can be paged through."""
        limit, after = min(int(body.get("limit", 10)), 200), int(body.get("after") or 0)
        if after + limit > MAX_SEARCH:
            raise Refused(400, f"paging ends at {MAX_SEARCH} results")
        since = 0
        for condition in (one for group in body.get("filterGroups", []) for one in group["filters"]):
            if condition["propertyName"] != TYPES[kind] or condition["operator"] != "GTE":
                raise Refused(400, "this CRM knows the filter GTE on the time of change only")
            since = int(condition["value"])
        found = [(one["modified"], int(key)) for key, one in self.objects[kind].items() if one["modified"] >= since and not one["archived"]]
        found.sort()
        page = [self.shown(kind, str(key), body.get("properties", [])) for _, key in found[after : after + limit]]
        answer: dict[str, Any] = {"total": len(found), "results": page}
        if after + limit < len(found):
            answer["paging"] = {"next": {"after": str(after + limit)}}
        return answer

    def batch(self, kind: str, action: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any] | None]:
        """One of the batch calls: status and answer."""
        inputs = body["inputs"]
        if not 0 < len(inputs) <= MAX_BATCH:
            raise Refused(400, f"a batch has 1 to {MAX_BATCH} inputs")
        if action == "archive":
            for one in inputs:
                if one["id"] in self.objects[kind]:
                    self.put(kind, {}, key=one["id"], archived=True)
            return 204, None
        self._valid(kind, inputs)
        results, missing = [], []
        for one in inputs:
            key: str | None = one["id"]
            if one.get("idProperty"):
                key = self._by(kind, one["idProperty"], one["id"])
            elif key not in self.objects[kind] or self.objects[kind][key]["archived"]:
                missing.append(one["id"])
                continue
            if action == "read":
                results.append(self.shown(kind, str(key), body.get("properties", [])))
            else:
                results.append({**self.put(kind, one["properties"], key=key), "new": key is None})
        if not missing:
            return 200, {"status": "COMPLETE", "results": results}
        gone = {"status": "error", "category": "OBJECT_NOT_FOUND", "message": "Could not get some objects", "context": {"ids": missing}}
        return 207, {"status": "COMPLETE", "results": results, "numErrors": 1, "errors": [gone]}

    def _valid(self, kind: str, inputs: Sequence[Mapping[str, Any]]) -> None:
        for one in inputs:
            if one.get("idProperty") and one["idProperty"] not in self.properties[kind]:
                raise Refused(400, f"property {one['idProperty']} does not exist or is not unique")
            if one.get("properties", {}).get("name") == "refused by the CRM":
                raise Refused(400, "property values were not valid")

    def _by(self, kind: str, name: str, value: str) -> str | None:
        return next((key for key, one in self.objects[kind].items() if one["properties"].get(name) == value), None)


class World:
    """All that is kept, behind one lock."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self.keys = keys
        self.lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.crm = Crm()
        self.feeds: dict[str, dict[str, Any]] = {}
        self.enrichment: dict[str, dict[str, Any]] = {"people": {}, "companies": {}}
        self.faults: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []

    def fault(self, path: str) -> dict[str, Any] | None:
        """How this request misbehaves, if it does."""
        with self.lock:
            for one in self.faults:
                if one.get("times", 1) > 0 and re.search(one["path"], path):
                    one["times"] = one.get("times", 1) - 1
                    return one
        return None


def feed(content: Mapping[str, Any], name: str) -> str:
    """A feed's text."""
    if "raw" in content:
        return str(content["raw"])
    items = []
    if content.get("format") == "atom":
        for one in content["items"]:
            items.append(
                f'<entry><id>{escape(one["guid"])}</id><title>{escape(one["title"])}</title><link href="{escape(one["link"])}"/>'
                f"<updated>{one['published']}</updated><summary>{escape(one.get('summary', ''))}</summary></entry>"
            )
        return (
            f'<?xml version="1.0" encoding="UTF-8"?><feed xmlns="http://www.w3.org/2005/Atom"><title>{name}</title>{"".join(items)}</feed>'
        )
    for one in content["items"]:
        moment = format_datetime(datetime.fromisoformat(one["published"]))
        guid = f'<guid isPermaLink="false">{escape(one["guid"])}</guid>' if one.get("guid") else ""
        items.append(
            f"<item>{guid}<title>{escape(one['title'])}</title><link>{escape(one['link'])}</link>"
            f"<pubDate>{moment}</pubDate><description>{escape(one.get('summary', ''))}</description></item>"
        )
    return f'<?xml version="1.0" encoding="UTF-8"?><rss version="2.0"><channel><title>{name}</title>{"".join(items)}</channel></rss>'


class Handler(BaseHTTPRequestHandler):
    """One request. `world` is set by `serve`."""

    world: World
    protocol_version = "HTTP/1.1"
    timeout = TIMEOUT_S
    server_version = "upstreams"
    sys_version = ""
    wbufsize = 64 * 1024  # head and body in one packet
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer, or misbehave."""
        self._handle()

    do_POST = do_PATCH = do_DELETE = do_GET

    def _handle(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        try:
            body = self._body()
            if url.path.startswith("/control/"):
                self._need_certificate()
                with self.world.lock:
                    status, answer = self._control(url.path.split("/")[2:], query, body)
                self._answer(status, answer)
                return
            fault = self.world.fault(self.path)
            if fault and self._misbehaves(fault, body):
                return
            with self.world.lock:
                status, answer = self._upstream(url.path, query, body)
            if fault and fault["kind"] == "duplicate" and isinstance(answer, dict) and answer.get("results"):
                answer["results"] = answer["results"] + answer["results"]
            self._answer(status, answer, keep=body, broken=fault["kind"] if fault else "")
        except Refused as refusal:
            self._answer(refusal.status, {"status": "error", "message": str(refusal)}, keep=None)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            self._answer(400, {"status": "error", "message": f"{type(error).__name__}: {error}"}, keep=None)

    def _body(self) -> Any:
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_BODY_BYTES:
            self.close_connection = True
            raise Refused(413, "too long")
        raw = self.rfile.read(length)
        return json.loads(raw) if raw else None

    def _misbehaves(self, fault: Mapping[str, Any], body: Any) -> bool:
        """Whether the fault was the whole answer."""
        if fault["kind"] == "status":
            headers = {"Retry-After": str(fault["retry_after"])} if "retry_after" in fault else {}
            self._answer(fault["status"], {"status": "error", "message": "told to misbehave"}, headers=headers, keep=body)
            return True
        if fault["kind"] == "dropped":
            self._keep(0, body)
            self.close_connection = True
            self.connection.close()
            return True
        if fault["kind"] == "slow":
            time.sleep(float(fault["seconds"]))
        return False

    def _upstream(self, path: str, query: Mapping[str, str], body: Any) -> tuple[int, Any]:
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts[0] == "feeds":
            if parts[1] not in self.world.feeds:
                raise Refused(404, "no such feed")
            return 200, feed(self.world.feeds[parts[1]], parts[1])
        if parts[0] == "v1":
            if self.headers.get("X-Api-Key") != self.world.keys["enrichment-key"]:
                raise Refused(401, "X-Api-Key is wrong")
            known = self.world.enrichment[parts[1]]
            wanted = query["linkedin_url" if parts[1] == "people" else "name"]
            if wanted not in known:
                raise Refused(404, "unknown")
            return 200, known[wanted]
        if parts[:2] == ["crm", "v3"]:
            if self.headers.get("Authorization") != f"Bearer {self.world.keys['hubspot-token']}":
                raise Refused(401, "Authorization is wrong")
            return self._crm(parts[2:], query, body)
        raise Refused(404, "nothing is here")

    def _crm(self, parts: Sequence[str], query: Mapping[str, str], body: Any) -> tuple[int, Any]:
        what, kind, *rest = parts
        if kind not in TYPES:
            raise Refused(404, f"no objects of type {kind}")
        crm = self.world.crm
        if what == "properties":
            if body["name"] in crm.properties[kind]:
                raise Refused(409, "exists already")
            crm.properties[kind].add(body["name"])
            return 201, body
        if not rest and self.command == "GET":
            return 200, crm.list(kind, query)
        if rest == ["search"]:
            return 200, crm.search(kind, body)
        if rest[0] == "batch":
            return crm.batch(kind, rest[1], body)
        raise Refused(404, "nothing is here")

    def _control(self, parts: Sequence[str], query: Mapping[str, str], body: Any) -> tuple[int, Any]:
        world = self.world
        what = (self.command, parts[0])
        actions: dict[tuple[str, str], Callable[[], Any]] = {
            ("GET", "health"): lambda: {"ok": True},
            ("GET", "requests"): lambda: {"requests": [one for one in world.requests if re.search(query.get("path", ""), one["path"])]},
            ("GET", "state"): self._state,
            ("POST", "faults"): lambda: world.faults.__setitem__(slice(None), body),
            ("POST", "reset"): world.reset,
            ("POST", "enrichment"): lambda: [world.enrichment[kind].update(known) for kind, known in body.items()] and None,
        }
        if what in actions:
            return 200, actions[what]()
        if what == ("POST", "feeds"):
            world.feeds[parts[1]] = body
            return 200, None
        if parts[0] == "objects":
            return 200, self._objects(parts[1], parts[2:], query, body)
        raise Refused(404, "the control has no such thing")

    def _objects(self, kind: str, rest: Sequence[str], query: Mapping[str, str], body: Any) -> Any:
        crm = self.world.crm
        if self.command == "GET":
            return {"objects": [crm.shown(kind, key) for key in crm.objects[kind]]}
        if self.command == "DELETE":
            if query.get("archive"):
                return crm.put(kind, {}, key=rest[0], archived=True)
            del crm.objects[kind][rest[0]]
            return None
        if isinstance(body, dict):
            return {"made": [crm.put(kind, generated(kind, number))["id"] for number in range(body["generate"])][-1]}
        return {"objects": [crm.put(kind, one.get("properties", {}), key=one.get("id"), archived=one.get("archived")) for one in body]}

    def _state(self) -> dict[str, Any]:
        world = self.world
        archived = {kind: sum(one["archived"] for one in found.values()) for kind, found in world.crm.objects.items()}
        return {
            "objects": {kind: len(found) for kind, found in world.crm.objects.items()},
            "archived": archived,
            "feeds": sorted(world.feeds),
            "faults": world.faults,
            "requests": len(world.requests),
        }

    def _need_certificate(self) -> None:
        if isinstance(self.connection, ssl.SSLSocket) and not self.connection.getpeercert():
            raise Refused(403, "the control wants a certificate of the platform")

    def _keep(self, status: int, body: Any) -> None:
        with self.world.lock:
            self.world.requests.append({"method": self.command, "path": self.path, "body": body, "status": status, "at": time.time()})
            del self.world.requests[:-KEPT_REQUESTS]

    def _answer(self, status: int, content: Any, *, headers: Mapping[str, str] | None = None, keep: Any = ..., broken: str = "") -> None:
        body = b""
        if status != HTTPStatus.NO_CONTENT and content is not None:
            body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        if broken == "malformed":
            body = body[: len(body) // 2] + b"<<<"
        if keep is not ...:
            self._keep(status, keep)
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Type", "application/xml" if isinstance(content, str) else "application/json")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if broken == "truncated":
            self.close_connection = True
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: /control/requests tells."""


def generated(kind: str, number: int) -> dict[str, Any]:
    """The properties of the n-th object that the control makes up."""
    if kind == "contacts":
        return {"firstname": f"First{number}", "lastname": f"Last{number}", "company": f"Company {number % 500}", "jobtitle": "Buyer"}
    if kind == "companies":
        return {"name": f"Company {number}", "website": f"company{number}.example", "numberofemployees": number, "annualrevenue": number}
    return {"dealname": f"Deal {number}", "amount": number * 100, "dealstage": "qualifiedtobuy"}


class Server(ThreadingHTTPServer):
    """HTTP or HTTPS. The TLS handshake happens in the connection's own thread, so a client that never speaks blocks nobody."""

    daemon_threads = True
    request_queue_size = 128
    context: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Speak TLS first where there is a certificate."""
        if self.context is not None:
            request.settimeout(TIMEOUT_S)
            request = self.context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """One line for a connection that broke."""
        print(f"{client_address[0]}: {sys.exception()}", file=sys.stderr)


def serve(address: str, port: int, world: World, context: ssl.SSLContext | None = None) -> Server:
    """A bound server; call serve_forever(). Port 0 takes a free one. Raises OSError when the address is taken."""
    server = Server((address, port), type("BoundHandler", (Handler,), {"world": world}))
    server.context = context
    return server


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until stopped."""
    parser = argparse.ArgumentParser(description="Plays the enrichment API, the feeds and the CRM.")
    parser.add_argument("--listen", metavar="ADDRESS:PORT", required=True)
    for name in ("certificate", "key", "ca"):
        parser.add_argument(f"--{name}", metavar="FILE", type=Path, required=True)
    parser.add_argument("--keys", metavar="DIRECTORY", type=Path, required=True, help="files hubspot-token and enrichment-key")
    options = parser.parse_args(arguments)
    address, _, port = options.listen.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate, options.key)
    context.load_verify_locations(options.ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    keys = {name: (options.keys / name).read_text(encoding="utf-8").strip() for name in ("hubspot-token", "enrichment-key")}
    with serve(address, int(port), World(keys), context) as server:
        print(f"listening on {options.listen}", file=sys.stderr)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
