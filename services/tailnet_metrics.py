"""Tells the node exporter how the host stands in the tailnet, from `tailscale status --json`: tailnet_metrics.py TAILSCALE OUTPUT.

Runs on the hosts by a timer, with Python's standard library only. When tailscaled does not answer, that is what it writes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

ASK_S = 10
HELP = {
    "phoenix_tailscale_up": "Whether tailscaled runs and is in the tailnet.",
    "phoenix_tailscale_control_connected": "Whether the control server answers.",
    "phoenix_tailscale_key_expiry_timestamp_seconds": "Unix time when the host's key expires; absent for a key that does not.",
    "phoenix_tailscale_peer_up": "Whether the control server sees the other host, and its key is valid.",
    "phoenix_tailscale_peer_relayed": "Whether packets to the other host go through a relay.",
    "phoenix_tailscale_checked_timestamp_seconds": "Unix time of this look.",
}


def samples(status: dict[str, Any]) -> Iterator[tuple[str, dict[str, str], float]]:
    """Name, labels and value of every metric that `tailscale status --json` gives; an empty status is tailscaled that does not answer."""
    own = status.get("Self") or {}
    running = status.get("BackendState") == "Running"
    yield "phoenix_tailscale_up", {}, float(running)
    yield "phoenix_tailscale_control_connected", {}, float(running and bool(own.get("Online")))
    if expiry := own.get("KeyExpiry"):
        yield "phoenix_tailscale_key_expiry_timestamp_seconds", {}, datetime.fromisoformat(expiry).timestamp()
    if not running:
        return
    for peer in sorted((status.get("Peer") or {}).values(), key=lambda one: str(one.get("HostName"))):
        # Whoever has no tags is no host of the platform: a client that went home is no fault.
        if not any(tag.startswith("tag:phoenix-host-") for tag in peer.get("Tags") or []):
            continue
        labels = {"peer": str(peer.get("HostName"))}
        yield "phoenix_tailscale_peer_up", labels, float(bool(peer.get("Online")) and not peer.get("Expired"))
        yield "phoenix_tailscale_peer_relayed", labels, float(bool(peer.get("Active") and peer.get("Relay") and not peer.get("CurAddr")))


def exposition(status: dict[str, Any], now: float) -> str:
    """The text file."""
    lines: list[str] = []
    seen = ""
    for name, labels, value in sorted([*samples(status), ("phoenix_tailscale_checked_timestamp_seconds", {}, now)], key=lambda one: one[0]):
        if name != seen:
            lines += [f"# HELP {name} {HELP[name]}", f"# TYPE {name} gauge"]
            seen = name
        shown = ",".join(f'{key}="{text}"' for key, text in labels.items())
        lines.append(f"{name}{{{shown}}} {value:.0f}" if shown else f"{name} {value:.0f}")
    return "\n".join(lines) + "\n"


def ask(program: str) -> dict[str, Any]:
    """What tailscaled says, empty when it says nothing."""
    try:
        done = subprocess.run([program, "status", "--json"], capture_output=True, text=True, timeout=ASK_S, check=False)
        found = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return {}
    return found if isinstance(found, dict) else {}


def main(program: str, output: Path) -> None:
    """Write the metrics of this moment, whole or not at all."""
    new = output.with_suffix(".new")
    new.write_text(exposition(ask(program), time.time()), encoding="utf-8")
    new.chmod(0o644)
    new.replace(output)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
