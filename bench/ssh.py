"""What one remote command costs, as pyinfra connects and as deploys/lib/connector.py does: `.venv/bin/python bench/ssh.py`.

Runs `true` over and over on one host of an inventory (the lab's vps1), by turns over a connection of each kind and over OpenSSH with a
connection kept open, so that a busy machine slows all of them alike. Prints the distribution of each in ms. Changes nothing on the host.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pyinfra.api import Config, Host, Inventory, State  # noqa: E402 - the project has to be found first
from pyinfra.api.connect import connect_all  # noqa: E402

from deploys.lib import connector  # noqa: E402
from deploys.lib.settings import PlatformHost, load  # noqa: E402

Command = Callable[[], object]


def connected(host: PlatformHost) -> Host:
    """pyinfra's host with an SSH connection, made as the process is set up now."""
    inventory = Inventory(([(host.name, dict(host.data))], {}))
    state = State(inventory, Config())
    connect_all(state)
    found = inventory.get_host(host.name)
    if not found.connected:
        sys.exit(f"{host.name} cannot be reached over SSH: run 'make up', or name another inventory and host.")
    return found


def by_pyinfra(host: PlatformHost) -> Command:
    """Runs `true` as facts and operations run their commands."""
    target = connected(host)

    def run() -> None:
        worked, _ = target.run_shell_command("true")
        assert worked  # noqa: S101 - it is `true`

    return run


@contextmanager
def by_openssh(host: PlatformHost) -> Iterator[Command]:
    """Runs `true` with the ssh program, over one connection that stays open."""
    data = host.data
    with tempfile.TemporaryDirectory(prefix="ssh-") as directory:
        options = {"ControlMaster": "auto", "ControlPath": f"{directory}/%C", "ControlPersist": "60", "BatchMode": "yes"}
        for option, key in {"User": "ssh_user", "IdentityFile": "ssh_key", "UserKnownHostsFile": "ssh_known_hosts_file"}.items():
            if key in data:
                options[option] = str(data[key])
        ssh = ["ssh", *(part for option, value in options.items() for part in ("-o", f"{option}={value}")), str(data["ssh_hostname"])]
        yield lambda: subprocess.run([*ssh, "true"], capture_output=True, check=True)
        subprocess.run([*ssh[:-1], "-O", "exit", ssh[-1]], capture_output=True, check=False)


def measure(commands: dict[str, Command], count: int) -> dict[str, list[float]]:
    """Milliseconds of `count` runs of each command, by turns."""
    found: dict[str, list[float]] = {name: [] for name in commands}
    for command in commands.values():
        command()  # the first opens what the others use
    for _ in range(count):
        for name, command in commands.items():
            started = time.perf_counter()
            command()
            found[name].append((time.perf_counter() - started) * 1000)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-i", "--inventory", type=Path, default=ROOT / "inventory" / "lab.py")
    parser.add_argument("--host", default="vps1")
    parser.add_argument("-n", "--count", type=int, default=100, help="commands over each connection")
    given = parser.parse_args()
    host = load(given.inventory).hosts[given.host]
    commands = {"pyinfra as it is": by_pyinfra(host)}
    connector.send_commands_at_once()
    commands["with TCP_NODELAY"] = by_pyinfra(host)
    with by_openssh(host) as openssh:
        found = measure({**commands, "OpenSSH, connection kept": openssh}, given.count)
    print(f"{given.count} commands over each connection to {host.name}, ms\n")
    print(f"{'':26}{'min':>8}{'median':>8}{'p95':>8}{'max':>8}")
    for name, times in found.items():
        p95 = statistics.quantiles(times, n=20)[-1]
        print(f"{name:26}{min(times):8.1f}{statistics.median(times):8.1f}{p95:8.1f}{max(times):8.1f}")


if __name__ == "__main__":
    main()
