"""Answers Prometheus over HTTPS, to clients with a certificate of our authority only; every wait is bounded.

/metrics, /health/live (200 while the process turns), /health/ready (200 while it has partitions and its store works).
"""

from __future__ import annotations

import http.server
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from typing import Any

from phoenix_exporter.config import Listen
from phoenix_exporter.server import IP_FREEBIND
from phoenix_exporter.tls import Certificates
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from phoenix_stream.metrics import Metrics

PATIENCE_S = 5.0


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "phoenix-stream"
    sys_version = ""
    timeout = 150.0  # Prometheus keeps its connection from one scrape to the next
    server: _Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(200, generate_latest(self.server.metrics.registry), CONTENT_TYPE_LATEST)
        elif path == "/health/live":
            self._answer(200, b"live\n")
        elif path == "/health/ready":
            ready = self.server.ready()
            self._answer(200 if ready else 503, b"ready\n" if ready else b"not ready\n")
        else:
            self._answer(404, b"there are /metrics, /health/live and /health/ready\n")

    def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not worth a line."""


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 32

    def __init__(
        self, address: str, listen: Listen, certificates: Certificates | None, metrics: Metrics, ready: Callable[[], bool]
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.metrics, self.ready, self._certificates = metrics, ready, certificates
        self._places = threading.BoundedSemaphore(listen.max_clients)
        super().__init__((address, listen.port), _Handler)

    def server_bind(self) -> None:
        # An address that comes up later (a tailnet's) must not keep the worker from starting.
        self.socket.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        super().server_bind()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self._certificates is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(PATIENCE_S)
        # Here and not at accept: a client that says nothing keeps a thread of its own busy, and nobody else.
        with self._certificates.context(time.monotonic()).wrap_socket(request, server_side=True) as secure:
            super().finish_request(secure, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client without our certificate, or one that left: nothing to do, and not worth a line for every scan."""


class Exposition:
    """The listening sockets and their threads."""

    def __init__(self, listen: Listen, certificates: Certificates | None, metrics: Metrics, ready: Callable[[], bool]) -> None:
        """Listen. Raises OSError."""
        self._servers: list[_Server] = []
        try:
            for address in listen.addresses:
                self._servers.append(_Server(address, listen, certificates, metrics, ready))
        except OSError:
            self.close()
            raise
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 5.0}, daemon=True).start()

    @property
    def port(self) -> int:
        """The port of the first address."""
        return int(self._servers[0].server_address[1])

    def close(self) -> None:
        """Stop listening. Threads end with the process."""
        for server in self._servers:
            server.socket.close()
