"""Watches Kafka Connect: restarts connectors and tasks that failed, and serves its metrics.

Connect never restarts what failed, whatever the reason was: a database that was away for long, a rule of Kafka's that came a moment late.
This program asks how everything is, every two seconds, and has what failed started again; at once the first time, then after longer and
longer pauses, so that a fault that stays costs little and is seen in the metrics.

    GET /metrics    phoenix_connect_* of this program, and what the JVM's metrics agent says; HTTPS, with a certificate of the platform
    GET /health     200 when Connect answers and everything in it runs, else 503 with what does not

Standard library only: it runs on a bare host.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LOOK_S = 2.0
ANSWER_S = 10.0
"""How long Connect may take to answer; while it hands tasks over it answers late."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 4.0, 60.0
WELL_S = 60.0
"""What ran that long has nothing to do with an earlier failure: the next restart is at once again."""
STATES = ("RUNNING", "PAUSED", "STOPPED", "UNASSIGNED", "RESTARTING", "FAILED")
Fetch = Callable[[str, str], bytes]


@dataclass
class Pauses:
    """When one connector is restarted: at once, then after pauses that double."""

    pause_s: float = 0.0
    not_before: float = 0.0
    running_since: float | None = None

    def due(self, failed: bool, now: float) -> bool:
        """Whether to restart it now; called at every look."""
        if not failed:
            self.running_since = now if self.running_since is None else self.running_since
            if now - self.running_since >= WELL_S:
                self.pause_s = 0.0
            return False
        self.running_since = None
        if now < self.not_before:
            return False
        self.pause_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * self.pause_s))
        self.not_before = now + self.pause_s
        return True


@dataclass
class Watch:
    """What is known of Connect. `look` is called by one thread, everything else by any."""

    connect: str
    fetch: Fetch
    up: bool = False
    states: dict[tuple[str, str], str] = field(default_factory=dict)
    """State by connector and task; the connector itself is the task "connector"."""
    restarts: dict[str, int] = field(default_factory=dict)
    pauses: dict[str, Pauses] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self, now: float) -> None:
        """Ask once, and restart what failed."""
        try:
            answer = json.loads(self.fetch("GET", f"{self.connect}/connectors?expand=status"))
            states, reasons = read(answer)
        except (OSError, ValueError, KeyError, TypeError) as error:
            with self.lock:
                if self.up:
                    log(f"Connect does not answer: {error}")
                self.up, self.states = False, {}
            return
        with self.lock:
            self.up, self.states = True, states
            for connector in {name for name, _ in states}:
                self.restarts.setdefault(connector, 0)
        for connector in sorted({name for name, _ in states}):
            failed = [task for (name, task), state in states.items() if name == connector and state == "FAILED"]
            if self.pauses.setdefault(connector, Pauses()).due(bool(failed), now):
                log(f"{connector}: {', '.join(failed)} failed: restarted. {reasons.get(connector, '')}")
                self._restart(connector)

    def _restart(self, connector: str) -> None:
        with self.lock:
            self.restarts[connector] += 1
        try:
            self.fetch("POST", f"{self.connect}/connectors/{connector}/restart?includeTasks=true&onlyFailed=true")
        except OSError as error:
            log(f"{connector}: cannot be restarted: {error}")

    def unwell(self) -> list[str]:
        """What does not run, in words; empty when everything does. What a person paused or stopped is well."""
        with self.lock:
            if not self.up:
                return ["Connect does not answer"]
            wrong = [
                f"{name} {task} is {state}" for (name, task), state in sorted(self.states.items()) if state in ("FAILED", "UNASSIGNED")
            ]
            idle = {name for name, _ in self.states} - {name for name, task in self.states if task != "connector"}
            return wrong + [f"{name} has no task" for name in sorted(idle) if self.states[name, "connector"] == "RUNNING"]

    def metrics(self) -> str:
        """In Prometheus' text format."""
        with self.lock:
            lines = [
                *_head("phoenix_connect_up", "gauge", "1 when Connect's REST interface answers."),
                f"phoenix_connect_up {int(self.up)}",
            ]
            lines += _head(
                "phoenix_connect_state",
                "gauge",
                'State of each connector (task="connector") and each of its tasks: 1 for the one it is in.',
            )
            for (name, task), state in sorted(self.states.items()):
                for one in STATES:
                    value = int(one == state)
                    lines.append(f'phoenix_connect_state{{connector="{name}",task="{task}",state="{one.lower()}"}} {value}')
            lines += _head("phoenix_connect_restarts_total", "counter", "Restarts of a connector or its tasks after a failure.")
            lines += [f'phoenix_connect_restarts_total{{connector="{name}"}} {count}' for name, count in sorted(self.restarts.items())]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def read(answer: Mapping[str, Any]) -> tuple[dict[tuple[str, str], str], dict[str, str]]:
    """States by connector and task, and the first line of why a connector failed. `answer` is that of /connectors?expand=status."""
    states: dict[tuple[str, str], str] = {}
    reasons: dict[str, str] = {}
    for name, entry in answer.items():
        status = entry["status"]
        parts = [("connector", status["connector"]), *((str(task["id"]), task) for task in status["tasks"])]
        for task, part in parts:
            states[name, task] = part["state"]
            if part["state"] == "FAILED" and part.get("trace"):
                causes = [line for line in part["trace"].splitlines() if line.startswith("Caused by: ")]
                reasons.setdefault(name, (causes[-1] if causes else part["trace"].splitlines()[0])[:300])
    return states, reasons


