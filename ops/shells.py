"""ssh, psql, logs: a person's own hands on the hosts."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from deploys.lib.services import services
from deploys.lib.settings import Platform, PlatformHost, PostgresqlSettings
from ops import cluster, inventory
from ops.errors import Failed, Refused
from ops.options import count
from ops.terminal import Terminal

DATABASE = "phoenix"
IN_RECOVERY = "SELECT pg_is_in_recovery()"


def arguments(verb: str, parser: argparse.ArgumentParser) -> None:
    """What the verbs take."""
    if verb == "ssh":
        parser.add_argument("host", metavar="HOST")
        parser.usage = "phoenix ssh [-h] [-i FILE] HOST [-- COMMAND]"
    elif verb == "psql":
        parser.add_argument("--role", help="act as this role, for example samurai_agent (SET ROLE)")
        parser.usage = "phoenix psql [-h] [-i FILE] [--role ROLE] [-- ARGUMENTS OF PSQL]"
    else:
        parser.add_argument("name", metavar="SERVICE|HOST", help="a service on every host that has it, or a whole host")
        parser.add_argument("-f", "--follow", action="store_true", help="go on showing what comes")
        parser.add_argument("--since", metavar="WHEN", help="from when, for example '10 min ago' or '2025-11-23 14:00'")
        parser.add_argument("-n", "--lines", type=count, help="how many lines (default: 100, all with --since)")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Do the verb of `options`; the exit code is the remote program's where there is one."""
    if options.as_json:
        raise Refused(f"phoenix {options.verb} passes a program's output through and has no --json: leave it out.")
    platform = inventory.made(options.inventory)
    if options.verb == "ssh":
        return ssh(inventory.host(platform, options.host), options.rest)
    if options.verb == "psql":
        return psql(platform, options.rest, role=options.role)
    try:
        return logs(platform, options.name, follow=options.follow, since=options.since, lines=options.lines)
    except KeyboardInterrupt:  # how a person ends --follow
        return 130


def ssh(target: PlatformHost, command: Sequence[str]) -> int:
    """A login shell on `target`, or one command, its words kept as they are when there are several."""
    remote = [command[0] if len(command) == 1 else shlex.join(command)] if command else []
    terminal = ["-t"] if _at_terminal() and not remote else []
    return subprocess.run([*inventory.ssh(target, *terminal, interactive=True), *remote], check=False).returncode


def psql(platform: Platform, words: Sequence[str], *, role: str | None = None) -> int:
    """psql as the superuser, over the socket of the server that takes writes."""
    target = leader(platform)
    command = ["psql", "-p", str(target[PostgresqlSettings].port), "-d", DATABASE, *words]
    if role:
        command = ["env", f"PGOPTIONS=-c role={role}", *command]
    terminal = ["-t"] if _at_terminal() else []
    remote = inventory.as_user(target, "postgres", command)
    return subprocess.run([*inventory.ssh(target, *terminal, interactive=True), remote], check=False).returncode


def leader(platform: Platform) -> PlatformHost:
    """The host of the platform's own cluster whose PostgreSQL takes writes, asked now. Raises Refused without PostgreSQL hosts, Failed
    without a leader."""
    candidates = cluster.of(platform).hosts
    if len(candidates) == 1:
        return candidates[0]
    with ThreadPoolExecutor(max_workers=len(candidates)) as pool:
        for target, leads in zip(candidates, pool.map(_leads, candidates), strict=True):
            if leads:
                return target
    names = ", ".join(target.name for target in candidates)
    raise Failed(f"no PostgreSQL server takes writes now (asked {names}): see './phoenix status' and docs/runbooks/.")


def logs(platform: Platform, name: str, *, follow: bool, since: str | None, lines: int | None) -> int:
    """The journal of a service, or of a whole host. Lines of several hosts are told apart by the host's name in front."""
    found = [service for service in services(platform) if name in (service.name, service.unit, service.unit.removesuffix(".service"))]
    if name in platform.hosts:
        wanted = {name: ""}
    elif found:
        wanted = {service.host: service.unit for service in found}
    else:
        known = ", ".join(dict.fromkeys(service.name for service in services(platform)))
        raise Refused(f"{name} is neither a service nor a host: choose from {known}, {', '.join(platform.hosts)}.")
    options = ["--no-pager", "--output=short-iso"]
    options += [f"--since={since}"] if since else []
    shown = lines if lines is not None else (None if since else 100)
    options += [f"--lines={shown}"] if shown is not None else []
    options += ["--follow"] if follow else []
    commands = {}
    for host_name, unit in wanted.items():
        target = platform.hosts[host_name]
        journal = ["journalctl", *options, *([f"--unit={unit}"] if unit else [])]
        commands[host_name] = [*inventory.ssh(target), inventory.as_root(target, journal)]
    if len(commands) == 1:
        return subprocess.run(next(iter(commands.values())), check=False).returncode
    return _together(commands)


def _together(commands: dict[str, list[str]]) -> int:
    """Run the hosts' commands at the same time, each line of output headed by its host; the worst exit code."""
    width = max(map(len, commands))
    processes = {name: subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") for name, command in commands.items()}

    def pass_on(name: str, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            print(f"{name:{width}}  {line}", end="", flush=True)

    threads = [threading.Thread(target=pass_on, args=item, daemon=True) for item in processes.items()]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return max(process.wait() for process in processes.values())
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.terminate()


def _leads(target: PlatformHost) -> bool:
    query = ["psql", "-XAtq", "-p", str(target[PostgresqlSettings].port), "-d", "postgres", "-c", IN_RECOVERY]
    command = [*inventory.ssh(target), inventory.as_user(target, "postgres", query)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and done.stdout.strip() == "f"


def _at_terminal() -> bool:
    return os.isatty(sys.stdin.fileno()) and os.isatty(sys.stdout.fileno())
