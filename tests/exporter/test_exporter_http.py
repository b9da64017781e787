"""The outside: who may ask, what each path answers, what bad clients and bad settings get."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.exporter.cluster import Cluster, free_port
from tests.exporter.conftest import SOURCES, Authority, Exporter, StartExporter
from tests.waiting import wait_until


@pytest.fixture
def tls(authority: Authority) -> dict[str, str]:
    """A tls section with a good certificate."""
    certificate, key = authority.issue("host")
    return {"certificate": str(certificate), "key": str(key), "client_ca": str(authority.directory / "ca.crt")}


def test_client_with_a_certificate_of_the_ca_is_answered(start_exporter: StartExporter, authority: Authority, tls: dict[str, str]) -> None:
    exporter = start_exporter(context=authority.client("prometheus"), tls=tls)
    answer = exporter.get()
    assert answer.value("phoenix_up") == 1
    expires = answer.value("phoenix_exporter_tls_certificate_expiry_timestamp_seconds")
    assert expires is not None and abs(expires - time.time() - 86400) < 60
    assert answer.value("phoenix_exporter_tls_reload_success") == 1


@pytest.mark.parametrize("path", ["/metrics", "/health/live", "/explain"])
def test_client_without_or_with_a_foreign_certificate_is_refused(
    start_exporter: StartExporter, authority: Authority, tls: dict[str, str], tmp_path: Path, path: str
) -> None:
    good = authority.client("prometheus")
    exporter = start_exporter(context=good, tls=tls)
    stranger = Authority(tmp_path / "other", "other CA")
    foreign = authority.client(None)
    foreign.load_cert_chain(*stranger.issue("prometheus"))
    for context in (authority.client(None), foreign):
        exporter.context = context
        with pytest.raises((ssl.SSLError, ConnectionError)):
            exporter.get(path)
    exporter.context = good
    assert exporter.get().value("phoenix_exporter_clients_refused_total") == 2
    assert 'event="client refused"' in exporter.logged()


def test_plain_http_and_old_tls_are_refused(start_exporter: StartExporter, authority: Authority, tls: dict[str, str]) -> None:
    exporter = start_exporter(context=authority.client("prometheus"), tls=tls)
    plain = Exporter(exporter.process, exporter.port, exporter.log)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        plain.get()
    old = authority.client("old")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    exporter.context = old
    with pytest.raises((ssl.SSLError, ConnectionError)):
        exporter.get()


def serial(exporter: Exporter) -> str:
    connection = exporter.connection()
    connection.connect()
    try:
        assert isinstance(connection.sock, ssl.SSLSocket)
        return str((connection.sock.getpeercert() or {})["serialNumber"])
    finally:
        connection.close()


def test_new_certificate_is_served_without_a_restart_and_a_broken_one_is_not(
    start_exporter: StartExporter, authority: Authority, tls: dict[str, str]
) -> None:
    exporter = start_exporter(context=authority.client("prometheus"), tls=tls)
    first = serial(exporter)

    authority.issue("host", timedelta(days=20))
    time.sleep(1.1)
    second = serial(exporter)
    assert second != first
    expires = exporter.get().value("phoenix_exporter_tls_certificate_expiry_timestamp_seconds")
    assert expires is not None and expires - time.time() > 19 * 86400

    shutil.copy(authority.issue("another")[1], tls["key"])  # a key of another certificate
    time.sleep(1.1)
    assert serial(exporter) == second
    assert exporter.get().value("phoenix_exporter_tls_reload_success") == 0
    assert 'event="certificate not reloaded"' in exporter.logged()

    authority.issue("host")
    time.sleep(1.1)
    assert serial(exporter) not in (first, second)
    assert exporter.get().value("phoenix_exporter_tls_reload_success") == 1


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("expired", "certificate has expired"),
        ("foreign", "unable to get local issuer certificate"),
        ("other key", "do not fit together"),
        ("missing", "cannot be read: No such file or directory"),
    ],
)
def test_certificate_that_cannot_work_is_named_before_anything_starts(
    write_config: Callable[..., Path],
    run_exporter: Callable[..., Any],
    authority: Authority,
    fault: str,
    sentence: str,
) -> None:
    certificate, key = authority.issue("host", timedelta(days=-1 if fault == "expired" else 1))
    tls = {"certificate": str(certificate), "key": str(key), "client_ca": str(authority.directory / "ca.crt")}
    if fault == "foreign":
        Authority(authority.directory, "other CA")
    elif fault == "other key":
        shutil.copy(authority.issue("another")[1], key)
    elif fault == "missing":
        certificate.unlink()
    done = run_exporter(write_config(tls=tls))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_one_connection_serves_many_scrapes(start_exporter: StartExporter) -> None:
    connection = start_exporter().connection()
    for path in ("/metrics", "/health/live", "/metrics"):
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200
        response.read()
        assert connection.sock is not None
    connection.close()


def raw(exporter: Exporter, data: bytes) -> bytes:
    with socket.create_connection((exporter.host, exporter.port), timeout=8) as client:
        client.sendall(data)
        received = b""
        while part := client.recv(65536):
            received += part
        return received


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", b"405"),
        (b"GET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n", b"404"),
        (b"GET /metrics?x=1 HTTP/1.0\r\n\r\n", b"200"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"400"),
        (b"GET / SPDY/3\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 40000, b"431"),
    ],
)
def test_each_request_gets_its_status(start_exporter: StartExporter, request_: bytes, status: bytes) -> None:
    assert raw(start_exporter(), request_).split(b" ")[1] == status


def test_head_has_no_body(start_exporter: StartExporter) -> None:
    head, _, body = raw(start_exporter(), b"HEAD /health/live HTTP/1.1\r\nConnection: close\r\n\r\n").partition(b"\r\n\r\n")
    assert b"Content-Length: 15" in head
    assert body == b""


def test_clients_that_say_nothing_do_not_keep_others_out(start_exporter: StartExporter) -> None:
    exporter = start_exporter(listen={"max_clients": 4})
    silent = [socket.create_connection((exporter.host, exporter.port)) for _ in range(4)]
    try:
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            exporter.get("/health/live")

        def answered() -> bool:
            try:
                return exporter.get("/health/live").status == 200
            except (ConnectionError, http.client.HTTPException):
                return False

        wait_until(answered, 8, "silent clients are let go after five seconds")
    finally:
        for client in silent:
            client.close()


def test_explain_shows_the_statement_of_every_collector(start_exporter: StartExporter) -> None:
    page = start_exporter().get("/explain").text
    asked = ("database", "consciousness", "agents", "tasks", "pipeline", "replication", "jobs", "ingestion", "statements", "personas")
    for collector in asked:
        assert f"<h2 id={collector}>" in page
    assert "FROM phoenix.metrics_task_counters" in page
    assert "phoenix_tasks_by_status{status}" in page


def test_wrong_scrape_timeout_is_named(start_exporter: StartExporter) -> None:
    answer = start_exporter().get(headers={"X-Prometheus-Scrape-Timeout-Seconds": "soon"})
    assert answer.status == 400
    assert "'soon'" in answer.text


def test_port_in_use_is_one_sentence_and_exit_2(write_config: Callable[..., Path], run_exporter: Callable[..., Any]) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        done = run_exporter(write_config(listen={"port": port}))
    assert done.returncode == 2
    assert f"port {port} cannot be used: Address already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_and_once_tell_by_their_exit_status(
    cluster: Cluster, write_config: Callable[..., Path], run_exporter: Callable[..., Any]
) -> None:
    config = write_config()
    assert run_exporter(config, "--check").returncode == 0
    once = run_exporter(config, "--once")
    assert once.returncode == 0
    assert "\nphoenix_up 1.0\n" in once.stdout
    settings = yaml.safe_load(config.read_text())
    settings["database"]["port"] = free_port()
    config.write_text(yaml.safe_dump(settings))
    down = run_exporter(config, "--check")
    assert down.returncode == 1
    assert "does not answer" in down.stderr and "Connection refused" in down.stderr
    config.write_text("database: {port: many}\n")
    bad = run_exporter(config, "--check")
    assert bad.returncode == 2
    assert bad.stderr == f"phoenix-exporter: {config}: database.port: must be a whole number, not 'many'\n"


def test_it_tells_systemd_that_it_is_ready_and_alive(write_config: Callable[..., Path], tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        process = subprocess.Popen(
            [sys.executable, "-m", "phoenix_exporter", "--config", write_config()],
            stderr=subprocess.DEVNULL,
            env={
                "PYTHONPATH": str(SOURCES),
                "PATH": os.environ["PATH"],
                "NOTIFY_SOCKET": str(tmp_path / "notify"),
                "WATCHDOG_USEC": "400000",
            },
        )
        try:
            said = [systemd.recv(100) for _ in range(3)]
            process.terminate()
            while said[-1] != b"STOPPING=1":
                said.append(systemd.recv(100))
            assert process.wait(5) == 0
        finally:
            process.kill()
    assert said[:3] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
