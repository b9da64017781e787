"""One line per event on stderr, as key=value, with the priority that journald understands; and word to systemd."""

from __future__ import annotations

import contextlib
import os
import socket
import sys

_LEVELS = {"error": 3, "warning": 4, "notice": 5, "info": 6}


def write(event: str, *, level: str = "info", **values: object) -> None:
    """Write one line. `level` is error, warning, notice or info."""
    pairs = "".join(f" {key}={_quote(value)}" for key, value in values.items())
    priority = f"<{_LEVELS[level]}>" if "JOURNAL_STREAM" in os.environ else ""
    print(f"{priority}level={level} event={_quote(event)}{pairs}", file=sys.stderr, flush=True)


def _quote(value: object) -> str:
    text = " ".join(str(value).split())
    if text and not any(c in text for c in ' "=\\') and text.isprintable():
        return text
    safe = "".join(c if c.isprintable() else "?" for c in text)
    return '"' + safe.replace("\\", "\\\\").replace('"', '\\"') + '"'


def notify(message: str) -> None:
    """Send `message` (READY=1, WATCHDOG=1, …) to systemd; nothing happens when no systemd waits for it."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.connect(address)
        channel.send(message.encode())


def watchdog_interval_s() -> float | None:
    """How often systemd wants to hear WATCHDOG=1 (half of its limit), or None when it does not."""
    limit = os.environ.get("WATCHDOG_USEC", "")
    if not limit.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(limit) / 2_000_000
