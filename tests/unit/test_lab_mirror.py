"""The lab takes its mirror from this computer's apt sources, in every form that Debian itself writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import mirror
from lab.mirror import Source

MAIN = Source("http://mirror.example/debian", "bookworm", ("main",))


def test_one_line_sources_are_read_with_options_comments_and_blanks() -> None:
    text = """
# deb http://old.example/debian bookworm main
deb http://mirror.example/debian/ bookworm main contrib  # the main archive
  deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] https://safe.example/debian-security bookworm-security main
deb-src http://mirror.example/debian bookworm main
deb http://flat.example/ ./
"""
    assert mirror.parse_one_line(text) == [
        Source("http://mirror.example/debian", "bookworm", ("main", "contrib")),
        Source("https://safe.example/debian-security", "bookworm-security", ("main",)),
    ]


def test_deb822_sources_are_read_with_several_suites_comments_and_folded_lines() -> None:
    text = """Types: deb deb-src
# a comment between the fields
URIs: http://mirror.example/debian/
Suites: bookworm
 bookworm-updates
Components: main non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
"""
    assert mirror.parse_deb822(text) == [
        Source("http://mirror.example/debian", "bookworm", ("main", "non-free-firmware")),
        Source("http://mirror.example/debian", "bookworm-updates", ("main", "non-free-firmware")),
        Source("http://mirror.example/debian-security", "bookworm-security", ("main",)),
    ]


@pytest.mark.parametrize("line", ["Enabled: no", "Types: deb-src"])
def test_deb822_stanzas_without_binaries_are_passed_over(line: str) -> None:
    stanza = f"Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n{line}\n"
    assert mirror.parse_deb822(stanza) == []


def test_an_embedded_key_does_not_confuse_the_stanza() -> None:
    stanza = (
        "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n"
        "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDMEY865UxYJKwYBBAHaRw8BAQ: x\n -----END PGP PUBLIC KEY BLOCK-----\n"
    )
    assert mirror.parse_deb822(stanza) == [MAIN]


def test_only_this_release_of_debian_is_translated_and_the_suite_comes_first() -> None:
    host = [
        Source("http://mirror.example/debian-security", "bookworm-security", ("main",)),
        Source("http://mirror.example/debian", "bookworm-updates", ("main",)),
        Source("http://mirror.example/debian", "bookworm", ("main", "contrib")),
        Source("http://mirror.example/debian", "bookworm-backports", ("main",)),
        Source("http://vendor.example/apt", "bookworm-pgdg", ("main",)),
        Source("http://vendor.example/docker", "bookworm", ("stable",)),
        Source("http://vendor.example/node", "nodistro", ("main",)),
        Source("file:/srv/debian", "bookworm", ("main",)),
        Source("http://mirror.example/debian", "bookworm", ("main",)),
    ]
    assert mirror.for_suite(host, ["bookworm", "stable"], "trixie") == [
        Source("http://mirror.example/debian", "trixie", ("main",)),
        Source("http://mirror.example/debian", "trixie-updates", ("main",)),
        Source("http://mirror.example/debian-security", "trixie-security", ("main",)),
    ]


def test_sources_that_name_the_release_by_its_role_are_understood() -> None:
    host = [Source("http://mirror.example/debian", "stable", ("main",))]
    names = mirror.host_suites('NAME="Debian GNU/Linux"\nVERSION_CODENAME=trixie\nID=debian\n')
    assert mirror.for_suite(host, names, "trixie") == [Source("http://mirror.example/debian", "trixie", ("main",))]


def test_all_files_of_apt_are_read_and_mirror_lists_are_opened(tmp_path: Path) -> None:
    listed = tmp_path / "debian.list"
    listed.write_text("# the nearest first\nhttps://near.example/debian/\thighpriority\nhttps://far.example/debian\n")
    (tmp_path / "sources.list").write_text("deb http://mirror.example/debian bookworm main\n")
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (parts / "cloud.sources").write_text(f"Types: deb\nURIs: mirror+file://{listed}\nSuites: bookworm\nComponents: main\n")
    (parts / "vendor.list.disabled").write_text("deb http://off.example/debian bookworm main\n")
    assert mirror.read_sources(tmp_path) == [
        MAIN,
        Source("https://near.example/debian", "bookworm", ("main",)),
        Source("https://far.example/debian", "bookworm", ("main",)),
    ]


def test_a_proxy_on_this_computer_is_reached_by_its_address_in_the_lab() -> None:
    text = 'Acquire::http::Proxy "http://127.0.0.1:3142";\nAcquire::https::Proxy "http://localhost/";\n'
    assert mirror.seen_from_machine(text, "10.66.0.1") == (
        'Acquire::http::Proxy "http://10.66.0.1:3142";\nAcquire::https::Proxy "http://10.66.0.1/";\n'
    )
    assert mirror.seen_from_machine("http://localhost.example/debian", "10.66.0.1") == "http://localhost.example/debian"


def test_an_environment_proxy_reaches_the_machines_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert 'Acquire::https::Proxy "http://proxy.example:3128";\n' in mirror.transport_settings()
