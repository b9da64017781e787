"""How the archive of n8n is made from a lock: a registry of our own on loopback, and tar as the witness of what was written."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from deploys.n8n import packing
from deploys.n8n.packing import PackingError

Files = dict[str, tuple[bytes, int]]


def published(files: Files) -> bytes:
    """A package as registries have it: everything in one directory, whatever its name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, (data, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
        link = tarfile.TarInfo("package/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return buffer.getvalue()


PUBLISHED = {
    "/a/-/a-1.0.0.tgz": published({"package/index.js": (b"a", 0o600), "package/README.md": (b"", 0o644), "package/a.d.ts": (b"", 0o644)}),
    "/@s/b/-/b-2.0.0.tgz": published({"b/bin/run": (b"b", 0o700), "b/node_modules/c/c.js": (b"c", 0o644)}),
}


@pytest.fixture
def registry() -> Iterator[tuple[str, list[int]]]:
    """Its address, and the statuses that it gives before it does what it is asked."""
    troubles: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = PUBLISHED.get(self.path, b"")
            status = troubles.pop() if troubles else 200 if body else 404
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", troubles
        server.shutdown()


def entry(address: str, **more: Any) -> dict[str, Any]:
    """What a lock says of the package that is published there."""
    digest = base64.b64encode(hashlib.sha512(PUBLISHED[address]).digest()).decode()
    return {"version": address.rpartition("-")[2].removesuffix(".tgz"), "integrity": f"sha512-{digest}", **more}


LOCK = {
    "packages": {
        "": {"dependencies": {"a": "1.0.0"}},
        "node_modules/a": entry("/a/-/a-1.0.0.tgz"),
        "node_modules/a/node_modules/@s/b": entry("/@s/b/-/b-2.0.0.tgz", os=["linux"], cpu=["x64"]),
        "node_modules/other": entry("/a/-/a-1.0.0.tgz", name="a", os=["!win32"]),
        "node_modules/windows": entry("/a/-/a-1.0.0.tgz", name="a", os=["win32"]),
        "node_modules/musl": entry("/a/-/a-1.0.0.tgz", name="a", libc=["musl"]),
    }
}


def packed(lock: dict[str, Any], address: str, tmp_path: Path, machine: str = "x86_64") -> dict[str, tuple[bytes, int]]:
    """The files of the archive that is made, and their modes."""
    node = tmp_path / "node"
    node.write_bytes(b"node")
    target = io.BytesIO()
    packing.pack(target, node, packing.packages(lock, address, machine), packing.Registry(address, retries=2))
    target.seek(0)
    with tarfile.open(fileobj=target) as tar:
        return {member.name: (tar.extractfile(member).read(), member.mode) for member in tar}  # type: ignore[union-attr]


def test_what_the_lock_pins_stands_where_it_says(registry: tuple[str, list[int]], tmp_path: Path) -> None:
    assert packed(LOCK, registry[0], tmp_path) == {
        "node/bin/node": (b"node", 0o755),
        "app/node_modules/a/index.js": (b"a", 0o644),
        "app/node_modules/a/node_modules/@s/b/bin/run": (b"b", 0o755),
        "app/node_modules/a/node_modules/@s/b/node_modules/c/c.js": (b"c", 0o644),
        "app/node_modules/other/index.js": (b"a", 0o644),
    }


def test_another_processor_gets_other_packages(registry: tuple[str, list[int]], tmp_path: Path) -> None:
    found = packed(LOCK, registry[0], tmp_path, "aarch64")
    assert sorted(found) == ["app/node_modules/a/index.js", "app/node_modules/other/index.js", "node/bin/node"]


def test_a_registry_in_trouble_is_asked_again(registry: tuple[str, list[int]], tmp_path: Path) -> None:
    address, troubles = registry
    troubles += [503, 429]
    assert len(packed(LOCK, address, tmp_path)) == 5


@pytest.mark.parametrize(("spared", "reached"), [("127.0.0.1", True), ("registry.test", False)])
def test_the_environment_s_proxy_is_used_but_for_whom_it_spares(
    registry: tuple[str, list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spared: str, reached: bool
) -> None:
    for name, value in {"http_proxy": "http://127.0.0.1:1", "no_proxy": spared}.items():
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.setenv(name, value)
    with nullcontext() if reached else pytest.raises(PackingError, match="cannot be fetched"):
        assert len(packed(LOCK, registry[0], tmp_path)) == 5


def test_what_is_missing_or_another_is_refused_by_name(registry: tuple[str, list[int]], tmp_path: Path) -> None:
    missing = {"packages": {"node_modules/gone": entry("/a/-/a-1.0.0.tgz")}}
    with pytest.raises(PackingError, match=r"gone/-/gone-1\.0\.0\.tgz cannot be fetched \(status 404\)"):
        packed(missing, registry[0], tmp_path)
    another = {"packages": {"node_modules/a": {**entry("/@s/b/-/b-2.0.0.tgz"), "version": "1.0.0"}}}
    with pytest.raises(PackingError, match=r"a-1\.0\.0\.tgz is not what the lock pins"):
        packed(another, registry[0], tmp_path)


def test_a_package_without_a_digest_is_refused() -> None:
    with pytest.raises(PackingError, match="node_modules/a has no sha512"):
        packing.packages({"packages": {"node_modules/a": {"version": "1.0.0"}}}, "http://registry.test/", "x86_64")


def test_a_path_that_leads_out_of_its_package_is_refused() -> None:
    with pytest.raises(PackingError, match=r"package/\.\./\.\./evil"):
        list(packing.content(published({"package/../../evil": (b"", 0o644)})))


def test_nobody_there_is_one_sentence(tmp_path: Path) -> None:
    lock = {"packages": {"node_modules/a": entry("/a/-/a-1.0.0.tgz")}}
    with pytest.raises(PackingError, match=r"a-1\.0\.0\.tgz cannot be fetched"):
        packed(lock, "http://127.0.0.1:1/", tmp_path)
