"""A bad setting is one sentence with file, key and reason."""

from pathlib import Path

import pytest
from phoenix_exporter.config import ConfigError, load

GOOD = """
listen: {addresses: [10.66.0.11, "127.0.0.1"], port: 9188}
tls: {certificate: /etc/phoenix/tls/host.crt, key: /etc/phoenix/tls/host.key, client_ca: /etc/phoenix/tls/ca.crt}
database: {host: 127.0.0.1, password_file: database-password, sslrootcert: /etc/phoenix/tls/ca.crt}
collectors: {personas: {ttl_s: 300, timeout_s: 2.5}}
"""


@pytest.fixture
def write(tmp_path):
    def to_file(text: str) -> Path:
        path = tmp_path / "config.yml"
        path.write_text(text)
        return path

    return to_file


def test_good_file_is_read_with_defaults_for_the_rest(write):
    config = load(write(GOOD))
    assert config.listen.addresses == ("10.66.0.11", "127.0.0.1")
    assert config.database.user == "monitor"
    assert config.database.sslmode == "verify-full"
    assert config.limits.contact_timeout_s == 0.8
    assert config.collector("personas").ttl_s == 300.0
    assert config.collector("tasks").enabled


def test_password_file_is_looked_up_beside_the_settings_or_in_the_credentials(write, tmp_path, monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert load(write(GOOD)).database.password_file == tmp_path / "database-password"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/phoenix-exporter.service")
    expected = Path("/run/credentials/phoenix-exporter.service/database-password")
    assert load(write(GOOD)).database.password_file == expected
    absolute = load(write(GOOD.replace("database-password", "/etc/secret"))).database.password_file
    assert absolute == Path("/etc/secret")


PLAIN = "listen: {plain_http: true}\ndatabase: {sslmode: disable}\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1, 2]", "the file: must hold keys and values, not a list or a mapping"),
        ("listen: [", "line 1: is not valid YAML"),
        ("listne: {}", "listne: is not a setting; known here: collectors, copy, database, limits, listen, tls"),
        ("listen: {port: high}", "listen.port: must be a whole number, not 'high'"),
        ("listen: {port: true}", "listen.port: must be a whole number, not True"),
        ("listen: {port: 70000, plain_http: true}", "listen.port: must be 1 to 65535, not 70000"),
        ("listen: {addresses: [], plain_http: true}", "listen.addresses: must be a list with at least one entry"),
        ("listen: {addresses: [vps1], plain_http: true}", "listen.addresses: 'vps1' is not an IP address"),
        ("{}", "tls: is missing: give certificate, key and client_ca"),
        ("listen: {addresses: [0.0.0.0], plain_http: true}", "listen.plain_http: is allowed on loopback addresses only"),
        (GOOD + "\n", None),
        (GOOD.replace("port: 9188", "plain_http: true"), "listen.plain_http: contradicts the tls section"),
        ("tls: {certificate: /a, key: /b}", "tls.client_ca: is missing"),
        ("tls: {certificate: /a, key: /b, client_ca: 3}", "tls.client_ca: must be a path, not 3"),
        ("listen: {plain_http: true}\ndatabase: {sslmode: maybe}", "database.sslmode: must be one of"),
        ("listen: {plain_http: true}", "database.sslrootcert: is missing, and sslmode verify-full needs it"),
        ("listen: {plain_http: true}\ndatabase: {password: x}", "database.password: is not a setting"),
        (PLAIN + "limits: {query_timeout_s: 0}", "limits.query_timeout_s: must be above 0 and at most 3600, not 0.0"),
        (PLAIN + "limits: {contact_timeout_s: .nan}", "limits.contact_timeout_s: must be above 0"),
        (PLAIN + "limits: {lock_timeout_s: 2}", "limits.lock_timeout_s: must not be longer than limits.query_timeout_s"),
        (PLAIN + "collectors: {people: {}}", "collectors.people: is not a collector; there are agents, consciousness"),
        (PLAIN + "collectors: {personas: {ttl_s: soon}}", "collectors.personas.ttl_s: must be a number, not 'soon'"),
        (PLAIN + "collectors: {personas: {ttl_s: -1}}", "collectors.personas.ttl_s: must be 0 to 86400, not -1.0"),
        (PLAIN + "collectors: {database: {ttl_s: 5}}", "collectors.database: cannot be switched off or cached"),
    ],
)
def test_each_fault_is_named(write, text, reason):
    path = write(text)
    if reason is None:
        load(path)
        return
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: {reason}"), str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        load(tmp_path / "none.yml")
