"""The probe against real servers on this computer: well, ill, frozen, absent, and with the wrong certificate."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deploys.lib.pki import Authority
from ops import probe


class Handler(BaseHTTPRequestHandler):
    """/well is well, everything else is not."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/well" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def host_certificate(authority: Authority, directory: Path) -> None:
    """What a deploy puts into /etc/phoenix/tls."""
    directory.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    pem = request.public_bytes(serialization.Encoding.PEM).decode()
    (directory / "ca.crt").write_text(authority.certificate)
    (directory / "host.crt").write_text(authority.sign(pem, name="one", alternatives=["one", "127.0.0.1"]))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "host.key").write_bytes(private)


def test_http_wants_a_good_answer(server: ThreadingHTTPServer) -> None:
    ok, detail = probe.http("127.0.0.1", server.server_port, "/well", tls=False)
    assert ok
    assert detail.startswith("/well answered 200 in ")
    ok, detail = probe.http("127.0.0.1", server.server_port, "/ill", tls=False)
    assert not ok
    assert detail.startswith("/ill answered 503")


def test_tls_is_mutual_and_checked(server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, stranger = tmp_path / "ours", tmp_path / "stranger"
    host_certificate(Authority.make(), ours)
    host_certificate(Authority.make(), stranger)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ours / "host.crt", ours / "host.key")
    context.load_verify_locations(ours / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setattr(probe, "TLS", str(ours))
    assert probe.http("127.0.0.1", server.server_port, "/well", tls=True)[0]
    monkeypatch.setattr(probe, "TLS", str(stranger))
    ok, detail = probe.http("127.0.0.1", server.server_port, "/well", tls=True)
    assert not ok
    assert "certificate verify failed" in detail


def test_absent_service_is_said_to_be_absent(free_port: int) -> None:
    assert probe.tcp("127.0.0.1", free_port) == (False, "nothing listens there")
    assert probe.http("127.0.0.1", free_port, "/", tls=False) == (False, "nothing listens there")


def test_frozen_service_costs_no_more_than_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as frozen:  # accepts, never answers
        port = frozen.getsockname()[1]
        assert probe.tcp("127.0.0.1", port)[0]
        started = time.monotonic()
        ok, detail = probe.http("127.0.0.1", port, "/", tls=False)
    assert not ok
    assert "no answer" in detail
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"LoadState": "loaded", "ActiveState": "active", "SubState": "running"}, (True, "running")),
        ({"LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead"}, (False, "not installed")),
        ({}, (False, "not installed")),
        ({"LoadState": "masked", "ActiveState": "inactive"}, (False, "masked")),
        ({"LoadState": "loaded", "ActiveState": "failed", "SubState": "failed", "Result": "exit-code"}, (False, "failed (exit-code)")),
        (
            {"LoadState": "loaded", "ActiveState": "inactive", "SubState": "dead", "ConditionResult": "no"},
            (True, "not needed on this host"),
        ),
    ],
)
def test_unit(state: dict[str, str], expected: tuple[bool, str]) -> None:
    assert probe.unit(state) == expected


def test_program_as_sent_needs_nothing_but_the_standard_library() -> None:
    source = Path(probe.__file__).read_text()
    done = subprocess.run([sys.executable, "-I", "-S", "-"], input=f"{source}\nmain([])\n", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
