"""Every host: nobody gets in without a key, updates come by themselves, logs are bounded, nothing failed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from testinfra.host import Host

from deploys.lib.settings import HostSettings, Platform


@pytest.fixture(params=["vps1", "vps2", "vps3", "world"])
def host(request: pytest.FixtureRequest, on: Callable[[str], Host], platform: Platform) -> Host:
    if request.param not in platform.hosts:
        pytest.skip(f"this inventory has no {request.param}")
    return on(request.param)


def test_no_unit_failed(host: Host) -> None:
    assert host.check_output("systemctl list-units --failed --plain --no-legend") == ""


def test_what_starts_again_does_so_for_ever(host: Host) -> None:
    """systemd gives a service up that crashes five times in ten seconds, unless it is told not to."""
    asked = "Names,Restart,RestartUSec,StartLimitIntervalUSec,FragmentPath,DropInPaths"
    units = host.check_output(f"systemctl show --type=service -p {asked} '*'").split("\n\n")
    ours = [unit for unit in units if "/etc/systemd/system/" in unit and "\nRestart=no" not in f"\n{unit}"]
    assert len(ours) >= 5
    wrong = [unit for unit in ours if "StartLimitIntervalUSec=0" not in unit or "RestartUSec=100ms" in unit]
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.parametrize("method", ["password", "keyboard-interactive"])
def test_ssh_offers_keys_only(platform: Platform, ssh_config: Path, method: str) -> None:
    for name in platform.hosts:
        command = ["ssh", "-F", str(ssh_config), "-o", "ControlPath=none", "-o", f"PreferredAuthentications={method}", name, "true"]
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert refused.returncode == 255
        assert "Permission denied (publickey)" in refused.stderr


def test_operator_may_become_root_and_has_no_password(host: Host, platform: Platform) -> None:
    operator = platform.hosts["vps1"][HostSettings].operator
    assert host.check_output("runuser -u %s -- sudo -n id -u", operator) == "0"
    assert host.check_output("getent shadow %s | cut -d: -f2", operator) == "*"


def test_journal_is_bounded(host: Host, platform: Platform) -> None:
    limit = platform.hosts["vps1"][HostSettings].journal_max_mb
    assert f"max {limit}M" in host.check_output("journalctl -u systemd-journald --grep 'System Journal' -o cat -n 1") or (
        f"SystemMaxUse={limit}M" in host.check_output("systemd-analyze cat-config systemd/journald.conf")
    )


def test_security_updates_are_on_and_leave_the_database_alone(host: Host) -> None:
    settings = host.check_output("apt-config dump")
    assert 'APT::Periodic::Unattended-Upgrade "1";' in settings
    assert "Debian-Security" in settings
    assert '"postgresql-"' in settings.partition("Package-Blacklist")[2]
    assert host.service("apt-daily-upgrade.timer").is_enabled


def test_clock_is_kept_where_the_host_has_one_of_its_own(host: Host) -> None:
    if host.run("systemd-detect-virt --container --quiet").succeeded:
        assert not host.service("systemd-timesyncd").is_running, "a container must not try to set the computer's clock"
    else:
        assert host.check_output("timedatectl show -p NTPSynchronized --value") == "yes"
