"""A real Redis, for tests that run one on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path


def start(*arguments: str, cwd: Path) -> subprocess.Popen[bytes]:
    """A Redis with these arguments, in this directory. It may not answer yet."""
    program, libraries = _program()
    # The name decides what the program is.
    command, env = ["redis-server", *arguments], {**os.environ, "LD_LIBRARY_PATH": libraries}
    return subprocess.Popen(command, executable=program, env=env, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _program() -> tuple[str, str]:
    """redis-server and its LD_LIBRARY_PATH: this computer's, or Debian's packages, unpacked into the cache and not installed."""
    if found := shutil.which("redis-server"):
        return found, ""
    unpacked = Path(os.environ.get("PHOENIX_CACHE", "/var/cache/phoenix")) / "redis-tools"
    if not unpacked.exists():
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        script = (
            "apt-get -q update >/dev/null; needed=$(apt-cache depends redis-tools | sed -n 's/^ *Depends: \\([a-z0-9.+-]*\\)$/\\1/p' "
            "| grep -vx libc6); apt-get -q download redis-tools $needed >/dev/null && for deb in *.deb; do dpkg -x $deb .; done"
        )
        with tempfile.TemporaryDirectory(dir=unpacked.parent) as work:
            done = subprocess.run(["sh", "-ec", script], cwd=work, capture_output=True, text=True, timeout=300, check=False)
            assert done.returncode == 0, f"Redis is neither here nor to be had from Debian: {done.stderr}"
            shutil.copytree(work, unpacked, symlinks=True)
    libraries = sorted({str(path.parent) for path in unpacked.rglob("*.so*")})
    return str(unpacked / "usr/bin/redis-check-rdb"), ":".join(libraries)
