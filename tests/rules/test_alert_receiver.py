"""The lab's receiver of alerts, started as the program that it is and asked over the network."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from deploys.lib.pki import Authority
from deploys.lib.settings import ROOT

PROGRAM = ROOT / "services" / "alert_receiver.py"


def notification(*names: str, status: str = "firing") -> dict[str, Any]:
    """A webhook body as Alertmanager sends it."""
    alerts = [{"status": status, "labels": {"alertname": name, "host": "vps1"}, "annotations": {}, "fingerprint": name} for name in names]
    return {"version": "4", "status": status, "receiver": "critical", "alerts": alerts}


class Client:
    """Speaks HTTP(S) to the receiver."""

    def __init__(self, url: str, context: ssl.SSLContext | None = None) -> None:
        self.url, self.context = url, context

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        request = urllib.request.Request(self.url + path, data=body, method=method)  # noqa: S310 - our own server
        try:
            with urllib.request.urlopen(request, timeout=5, context=self.context) as answer:  # noqa: S310
                content = answer.read()
                return answer.status, json.loads(content) if content else None
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def post(self, content: object) -> int:
        return self.ask("POST", "/", json.dumps(content).encode())[0]

    def names(self, query: str = "") -> list[str]:
        return [one["labels"]["alertname"] for one in self.ask("GET", f"/alerts{query}")[1]["alerts"]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[int, subprocess.Popen[bytes]]]]:
    """`start(*arguments)` runs the program on a free port and waits until it listens: (port, process)."""
    running: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str) -> tuple[int, subprocess.Popen[bytes]]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-I", str(PROGRAM), "--listen", f"127.0.0.1:{port}", "--state", str(tmp_path / "state"), *arguments]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        running.append(process)
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return port, process
            except OSError:
                time.sleep(0.05)
        raise AssertionError("the receiver does not listen")

    yield run
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture
def receiver(start: Callable[..., tuple[int, subprocess.Popen[bytes]]]) -> Client:
    return Client(f"http://127.0.0.1:{start()[0]}")


def test_an_alert_is_kept_and_listed_in_order(receiver: Client) -> None:
    before = time.time()
    assert receiver.post(notification("DatabaseDown", "HostDown")) == 204
    assert receiver.post(notification("DatabaseDown", status="resolved")) == 204
    assert receiver.names() == ["DatabaseDown", "HostDown", "DatabaseDown"]
    first = receiver.ask("GET", "/alerts")[1]["alerts"][0]
    assert first["receiver"] == "critical"
    assert before <= first["receivedAt"] <= time.time()


def test_the_list_can_be_narrowed(receiver: Client) -> None:
    receiver.post(notification("A"))
    later = time.time()
    receiver.post(notification("A", "B", status="resolved"))
    assert receiver.names("?alertname=B") == ["B"]
    assert receiver.names("?status=firing") == ["A"]
    assert receiver.names(f"?since={later}") == ["A", "B"]
    assert receiver.ask("GET", "/alerts?since=yesterday")[0] == 400


def test_what_was_kept_survives_the_program(start: Callable[..., tuple[int, subprocess.Popen[bytes]]]) -> None:
    port, process = start()
    Client(f"http://127.0.0.1:{port}").post(notification("DatabaseDown"))
    process.kill()
    process.wait()
    assert Client(f"http://127.0.0.1:{start()[0]}").names() == ["DatabaseDown"]


def test_it_can_forget(receiver: Client) -> None:
    receiver.post(notification("A"))
    assert receiver.ask("DELETE", "/alerts")[0] == 204
    assert receiver.names() == []


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b'{"alerts": 1}', b'{"alerts": [{"labels": 1}]}', b'{"alerts": [1]}'])
def test_what_is_no_notification_is_refused_and_nothing_kept(receiver: Client, body: bytes) -> None:
    status, answer = receiver.ask("POST", "/", body)
    assert status == 400
    assert answer["error"]
    assert receiver.names() == []


def test_unknown_places_are_not_found(receiver: Client) -> None:
    assert [receiver.ask(method, "/else", body)[0] for method, body in (("GET", None), ("POST", b"{}"), ("DELETE", None))] == [404] * 3


def test_a_client_that_never_speaks_blocks_nobody(receiver: Client) -> None:
    port = int(receiver.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)):
        assert receiver.ask("GET", "/health") == (200, {"ok": True, "alerts": 0})


def test_notifications_at_the_same_time_are_all_kept(receiver: Client) -> None:
    threads = [threading.Thread(target=receiver.post, args=(notification(*[f"A{n}" for _ in range(20)]),)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(receiver.names()) == sorted(f"A{n}" for n in range(20) for _ in range(20))


def test_it_serves_https(start: Callable[..., tuple[int, subprocess.Popen[bytes]]], tmp_path: Path) -> None:
    authority = Authority.make()
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    certificate = authority.sign(request.public_bytes(Encoding.PEM).decode(), name="world", alternatives=["127.0.0.1"])
    (tmp_path / "ca").write_text(authority.certificate)
    (tmp_path / "crt").write_text(certificate)
    (tmp_path / "key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    port, _ = start("--certificate", str(tmp_path / "crt"), "--key", str(tmp_path / "key"))
    context = ssl.create_default_context(cafile=str(tmp_path / "ca"))
    client = Client(f"https://127.0.0.1:{port}", context)
    with socket.create_connection(("127.0.0.1", port)):  # a client that never shakes hands blocks nobody
        assert client.post(notification("A")) == 204
    assert client.names() == ["A"]


def test_a_bad_address_is_one_clear_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-I", str(PROGRAM), "--listen", "9099", "--state", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--listen 9099: give ADDRESS:PORT" in done.stderr
