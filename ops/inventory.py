"""The inventory of this run, and how the hosts in it are reached."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from deploys.lib.secrets import SecretError, SecretStore
from deploys.lib.settings import ROOT, Platform, PlatformHost, SettingsError, load, shown
from ops.errors import Refused

DEFAULT = ROOT / "inventory" / "lab.py"
CONNECT_TIMEOUT_S = 10


def read(path: Path) -> Platform:
    """The checked inventory. Raises Refused with everything that is wrong with it."""
    try:
        return load(path)
    except SettingsError as error:
        raise Refused(str(error)) from error


def made(path: Path) -> Platform:
    """The checked inventory of hosts that can be reached. Raises Refused as well when the key that logs in to one is not there."""
    platform = read(path)
    for target in platform.hosts.values():
        if not (named := target.data.get("ssh_key")):
            continue
        key = Path(named).expanduser()
        try:
            key.stat()
        except PermissionError:
            who = "as root, for example with sudo" if path == DEFAULT else "as the user it belongs to"
            raise Refused(f"the SSH key of {target.name} is not yours to read ({key}): run this {who}.") from None
        except OSError:
            step = "run 'make up' first" if path == DEFAULT else f"put it there or name another one in {shown(path)}"
            what = "the lab is not made yet" if path == DEFAULT else f"the SSH key of {target.name} is missing"
            raise Refused(f"{what} ({key} does not exist): {step}.") from None
    return platform


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


def ssh(target: PlatformHost, *options: str, interactive: bool = False) -> list[str]:
    """The OpenSSH command that logs in to `target` the way pyinfra does, without a remote command yet.

    Everything the inventory does not say is left to the user's own ssh configuration. Not `interactive`: asks nothing.
    Raises Refused without OpenSSH.
    """
    if shutil.which("ssh") is None:
        raise Refused("OpenSSH's client is not on this computer: run 'apt-get install openssh-client' as root.")
    data = target.data
    command = ["ssh", "-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}", "-o", "LogLevel=ERROR"]
    # Debian's client sends the user's locale, and programs on a host that lacks it complain on every call.
    command += ["-o", "SetEnv=LC_ALL=C.UTF-8"]
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
