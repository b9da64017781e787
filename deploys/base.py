"""What every host is before any service: packages, time, journal, kernel settings, SSH, updates, the operator's account."""

from __future__ import annotations

import ipaddress
from typing import Any

from pyinfra import host
from pyinfra.api import deploy, operation

from deploys.lib import facts, findings, hosts, programs
from deploys.lib.ahead import Question, ask, asks
from deploys.lib.operations import Commands, Directory, File, files, refusal, service, template
from deploys.lib.settings import HostSettings

PACKAGES = [
    "ca-certificates",
    "curl",
    "gpg",
    "nftables",
    "openssl",
    "python3",
    "sudo",
    "systemd-timesyncd",
    "unattended-upgrades",
]

SYSCTL = "/etc/sysctl.d/60-phoenix.conf"
JOURNALD = "/etc/systemd/journald.conf.d/60-phoenix.conf"
SSHD = "/etc/ssh/sshd_config.d/10-phoenix.conf"


@deploy("Host is fit for a deploy")
def preflight() -> None:
    """Refuse, before anything changes, a host that is not Debian 13, has no disk left, or would shut out who deploys it."""
    fit(name="Debian, disk to work with, and a way in afterwards")


@operation()
def fit() -> Commands:
    """The host is one that Phoenix knows and has the free disk that settings ask for."""
    settings = hosts.settings(HostSettings)
    resources = hosts.resources()
    problem = ""
    if resources is None:
        problem = f"{host.name} does not answer as a Debian host: check that it is Debian 13 and that the login may run commands."
    elif resources.debian != "debian-13":
        problem = f"{host.name} runs {resources.debian}, not Debian 13: reinstall it, or take it out of the inventory."
    elif resources.free_mb < settings.min_free_mb:
        problem = (
            f"{host.name} has {resources.free_mb} MB of disk left and a deploy wants {settings.min_free_mb}: "
            "free some (see docs/runbooks/HostDiskAlmostFull.md), or lower host_min_free_mb."
        )
    elif resources.client and not _within(resources.client, settings.ssh_networks):
        problem = (
            f"{host.name} is deployed from {resources.client}, which its firewall would shut out ({', '.join(settings.ssh_networks)} may "
            "come in): deploy from one of these networks, or add yours to host_ssh_networks."
        )
    elif resources.ssh_port not in ("", "22"):
        problem = (
            f"{host.name} has SSH on port {resources.ssh_port}, which its firewall would shut: let sshd listen on port 22 and "
            "change ssh_port in the inventory."
        )
    if problem:
        findings.report(problem)
        yield refusal(problem)


def _within(client: str, networks: list[str]) -> bool:
    address = ipaddress.ip_address(client.partition("%")[0])
    return any(address in ipaddress.ip_network(network) for network in networks)


@deploy("Base")
def baseline() -> None:
    """Time, journal limits, kernel settings, SSH by key only, security updates by themselves, an account for people."""
    settings = hosts.settings(HostSettings)
    home = f"/home/{settings.operator}"
    account(name="Operator's account", user=settings.operator)
    files(
        name="Configuration of the host",
        entries=[
            File(JOURNALD, template("base/journald.conf.j2", cfg=settings)),
            File(SYSCTL, template("base/sysctl.conf.j2", memory_mb=memory_mb)),
            File(SSHD, template("base/sshd.conf.j2")),
            File("/etc/apt/apt.conf.d/60-phoenix-upgrades", template("base/apt-upgrades.conf.j2")),
            File(f"/etc/sudoers.d/60-{settings.operator}", template("base/sudoers.j2", cfg=settings), mode="440"),
            Directory(home, settings.operator, settings.operator, "750"),
            Directory(f"{home}/.ssh", settings.operator, settings.operator, "700"),
            File(f"{home}/.ssh/authorized_keys", "\n".join(settings.operator_keys), settings.operator, settings.operator, "600"),
        ],
    )
    timezone(name="Time zone")
    kernel_settings(name="Kernel settings in force")
    service(name="Clock is kept", unit="systemd-timesyncd.service", in_container=False)
    service(name="Journal within its limits", unit="systemd-journald.service", restart_on=[JOURNALD])
    service(name="SSH by key only", unit="ssh.service", reload_on=[SSHD])
    service(name="Security updates install themselves", unit="unattended-upgrades.service")


def memory_mb() -> int:
    """RAM to size services for: the setting, else what the host has, rounded down to 128 MB.

    Rounded, because each kernel keeps a few MB more or less for itself, and a new one must not restart the database.
    """
    return hosts.settings(HostSettings).memory_mb or hosts.resources().memory_mb // 128 * 128


@asks(programs.known)
@operation()
def account(user: str) -> Commands:
    """The system has this login, without a password."""
    if ask(programs.known(user=user)).endswith(facts.FAILED):
        findings.report(f"user {user} is missing")
        yield f"useradd --create-home --shell /bin/bash --password '*' {user}"


def _timezone(**_: Any) -> Question:
    return facts.Output, {"script": "readlink /etc/localtime"}


@asks(_timezone)
@operation()
def timezone() -> Commands:
    """The host's time zone is the one of the settings."""
    wanted = hosts.settings(HostSettings).timezone
    if ask(_timezone()) not in (
        f"/usr/share/zoneinfo/{wanted}",
        f"../usr/share/zoneinfo/{wanted}",
    ):
        findings.report(f"the time zone is not {wanted}")
        yield f"test -e /usr/share/zoneinfo/{wanted} && ln -sfn /usr/share/zoneinfo/{wanted} /etc/localtime"


def _kernel_differs(**_: Any) -> Question:
    # In a container /proc/sys is the computer's and read-only: only a real machine has kernel settings of its own.
    script = (
        "systemd-detect-virt --container --quiet && exit 0; "
        f"sed -n 's/^\\([a-z0-9_.]*\\) = \\(.*\\)$/\\1 \\2/p' {SYSCTL} | while read -r key value; do "
        'sysctl -n "$key" >/dev/null 2>&1 || continue; '  # a kernel without IPv6 or huge pages
        'test "$(sysctl -n "$key" | tr -s "[:space:]" " ")" = "$value" || echo "$key"; done'
    )
    return facts.Output, {"script": script}


@asks(_kernel_differs)
@operation()
def kernel_settings() -> Commands:
    """The kernel runs with the values of the host's sysctl file, as far as it lets this host set them."""
    if differing := ask(_kernel_differs()).split():
        findings.report(f"the kernel runs with another {', '.join(differing)}")
        yield f"sysctl --quiet --ignore --load {SYSCTL}"