def over_http(method: str, url: str) -> bytes:
    """An answer's body. Raises OSError, for an error status too."""
    # A POST without a type would be called a form, which Connect refuses (415).
    typed = {"Content-Type": "application/json"} if method == "POST" else {}
    request = urllib.request.Request(url, method=method, data=b"" if typed else None, headers=typed)  # noqa: S310 - from our command line
    with urllib.request.urlopen(request, timeout=ANSWER_S) as response:  # noqa: S310
        return bytes(response.read())


class Handler(BaseHTTPRequestHandler):
    """One request. `watch`, `jmx` and `fetch` are set by `serve`."""

    watch: Watch
    jmx: str
    protocol_version = "HTTP/1.1"
    timeout = ANSWER_S
    server_version = "connect-watcher"
    sys_version = ""

    def do_GET(self) -> None:
        """/metrics and /health."""
        if self.path == "/metrics":
            self._answer(HTTPStatus.OK, self.watch.metrics() + self._of_jvm())
        elif self.path == "/health":
            wrong = self.watch.unwell()
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK, "; ".join(wrong or ["well"]) + "\n")
        else:
            self._answer(HTTPStatus.NOT_FOUND, "there are /metrics and /health\n")

    def _of_jvm(self) -> str:
        try:
            return self.watch.fetch("GET", self.jmx).decode()
        except OSError:
            return ""  # phoenix_connect_up says it, or the series' absence

    def _answer(self, status: HTTPStatus, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing for each request."""


class Server(ThreadingHTTPServer):
    """HTTPS for clients with a certificate of ours; each handshake in a thread of its own."""

    daemon_threads = True
    context: ssl.SSLContext

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Speak TLS first."""
        request.settimeout(ANSWER_S)
        super().finish_request(self.context.wrap_socket(request, server_side=True), client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """One line for a connection that broke."""
        log(f"{client_address[0]}: {sys.exception()}")


def serve(address: str, port: int, watch: Watch, jmx: str, tls: Path) -> Server:
    """A bound server; call serve_forever(). Raises OSError when the address is taken."""
    server = Server((address, port), type("BoundHandler", (Handler,), {"watch": watch, "jmx": jmx}))
    server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.context.load_cert_chain(tls / "host.crt", tls / "host.key")
    server.context.load_verify_locations(tls / "ca.crt")
    server.context.verify_mode = ssl.CERT_REQUIRED
    return server


def notify(message: str) -> None:
    """Tell systemd."""
    if path := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.sendto(message.encode(), "\0" + path[1:] if path.startswith("@") else path)


def log(text: str) -> None:
    """A line for the journal."""
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Watch until stopped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connect", required=True, metavar="URL", help="Connect's REST interface")
    parser.add_argument("--jmx", required=True, metavar="URL", help="metrics of the JVM's agent")
    parser.add_argument("--listen", required=True, metavar="ADDRESS:PORT")
    parser.add_argument("--tls", type=Path, required=True, help="directory with ca.crt, host.crt, host.key")
    given = parser.parse_args(arguments)
    address, _, port = given.listen.rpartition(":")
    if not address or not port.isdigit():
        parser.error(f"--listen {given.listen}: give ADDRESS:PORT")
    watch = Watch(given.connect, over_http)
    server = serve(address, int(port), watch, given.jmx, given.tls)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    watch.look(time.monotonic())
    notify("READY=1")
    while True:
        watch.look(time.monotonic())
        notify("WATCHDOG=1")
        time.sleep(LOOK_S)


if __name__ == "__main__":
    sys.exit(main())
