"""A real PostgreSQL and real exporter processes for the tests in this directory."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.exporter.cluster import Cluster, free_port, running_cluster
from tests.waiting import wait_until

SOURCES = Path(__file__).resolve().parents[2] / "exporters"

Sample = tuple[str, tuple[tuple[str, str], ...]]


@dataclass
class Answer:
    """One HTTP response, with the time it took in seconds."""

    status: int
    text: str
    seconds: float

    @property
    def samples(self) -> dict[Sample, float]:
        """All samples by name and labels, read from the text by this test and not by the exporter's library."""
        found: dict[Sample, float] = {}
        for line in self.text.splitlines():
            if line and not line.startswith("#"):
                match = re.fullmatch(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)", line)
                assert match, line
                labels = tuple(sorted(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or "")))
                assert (match[1], labels) not in found, f"twice: {line}"
                found[match[1], labels] = float(match[3])
        return found

    def value(self, name: str, **labels: str) -> float | None:
        """The value of one sample, or None."""
        return self.samples.get((name, tuple(sorted(labels.items()))))


@dataclass
class Exporter:
    """A running exporter process."""

    process: subprocess.Popen[str]
    port: int
    log: Path
    context: ssl.SSLContext | None = None
    host: str = "127.0.0.1"

    def connection(self, timeout: float = 15.0) -> http.client.HTTPConnection:
        """A connection to it; with the client certificate of `context` when it serves TLS."""
        if self.context is None:
            return http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        return http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=self.context)

    def get(self, path: str = "/metrics", headers: Mapping[str, str] | None = None) -> Answer:
        """One GET over a connection of its own."""
        began = time.monotonic()
        connection = self.connection()
        try:
            connection.request("GET", path, headers=dict(headers or {}))
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        return Answer(response.status, text, time.monotonic() - began)

    def abandon_after(self, seconds: float) -> None:
        """Ask for the metrics and hang up before the answer."""
        with socket.create_connection((self.host, self.port), timeout=5) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n")
            time.sleep(seconds)

    def descriptors(self) -> int:
        """How many files and sockets the process holds open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def logged(self) -> str:
        """What it wrote to stderr so far."""
        return self.log.read_text()


StartExporter = Callable[..., Exporter]


@dataclass
class Authority:
    """A certificate authority of its own, as each platform has one."""

    directory: Path
    name: str = "test CA"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        public = self.key.public_key()
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)  # signs certificates and lists
        self.certificate = (
            self._builder(self.subject, public, timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        (self.directory / "ca.crt").write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, life: timedelta) -> x509.CertificateBuilder:
        begin = datetime.now(UTC) - timedelta(days=30)
        return (
            x509.CertificateBuilder()
            .subject_name(subject).issuer_name(self.subject).public_key(key).serial_number(x509.random_serial_number())
            .not_valid_before(begin).not_valid_after(datetime.now(UTC) + life)
        )  # fmt: skip

    def issue(self, name: str, life: timedelta = timedelta(days=1)) -> tuple[Path, Path]:
        """Write NAME.crt and NAME.key for a host that is server and client, and give their paths."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._builder(subject, key.public_key(), life)
            .add_extension(usage, critical=False).add_extension(names, critical=False)
            # Python 3.13 refuses certificates without it.
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )  # fmt: skip
        paths = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return paths

    def client(self, name: str | None) -> ssl.SSLContext:
        """A client that trusts this authority and shows the certificate `name`, or none."""
        context = ssl.create_default_context(cafile=str(self.directory / "ca.crt"))
        if name is not None:
            context.load_cert_chain(*self.issue(name))
        return context


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    with running_cluster(os.environ.get("PHOENIX_PG_MAJOR", "16")) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """The cluster, running: a test that failed may have left it stopped."""
    if not shared_cluster.running:
        shared_cluster.start()
    return shared_cluster


def _merged(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in changes.items():
        base[key] = _merged(dict(base.get(key, {})), value) if isinstance(value, Mapping) else value
    return base


@pytest.fixture
def write_config(cluster: Cluster, tmp_path: Path) -> Callable[..., Path]:
    """Write a settings file for the cluster; arguments change or add sections."""

    def write(**changes: Any) -> Path:
        (tmp_path / "database-password").write_text(cluster.password + "\n")
        settings = {
            "listen": {"port": free_port(), "plain_http": "tls" not in changes},
            "database": {"port": cluster.port, "password_file": "database-password", "sslmode": "disable"},
            "limits": {"min_interval_s": 0.0},
        }
        path = tmp_path / "config.yml"
        path.write_text(yaml.safe_dump(_merged(settings, changes)))
        return path

    return write


@pytest.fixture
def start_exporter(write_config: Callable[..., Path], tmp_path: Path) -> Iterator[StartExporter]:
    """Start exporters as a unit would; they are stopped after the test and must then have ended by themselves."""
    started: list[Exporter] = []

    def start(context: ssl.SSLContext | None = None, ready: bool = True, **changes: Any) -> Exporter:
        config = write_config(**changes)
        log = tmp_path / f"log-{len(started)}"
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "phoenix_exporter", "--config", config],
                stderr=stderr, text=True, cwd=tmp_path, env={"PYTHONPATH": str(SOURCES), "PATH": os.environ["PATH"]},
            )  # fmt: skip
        exporter = Exporter(process, yaml.safe_load(config.read_text())["listen"]["port"], log, context)
        started.append(exporter)
        wait_until(lambda: "event=started" in exporter.logged() or process.poll() is not None, 10, "exporter starts")
        assert process.poll() is None, exporter.logged()
        if ready:
            wait_until(lambda: exporter.get("/health/ready").status == 200, 5, "exporter is ready")
        return exporter

    yield start
    for exporter in started:
        exporter.process.send_signal(signal.SIGTERM)
        assert exporter.process.wait(5) == 0, exporter.logged()


@pytest.fixture
def run_exporter() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line to its end."""

    def run(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "phoenix_exporter", "--config", config, *arguments],
            capture_output=True, text=True, timeout=20, check=False,
            env={"PYTHONPATH": str(SOURCES), "PATH": os.environ["PATH"]},
        )  # fmt: skip

    return run


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


@pytest.fixture
def calls(cluster: Cluster) -> Callable[[str], int]:
    """How often the server executed statements of the role monitor that mention a word: the server's count, not the exporter's."""

    def count(word: str) -> int:
        with cluster.admin() as witness:
            row = witness.execute(
                "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE query LIKE %s AND toplevel AND userid = 'monitor'::regrole",
                [f"%{word}%"],
            ).fetchone()
            assert row is not None
            return int(str(row[0]))

    return count
