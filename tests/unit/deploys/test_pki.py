"""The authority: what it signs is judged by openssl, an implementation of its own."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path

import pytest

from deploys.lib.pki import CERTIFICATE_SECRET, HOST_DAYS, KEY_SECRET, RENEW_BEFORE_DAYS, Authority
from deploys.lib.secrets import SecretStore

NAMES = ["vps1", "10.66.0.11", "localhost", "127.0.0.1"]


def openssl(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *map(str, arguments)], input=stdin, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.make()


@pytest.fixture
def request_pem(tmp_path: Path) -> str:
    """A request as a host makes it; it asks for a name and a power that it must not get."""
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", tmp_path / "host.key")
    more = ("-addext", "subjectAltName=DNS:evil.example.org", "-addext", "basicConstraints=CA:TRUE")
    return openssl("req", "-new", "-key", tmp_path / "host.key", "-subj", "/CN=evil.example.org", *more).stdout


@pytest.fixture
def files(tmp_path: Path, authority: Authority, request_pem: str) -> tuple[Path, Path]:
    """The authority's and the host's certificate as files."""
    ca, certificate = tmp_path / "ca.crt", tmp_path / "host.crt"
    ca.write_text(authority.certificate)
    certificate.write_text(authority.sign(request_pem, name="vps1", alternatives=NAMES))
    return ca, certificate


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
@pytest.mark.parametrize("name", [("-verify_hostname", "vps1"), ("-verify_hostname", "localhost"), ("-verify_ip", "10.66.0.11")])
def test_openssl_accepts_the_chain_for_every_name_as_server_and_as_client(
    files: tuple[Path, Path], purpose: str, name: tuple[str, str]
) -> None:
    ca, certificate = files
    done = openssl("verify", "-x509_strict", "-CAfile", ca, "-purpose", purpose, *name, certificate)
    assert done.returncode == 0, done.stderr


def test_names_and_powers_that_a_host_asks_for_are_not_given(files: tuple[Path, Path], tmp_path: Path) -> None:
    ca, certificate = files
    assert openssl("verify", "-CAfile", ca, "-verify_hostname", "evil.example.org", certificate).returncode != 0
    text = openssl("x509", "-in", certificate, "-noout", "-text").stdout
    assert "evil" not in text
    assert "CA:FALSE" in text
    key = openssl("x509", "-in", certificate, "-noout", "-pubkey").stdout
    assert key == openssl("pkey", "-in", tmp_path / "host.key", "-pubout").stdout


def test_a_certificate_made_with_a_hosts_key_is_not_believed(files: tuple[Path, Path], tmp_path: Path, request_pem: str) -> None:
    ca, certificate = files
    (tmp_path / "second.csr").write_text(request_pem)
    made = ("-CA", certificate, "-CAkey", tmp_path / "host.key", "-days", "1", "-out", tmp_path / "second.crt")
    assert openssl("x509", "-req", "-in", tmp_path / "second.csr", *made).returncode == 0
    assert openssl("verify", "-CAfile", ca, "-untrusted", certificate, tmp_path / "second.crt").returncode != 0


def test_a_good_certificate_has_no_fault(authority: Authority, files: tuple[Path, Path]) -> None:
    assert authority.fault(files[1].read_text(), alternatives=list(reversed(NAMES))) is None


def test_it_is_made_anew_in_its_last_thirty_days(authority: Authority, files: tuple[Path, Path]) -> None:
    def fault(**left: float) -> str | None:
        return authority.fault(files[1].read_text(), alternatives=NAMES, now=ends - datetime.timedelta(**left))

    ends = datetime.datetime.strptime(
        openssl("x509", "-in", files[1], "-noout", "-enddate").stdout.strip().partition("=")[2], "%b %d %H:%M:%S %Y %Z"
    ).replace(tzinfo=datetime.UTC)
    assert 0 <= (ends - datetime.datetime.now(datetime.UTC)).days - (HOST_DAYS - 1) <= 1
    assert fault(days=RENEW_BEFORE_DAYS) is None
    assert fault(days=RENEW_BEFORE_DAYS, seconds=-1) == "expires in 29 days"
    assert fault(days=0, seconds=-1) == "expires in -1 days"


@pytest.mark.parametrize("names", [[*NAMES, "vps1.example.org"], NAMES[:-1], ["vps1", "10.66.0.12", "localhost", "127.0.0.1"]])
def test_other_names_are_a_fault(authority: Authority, files: tuple[Path, Path], names: list[str]) -> None:
    assert authority.fault(files[1].read_text(), alternatives=names) == "is for other names"


def test_another_authoritys_certificate_and_rubbish_are_faults(authority: Authority, files: tuple[Path, Path], request_pem: str) -> None:
    foreign = Authority.make().sign(request_pem, name="vps1", alternatives=NAMES)
    for text in (foreign, "", "rubbish", request_pem, files[1].read_text().replace("M", "N", 5)):
        assert authority.fault(text, alternatives=NAMES) == "is not a certificate of this authority"


def test_the_inventorys_authority_is_made_once_and_whole(tmp_path: Path) -> None:
    store = SecretStore.create(tmp_path / "secrets.yaml", recipients=[])
    first = Authority.of(store)
    assert Authority.of(SecretStore.load(store.path)) == first
    (tmp_path / "ca.key").write_text(store.get(KEY_SECRET))
    (tmp_path / "ca.crt").write_text(store.get(CERTIFICATE_SECRET))
    of_key = openssl("pkey", "-in", tmp_path / "ca.key", "-pubout").stdout
    assert of_key == openssl("x509", "-in", tmp_path / "ca.crt", "-noout", "-pubkey").stdout
    assert first.key not in repr(store)
