"""The inventory of this run, and how the hosts in it are reached."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from deploys.lib.secrets import SecretError, SecretStore
from deploys.lib.settings import ROOT, Platform, PlatformHost, SettingsError, load
from ops.errors import Refused

DEFAULT = ROOT / "inventory" / "lab.py"
CONNECT_TIMEOUT_S = 10


def read(path: Path) -> Platform:
    """The checked inventory. Raises Refused with everything that is wrong with it."""
    try:
        return load(path)
    except SettingsError as error:
        raise Refused(str(error)) from error


def host(platform: Platform, name: str) -> PlatformHost:
    """The host called `name`. Raises Refused with the names there are."""
    try:
        return platform.hosts[name]
    except KeyError:
        raise Refused(f"{shown(platform.inventory)} has no host {name}: choose from {', '.join(platform.hosts)}.") from None


def secrets(platform: Platform) -> SecretStore:
    """The inventory's secret store. Raises Refused."""
    try:
        return SecretStore.load(platform.secrets_file)
    except SecretError as error:
        raise Refused(str(error)) from error


def shown(path: Path) -> str:
    """`path` as a person would write it: relative when it is in the checkout."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def ssh(target: PlatformHost, *options: str, interactive: bool = False) -> list[str]:
    """The OpenSSH command that logs in to `target` the way pyinfra does, without a remote command yet.

    Everything the inventory does not say is left to the user's own ssh configuration. Not `interactive`: asks nothing.
    """
    data = target.data
    command = ["ssh", "-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}", "-o", "LogLevel=ERROR"]
    if not interactive:
        command += ["-o", "BatchMode=yes"]
    if config := data.get("ssh_config_file"):
        command += ["-F", str(config)]
    if known_hosts := data.get("ssh_known_hosts_file"):
        command += ["-o", f"UserKnownHostsFile={known_hosts}"]
    if checking := data.get("ssh_strict_host_key_checking"):
        command += ["-o", f"StrictHostKeyChecking={checking}"]
    if key := data.get("ssh_key"):
        command += ["-i", str(Path(key).expanduser()), "-o", "IdentitiesOnly=yes"]
    if port := data.get("ssh_port"):
        command += ["-p", str(port)]
    if user := data.get("ssh_user"):
        command += ["-l", str(user)]
    return [*command, *options, str(data.get("ssh_hostname", target.name))]


def as_root(target: PlatformHost, command: Sequence[str]) -> str:
    """Shell text that runs `command` as root on `target`, through sudo where the login is not root."""
    return shlex.join(command if _login_is_root(target) else ["sudo", "-n", *command])


def as_user(target: PlatformHost, user: str, command: Sequence[str]) -> str:
    """Shell text that runs `command` as `user` on `target`, in a directory that user may read."""
    switch = ["runuser", "-u", user, "--"] if _login_is_root(target) else ["sudo", "-n", "-u", user]
    return f"cd / && {shlex.join([*switch, *command])}"


def _login_is_root(target: PlatformHost) -> bool:
    return str(target.data.get("ssh_user", os.environ.get("USER", "root"))) == "root"
