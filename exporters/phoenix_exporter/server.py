"""The HTTP side: few paths, GET only, every wait bounded, and a client that goes away takes its scrape with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
import ssl
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from phoenix_exporter import explain, exposition, journal
from phoenix_exporter.engine import Engine
from phoenix_exporter.tls import Certificates

HEAD_LIMIT = 16 * 1024
HEAD_TIMEOUT_S = 5.0
HANDSHAKE_TIMEOUT_S = 3.0
IDLE_TIMEOUT_S = 150.0
WRITE_TIMEOUT_S = 10.0
BACKLOG = 128
IP_FREEBIND = 15  # not in the socket module; from linux/in.h
REFUSAL_LOG_INTERVAL_S = 10.0

REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
PATHS = ("/metrics", "/health/live", "/health/ready", "/explain", "/")


@dataclass(frozen=True)
class Request:
    """The head of one request; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    keep_alive: bool


@dataclass(frozen=True)
class Response:
    """What goes back."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


class BadRequest(Exception):
    """The client's fault; `status` is what to answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Peer(asyncio.StreamReaderProtocol):
    """A connection that says when the client has gone, also while nobody reads from it."""

    gone: asyncio.Event

    def eof_received(self) -> bool | None:
        self.gone.set()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        super().connection_lost(exc)


class Server:
    """Serves one engine."""

    def __init__(self, engine: Engine, certificates: Certificates | None) -> None:
        self.engine = engine
        self.certificates = certificates
        self.clients_refused = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: set[asyncio.Task[None]] = set()
        self._refusal_logged_at = -math.inf
        self._sockets: list[socket.socket] = []

    @property
    def ports(self) -> list[int]:
        """The ports that are listened on, one per address."""
        return [s.getsockname()[1] for s in self._sockets]

    def start(self) -> None:
        """Listen on all addresses. Raises OSError."""
        for address in self.engine.config.listen.addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listener = socket.socket(family, socket.SOCK_STREAM)
            self._sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # An address that comes up later (a tailnet's) must not keep the exporter from starting.
            listener.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
            listener.setblocking(False)
            listener.bind((address, self.engine.config.listen.port))
            listener.listen(BACKLOG)
            self._keep(self._tasks, self._accept(listener))

    def _keep(self, tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def stop(self) -> None:
        """Stop listening and let go of all clients."""
        for listener in self._sockets:
            listener.close()
        tasks = [*self._tasks, *self._clients]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(listener)
            except OSError as error:  # out of descriptors, or the client left before it was accepted
                journal.write("accept failed", level="warning", reason=error)
                await asyncio.sleep(0.1)
                continue
            if len(self._clients) >= self.engine.config.listen.max_clients:
                connection.close()
                self._refused("too many clients", address[0])
                continue
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._keep(self._clients, self._client(connection, address[0]))

    def _refused(self, reason: str, address: str) -> None:
        """Count a refused client and log it, but not so often that a scanner fills the journal."""
        self.clients_refused += 1
        now = asyncio.get_running_loop().time()
        if now - self._refusal_logged_at >= REFUSAL_LOG_INTERVAL_S:
            self._refusal_logged_at = now
            journal.write("client refused", level="notice", reason=reason, address=address, refused=self.clients_refused)

    async def _client(self, connection: socket.socket, address: str) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=HEAD_LIMIT)
        peer = _Peer(reader)
        peer.gone = asyncio.Event()
        context = None if self.certificates is None else self.certificates.context(loop.time())
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: peer,
                connection,
                ssl=context,
                ssl_handshake_timeout=None if context is None else HANDSHAKE_TIMEOUT_S,
                ssl_shutdown_timeout=None if context is None else 1.0,
            )
        except (ssl.SSLError, OSError) as error:
            connection.close()
            self._refused(getattr(error, "reason", None) or str(error) or type(error).__name__, address)
            return
        writer = asyncio.StreamWriter(transport, peer, reader, loop)
        try:
            await self._serve(reader, writer, peer.gone)
        except (OSError, TimeoutError):
            pass  # the client left; there is nobody to tell
        except Exception as error:  # a fault of ours must end this connection only, and be seen
            journal.write("request failed", level="error", reason=f"{type(error).__name__}: {error}")
            with contextlib.suppress(OSError, TimeoutError):
                await self._send(writer, Response(500, b"internal error, see the journal\n"), False, True)
        finally:
            transport.close()
            # A client that does not take part in closing would keep its descriptor.
            loop.call_later(2.0, transport.abort)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gone: asyncio.Event) -> None:
        first = True
        while True:
            try:
                request = await self._head(reader, HEAD_TIMEOUT_S if first else IDLE_TIMEOUT_S)
            except BadRequest as error:
                await self._send(writer, Response(error.status, f"{error}\n".encode()), False, True)
                return
            if request is None:
                return
            response = await self._unless_gone(request, gone)
            if response is None:
                return
            await self._send(writer, response, request.keep_alive, request.method == "GET")
            if not request.keep_alive:
                return
            first = False

    async def _head(self, reader: asyncio.StreamReader, timeout_s: float) -> Request | None:
        try:
            async with asyncio.timeout(timeout_s):
                raw = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        except asyncio.LimitOverrunError:
            raise BadRequest(431, f"the request's head is longer than {HEAD_LIMIT} bytes") from None
        except TimeoutError:
            raise BadRequest(408, f"no complete request within {timeout_s:g} s") from None
        return parse(raw)

    async def _unless_gone(self, request: Request, gone: asyncio.Event) -> Response | None:
        """Answer, or give None as soon as the client has gone; what was under way for it alone is then aborted."""
        answer = asyncio.ensure_future(self.answer(request))
        leaving = asyncio.ensure_future(gone.wait())
        try:
            await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
            return answer.result() if answer.done() else None
        finally:
            leaving.cancel()
            if not answer.done():
                answer.cancel()
                await asyncio.gather(answer, return_exceptions=True)

    async def answer(self, request: Request) -> Response:
        """Give the response to `request`."""
        if request.method not in ("GET", "HEAD"):
            return Response(405, b"only GET is answered here\n")
        match request.path.split("?", maxsplit=1)[0]:
            case "/metrics":
                return await self._metrics(request)
            case "/health/live":
                return Response(200, b'{"live": true}\n', "application/json")
            case "/health/ready":
                return self._ready()
            case "/explain" | "/":
                now = asyncio.get_running_loop().time()
                return Response(200, explain.page(self.engine, now).encode(), "text/html; charset=utf-8")
            case _:
                return Response(404, f"there is nothing here; try {', '.join(PATHS)}\n".encode())

    async def _metrics(self, request: Request) -> Response:
        limits = self.engine.config.limits
        try:
            timeout_s = scrape_timeout_s(
                request.headers.get("x-prometheus-scrape-timeout-seconds"),
                limits.scrape_timeout_s,
                limits.timeout_offset_s,
            )
        except ValueError as error:
            return Response(400, f"{error}\n".encode())
        body = await self.engine.scrape(timeout_s)
        return Response(200, body + exposition.render(exposition.transport(self)), exposition.CONTENT_TYPE)

    def _ready(self) -> Response:
        """The last known state. Nobody is asked: a health check must not hang with a database in trouble."""
        engine = self.engine
        age = None
        if engine.finished_at is not None:
            age = round(asyncio.get_running_loop().time() - engine.finished_at, 3)
        body = {
            "ready": engine.up,
            "age_seconds": age,
            "reason": engine.lost if age is not None else "nothing was measured yet",
        }
        return Response(200 if engine.up else 503, json.dumps(body).encode() + b"\n", "application/json")

    async def _send(self, writer: asyncio.StreamWriter, response: Response, keep_alive: bool, with_body: bool) -> None:
        head = (
            f"HTTP/1.1 {response.status} {REASONS[response.status]}\r\n"
            f"Content-Type: {response.content_type}\r\n"
            f"Content-Length: {len(response.body)}\r\n"
            "Cache-Control: no-store\r\n"
            "X-Content-Type-Options: nosniff\r\n"
            f"Connection: {'keep-alive' if keep_alive else 'close'}\r\n\r\n"
        )
        writer.write(head.encode() + (response.body if with_body else b""))
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await writer.drain()


