"""Vendors' repositories: a real one, made and signed here, is trusted by the host for exactly the key that the settings name."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from testinfra.host import Host

from deploys.lib.settings import Platform
from ops import pyinfra_run

pytestmark = pytest.mark.changes

PACKAGE = "phoenix-probe"
PROBED = "phoenix-probed"
"""Name of the repository in host_apt_sources."""
LEFT = ["/etc/apt/sources.list.d/phoenix-phoenix-probed.sources", "/etc/apt/keyrings/phoenix-phoenix-probed.asc"]

CONTROL = f"""Package: {PACKAGE}
Version: 1.0
Architecture: all
Maintainer: A vendor <vendor@example.org>
Description: shows that it was installed
"""

SITE = f"""
from deploys import sources
from deploys.lib import hosts
from deploys.lib.operations import packages
from deploys.lib.settings import HostSettings

sources.sources()
if hosts.settings(HostSettings).apt_sources:
    packages(name="The vendor's package", names=["{PACKAGE}"])
"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@dataclass
class Vendor:
    """A repository with one package. Fingerprints are of `key.asc` and of a key that has nothing to do with it."""

    url: str
    fingerprint: str
    other: str
    expired: str


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory, platform: Platform, world: Host) -> Iterator[Vendor]:
    """A signed repository at the address of this computer that `world` sees."""
    www = tmp_path_factory.mktemp("vendor")
    home = tempfile.mkdtemp(prefix="gpg-")  # short: gpg's socket lies in it
    gpg = partial(_gpg, home)
    try:
        fingerprints = {}
        for name, more in {"vendor": (), "other": (), "expired": ("--faked-system-time", "20200101T000000")}.items():
            gpg(*more, "--passphrase", "", "--quick-gen-key", f"{name}@example.org", "ed25519", "sign", "1y" if more else "never")
            colons = gpg("--with-colons", "--list-keys", f"{name}@example.org")
            fingerprints[name] = next(line.split(":")[9] for line in colons.splitlines() if line.startswith("fpr:"))
            (www / f"{name}.asc").write_text(gpg("--armor", "--export", f"{name}@example.org"))
        (www / "both.asc").write_text(gpg("--armor", "--export", "vendor@example.org", "other@example.org"))
        _repository(www, gpg)
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], env={**os.environ, "GNUPGHOME": home}, check=False)
        shutil.rmtree(home, ignore_errors=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        route.connect((str(platform.hosts["world"].data["host_address"]), 9))
        address = route.getsockname()[0]
    with ThreadingHTTPServer((address, 0), partial(Quiet, directory=str(www))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Vendor(f"http://{address}:{server.server_port}", fingerprints["vendor"], fingerprints["other"], fingerprints["expired"])
        server.shutdown()


def _gpg(home: str, *arguments: str) -> str:
    command = ["gpg", "--batch", "--quiet", "--yes", "--no-tty", "--pinentry-mode", "loopback", *arguments]
    return subprocess.run(command, env={**os.environ, "GNUPGHOME": home}, capture_output=True, text=True, check=True).stdout


def _repository(www: Path, gpg: Callable[..., str]) -> None:
    """What dpkg and apt want of a repository: pool, index, and a Release that names the index by its hash and is signed."""
    (www / "package" / "DEBIAN").mkdir(parents=True)
    (www / "package" / "DEBIAN" / "control").write_text(CONTROL)
    (www / "package" / "usr" / "share" / PACKAGE).mkdir(parents=True)
    index = www / "dists" / "probe" / "main" / "binary-amd64" / "Packages"
    index.parent.mkdir(parents=True)
    shell = (
        f"dpkg-deb --root-owner-group -b package {PACKAGE}.deb >/dev/null && dpkg-deb -f {PACKAGE}.deb >{index} && "
        f'printf "Filename: {PACKAGE}.deb\\nSize: %s\\nSHA256: %s\\n" "$(stat -c %s {PACKAGE}.deb)" '
        f'"$(sha256sum {PACKAGE}.deb | cut -c-64)" >>{index} && cd dists/probe && '
        'printf "Suite: probe\\nCodename: probe\\nArchitectures: amd64\\nComponents: main\\nDate: %s\\nSHA256:\\n %s %s %s\\n" '
        '"$(date -Ru)" "$(sha256sum main/binary-amd64/Packages | cut -c-64)" "$(stat -c %s main/binary-amd64/Packages)" '
        "main/binary-amd64/Packages >Release"
    )
    subprocess.run(["sh", "-ec", shell], cwd=www, check=True)
    release = www / "dists" / "probe"
    gpg("-u", "vendor@example.org", "--clearsign", "-o", str(release / "InRelease"), str(release / "Release"))


@pytest.fixture
def deploy(tmp_path: Path, platform: Platform) -> Callable[..., pyinfra_run.Run]:
    """Deploys nothing but package sources to `world`."""
    site, inventory = tmp_path / "site.py", tmp_path / "probe.py"
    site.write_text(SITE)

    def run(*, key_url: str = "", fingerprint: str = "", url: str = "") -> pyinfra_run.Run:
        source = {"uris": [url], "suites": ["probe"], "components": ["main"], "key_url": key_url, "key_fingerprint": fingerprint}
        data = {**platform.hosts["world"].data, "host_apt_sources": {PROBED: source} if url else {}}
        inventory.write_text(f"world = [('world', {data!r})]\n")
        return pyinfra_run.run(inventory, ["world"], site=site)

    return run


@pytest.fixture(autouse=True)
def nothing_stays(world: Host) -> Iterator[None]:
    yield
    world.check_output(
        f"apt-get -qqy purge {PACKAGE} >/dev/null 2>&1; rm -f {' '.join(LEFT)}; "
        "rm -f $(grep -rl '^Suite: probe$' /var/lib/apt/lists) /var/lib/apt/lists/*_dists_probe_*; true"
    )


def test_right_key_installs_once_and_a_source_that_is_no_longer_named_goes(
    deploy: Callable[..., pyinfra_run.Run], vendor: Vendor, world: Host
) -> None:
    first = deploy(url=vendor.url, key_url=f"{vendor.url}/vendor.asc", fingerprint=vendor.fingerprint)
    assert first.problems == []
    assert first.changed == 3  # key, source, package
    assert world.package(PACKAGE).version == "1.0"
    assert f"{vendor.url} probe/main" in world.check_output(f"apt-cache policy {PACKAGE}")
    second = deploy(url=vendor.url, key_url=f"{vendor.url}/vendor.asc", fingerprint=vendor.fingerprint)
    assert (second.problems, second.changed) == ([], 0)
    third = deploy()
    assert (third.problems, third.changed) == ([], 1)
    assert not any(world.file(path).exists for path in LEFT)


@pytest.mark.parametrize("key", ["other.asc", "both.asc", "expired.asc", "missing.asc"])
def test_any_other_key_is_refused_and_nothing_changes(
    deploy: Callable[..., pyinfra_run.Run], vendor: Vendor, world: Host, key: str
) -> None:
    """Another's key, the vendor's with another beside it (apt would trust both), one that has expired, and no key at all."""
    fingerprint = vendor.expired if key == "expired.asc" else vendor.fingerprint
    run = deploy(url=vendor.url, key_url=f"{vendor.url}/{key}", fingerprint=fingerprint)
    (problem,) = run.problems
    if key == "missing.asc":
        assert "404" in problem
    else:
        said = f"{vendor.url}/{key} is not the key {fingerprint} alone and in force: check host_apt_sources.{PROBED}."
        assert said in problem
    assert not any(world.file(path).exists for path in LEFT)
    assert not world.package(PACKAGE).is_installed
