"""status: one line for every service of the platform, asked now, over one SSH connection to each host."""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from deploys.lib.services import Service, services
from deploys.lib.settings import Platform, PlatformHost
from ops import inventory, probe
from ops.errors import DONE, FAILED
from ops.terminal import Cell, Terminal, ok_mark, seconds

HOST_TIMEOUT_S = 20


@dataclass(frozen=True)
class Health:
    """One service as it is now."""

    service: Service
    ok: bool
    detail: str

    def as_dict(self) -> dict[str, object]:
        """The entry that `status --json` prints."""
        return {
            "host": self.service.host,
            "name": self.service.name,
            "ok": self.ok,
            "address": self.service.url,
            "detail": self.detail,
        }


def arguments(verb: str, parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("hosts", nargs="*", metavar="HOST", help="hosts to ask (default: all of the inventory)")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Ask and print; 0 when everything is well, 1 when something is not."""
    platform = inventory.made(options.inventory)
    targets = [inventory.host(platform, name) for name in options.hosts] or list(platform.hosts.values())
    started = time.monotonic()
    with terminal.working(f"Asking {', '.join(target.name for target in targets)}"):
        found = ask(platform, targets)
    took = time.monotonic() - started
    show(found, terminal)
    bad = [health for health in found if not health.ok]
    if bad:
        verb = "is" if len(bad) == 1 else "are"
        terminal.line(
            f"{len(bad)} of {len(found)} services {verb} not well ({seconds(took)}): see './phoenix logs {bad[0].service.name}' and "
            "docs/troubleshooting.md.",
            "red",
        )
    else:
        terminal.line(f"All {len(found)} services are well ({seconds(took)}).", "green")
    terminal.result({"ok": not bad, "services": [health.as_dict() for health in found], "seconds": round(took, 2)})
    return FAILED if bad else DONE


def show(found: Sequence[Health], terminal: Terminal) -> None:
    """The table for people."""
    rows: list[list[Cell]] = [[h.service.host, h.service.name, ok_mark(h.ok), h.service.url, h.detail] for h in found]
    terminal.table(["host", "service", "", "address", "detail"], rows)


def ask(platform: Platform, targets: Sequence[PlatformHost]) -> list[Health]:
    """The health of every service on `targets`, all hosts at the same time. A host that does not answer fails all of its own."""
    expected = services(platform)
    with ThreadPoolExecutor(max_workers=max(1, len(targets))) as pool:
        asked = [pool.submit(_ask_host, target, [s for s in expected if s.host == target.name]) for target in targets]
        return [health for future in asked for health in future.result()]


def _ask_host(target: PlatformHost, expected: Sequence[Service]) -> list[Health]:
    questions = [
        {
            "unit": service.unit,
            "kind": service.kind,
            "address": service.address,
            "port": service.port,
            "path": service.health_path,
            "tls": service.scheme == "https",
        }
        for service in expected
    ]
    program = f"{Path(probe.__file__).read_text(encoding='utf-8')}\nmain({questions!r})\n"
    command = [*inventory.ssh(target), inventory.as_root(target, ["python3", "-"])]
    try:
        done = subprocess.run(command, input=program, capture_output=True, text=True, timeout=HOST_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return [Health(service, False, f"host gave no answer within {HOST_TIMEOUT_S} s") for service in expected]
    try:
        answers = json.loads(done.stdout)
    except ValueError:
        reason = (done.stderr.strip().splitlines() or [f"ssh ended with {done.returncode}"])[-1].strip()
        return [Health(service, False, f"host does not answer: {reason}") for service in expected]
    return [Health(service, ok, detail) for service, (ok, detail) in zip(expected, answers, strict=True)]