def parse(raw: bytes) -> Request:
    """Read the head of a request. Raises BadRequest."""
    lines = raw.decode("latin-1").split("\r\n")
    try:
        method, path, protocol = lines[0].split(" ")
    except ValueError:
        raise BadRequest(400, "this is not an HTTP request") from None
    if not protocol.startswith("HTTP/1."):
        raise BadRequest(400, f"protocol {protocol!r} is not spoken here, HTTP/1.1 is")
    headers: dict[str, str] = {}
    for line in filter(None, lines[1:]):
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequest(400, "a header line has no colon")
        headers[name.strip().lower()] = value.strip()
    connection = headers.get("connection", "").lower()
    # A body would be taken for the next request; nothing here needs one, so such a client gets one answer and is let go.
    body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
    keep_alive = not body and connection != "close" and (protocol != "HTTP/1.0" or connection == "keep-alive")
    return Request(method, path, headers, keep_alive)


def scrape_timeout_s(header: str | None, longest_s: float, offset_s: float) -> float:
    """How long a scrape may take: what the scraper says, less the offset (but at least half of it), at most `longest_s`.

    Raises ValueError for a header that is no positive number.
    """
    if header is None:
        return longest_s
    try:
        said = float(header)
    except ValueError:
        said = math.nan
    if not 0 < said < math.inf:
        raise ValueError(f"X-Prometheus-Scrape-Timeout-Seconds is {header!r}, which is not a positive number of seconds")
    return min(longest_s, max(said - offset_s, said / 2))
