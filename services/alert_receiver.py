"""The lab's receiver of alerts: keeps what Alertmanager's webhook sends, so that a test sees an alert arrive and resolve.

    POST /         Alertmanager's webhook body; each of its alerts becomes a line of alerts.jsonl in the state directory.  204, or 400
    GET /alerts    {"alerts": [...]} in the order of arrival; ?alertname=, ?status= (firing, resolved) and ?since= (unix time) narrow it
    GET /health    {"ok": true, "alerts": N}
    DELETE /alerts forgets everything: 204

A kept alert is Alertmanager's (status, labels, annotations, startsAt, endsAt, fingerprint) with `receivedAt` (unix time, seconds) and
`receiver`. Standard library only: it runs on a bare machine.
"""

from __future__ import annotations

import argparse
import json
import os
import ssl
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_FILE_BYTES = 64 * 1024 * 1024
TIMEOUT_S = 10


class Store:
    """Alerts as lines of JSON in one file; survives a restart, forgets the older half when the file reaches 64 MB."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / "alerts.jsonl"
        self._lock = threading.Lock()
        self._path.touch(mode=0o640)

    def add(self, notification: Mapping[str, Any], *, now: float) -> int:
        """Keep every alert of one webhook body and return how many. Raises ValueError when it is no such body."""
        alerts = notification.get("alerts")
        if not isinstance(alerts, list) or not all(isinstance(one, dict) and isinstance(one.get("labels"), dict) for one in alerts):
            raise ValueError("this is not the body of an Alertmanager webhook: it has no list of alerts with labels")
        added = {"receiver": notification.get("receiver", ""), "receivedAt": now}
        lines = [json.dumps({**one, **added}, sort_keys=True) + "\n" for one in alerts]
        with self._lock:
            if self._path.stat().st_size > MAX_FILE_BYTES:
                self._halve()
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
        return len(lines)

    def _halve(self) -> None:
        kept = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        shorter = self._path.with_suffix(".new")
        shorter.write_text("".join(kept[len(kept) // 2 :]), encoding="utf-8")
        shorter.replace(self._path)

    def alerts(self, *, alertname: str = "", status: str = "", since: float = 0.0) -> list[dict[str, Any]]:
        """What was received, oldest first. A last line cut short by a crash is left out."""
        with self._lock:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        found = []
        for line in lines:
            try:
                alert = json.loads(line)
            except ValueError:
                continue
            if alertname in ("", alert["labels"].get("alertname")) and status in ("", alert.get("status")) and alert["receivedAt"] >= since:
                found.append(alert)
        return found

    def forget(self) -> None:
        """Drop everything."""
        with self._lock:
            self._path.write_text("", encoding="utf-8")


class Handler(BaseHTTPRequestHandler):
    """One request. `store` is set by `serve`."""

    store: Store
    protocol_version = "HTTP/1.1"
    timeout = TIMEOUT_S
    server_version = "alert-receiver"
    sys_version = ""

    def do_POST(self) -> None:
        """Keep a notification."""
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if not 0 <= length <= MAX_BODY_BYTES:
            self._refuse(HTTPStatus.BAD_REQUEST, f"give a Content-Length of at most {MAX_BODY_BYTES} bytes")
            return
        body = self.rfile.read(length)
        if urlsplit(self.path).path != "/":
            self._refuse(HTTPStatus.NOT_FOUND, "notifications go to /")
            return
        try:
            notification = json.loads(body)
            if not isinstance(notification, dict):
                raise ValueError("the body is not a JSON object")
            count = self.store.add(notification, now=time.time())
        except ValueError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
            return
        kept = ", ".join(f"{one.get('status')} {one['labels'].get('alertname')}" for one in notification["alerts"])
        self.log_message("kept %d alerts: %s", count, kept)
        self._answer(HTTPStatus.NO_CONTENT)

    def do_GET(self) -> None:
        """List what was kept."""
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        if url.path == "/health":
            self._answer(HTTPStatus.OK, {"ok": True, "alerts": len(self.store.alerts())})
        elif url.path == "/alerts":
            try:
                since = float(query.get("since", "0"))
            except ValueError:
                self._refuse(HTTPStatus.BAD_REQUEST, "since is a unix time in seconds")
                return
            found = self.store.alerts(alertname=query.get("alertname", ""), status=query.get("status", ""), since=since)
            self._answer(HTTPStatus.OK, {"alerts": found})
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there are /alerts and /health")

    def do_DELETE(self) -> None:
        """Forget what was kept."""
        if urlsplit(self.path).path != "/alerts":
            self._refuse(HTTPStatus.NOT_FOUND, "only /alerts can be forgotten")
            return
        self.store.forget()
        self._answer(HTTPStatus.NO_CONTENT)

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self.close_connection = True  # what is left of the body is not the next request
        self._answer(status, {"error": reason})

    def _answer(self, status: HTTPStatus, content: object = None) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing for each request; what was kept is logged above, and errors are."""


class Server(ThreadingHTTPServer):
    """HTTP or HTTPS. The TLS handshake happens in the connection's own thread, so a client that never speaks blocks nobody."""

    daemon_threads = True
    request_queue_size = 128  # of the standard 5, twenty notifications at once lose some
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


def serve(address: str, port: int, store: Store, context: ssl.SSLContext | None = None) -> Server:
    """A bound server; call serve_forever(). Port 0 takes a free one. Raises OSError when the address is taken."""
    server = Server((address, port), type("BoundHandler", (Handler,), {"store": store}))
    server.context = context
    return server


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until stopped."""
    parser = argparse.ArgumentParser(description="Keeps the alerts that Alertmanager's webhook sends.")
    parser.add_argument("--listen", metavar="ADDRESS:PORT", required=True)
    parser.add_argument("--state", metavar="DIRECTORY", type=Path, required=True, help="where alerts.jsonl is kept")
    parser.add_argument("--certificate", metavar="FILE", type=Path, help="serve HTTPS with this certificate")
    parser.add_argument("--key", metavar="FILE", type=Path, help="the certificate's key")
    options = parser.parse_args(arguments)
    address, _, port = options.listen.rpartition(":")
    if not address or not port.isdigit():
        parser.error(f"--listen {options.listen}: give ADDRESS:PORT, for example 10.66.0.20:9099")
    if (options.certificate is None) != (options.key is None):
        parser.error("--certificate and --key go together: give both, or none for plain HTTP")
    context = None
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate, options.key)
    server = serve(address, int(port), Store(options.state), context)
    print(f"listening on {options.listen}, keeping alerts in {options.state}", file=sys.stderr)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
