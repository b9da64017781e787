"""The deploy itself: a second run changes nothing, what was broken by hand is named and mended, bad input is refused in a sentence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from deploys.lib.settings import ROOT, Platform

pytestmark = pytest.mark.changes

Phoenix = Callable[..., subprocess.CompletedProcess[str]]

START = "SELECT pg_postmaster_start_time()"
CLUSTER = ("vps1", "vps2")
CONNECTOR = "http://127.0.0.1:8083/connectors/outbox/config"


def starts(host: Host) -> dict[str, str]:
    """When each service of the host was started last, by its unit."""
    units = host.check_output("systemctl list-units --type=service --state=active --plain --no-legend | cut -d' ' -f1").split()
    units = [unit for unit in units if not unit.startswith(("user@", "session", "systemd-", "apt-", "phoenix-tls-expiry"))]
    shown = host.check_output(f"systemctl show -p Id -p ExecMainStartTimestampMonotonic {' '.join(units)}")
    return {block.splitlines()[1]: block for block in shown.split("\n\n")}


def deploy(phoenix: Phoenix, *hosts: str) -> dict[str, Any]:
    done = phoenix("deploy", "--json", *hosts)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_second_deploy_changes_nothing_and_restarts_nothing(
    phoenix: Phoenix, on: Callable[[str], Host], platform: Platform, psql: Callable[..., str]
) -> None:
    def everything() -> list[Any]:
        return [psql(START), *(starts(on(name)) for name in platform.hosts)]

    before = everything()
    result = deploy(phoenix)
    if result["changed"]:  # what earlier tests left; now it is as described
        before = everything()
        result = deploy(phoenix)

    assert result["changed"] == 0, result
    assert everything() == before


@dataclass(frozen=True)
class Fault:
    """Something broken by hand: how, in which words drift names it, and what the host answers when it is whole."""

    break_it: str
    named: str
    ask: str
    whole: str


ON_THE_HOST = {
    "a line of a configuration": Fault(
        "sed -i 's/^ClientAliveInterval.*/ClientAliveInterval 3000/' /etc/ssh/sshd_config.d/10-phoenix.conf",
        "10-phoenix.conf has other content",
        "grep ^ClientAliveInterval /etc/ssh/sshd_config.d/10-phoenix.conf",
        "ClientAliveInterval 30",
    ),
    "a configuration that everybody may write": Fault(
        "chmod 666 /etc/patroni/config.yml", "/etc/patroni/config.yml is postgres:postgres 666", "stat -c %a /etc/patroni/config.yml", "600"
    ),
    "a stopped service": Fault(
        "systemctl stop prometheus-node-exporter",
        "prometheus-node-exporter.service is inactive",
        "systemctl is-active prometheus-node-exporter",
        "active",
    ),
    "a disabled service": Fault(
        "systemctl --quiet disable phoenix-exporter",
        "phoenix-exporter.service is not enabled",
        "systemctl is-enabled phoenix-exporter",
        "enabled",
    ),
    "an open firewall": Fault(
        "nft insert rule inet phoenix input tcp dport 1-65535 accept",
        "the kernel's table inet phoenix is not the one",
        "nft list table inet phoenix | grep -c 1-65535",
        "0",
    ),
    "a removed package": Fault(
        "apt-get -qq -y remove unattended-upgrades >/dev/null 2>&1",
        "packages missing: unattended-upgrades",
        "dpkg-query -W -f='${db:Status-Status}' unattended-upgrades",
        "installed",
    ),
    "a connector with another setting": Fault(
        f'curl -sSf {CONNECTOR} | sed \'s/"poll.interval.ms":"10"/"poll.interval.ms":"777"/\' '
        f"| curl -sSf -o /dev/null -X PUT -H 'Content-Type: application/json' --data-binary @- {CONNECTOR}",
        "connector outbox: poll.interval.ms differ",
        f'curl -sSf {CONNECTOR} | grep -o \'"poll.interval.ms":"[0-9]*"\'',
        '"poll.interval.ms":"10"',
    ),
}

IN_THE_DATABASE = {
    "a right taken": Fault(
        "REVOKE INSERT ON phoenix.consciousness_timeline FROM samurai_agent",
        "rights of samurai_agent on table consciousness_timeline (missing)",
        "SELECT has_table_privilege('samurai_agent', 'phoenix.consciousness_timeline', 'INSERT')",
        "t",
    ),
    "a right given": Fault(
        "GRANT DELETE ON phoenix.tasks TO samurai_agent",
        "rights of samurai_agent on table tasks (altered)",
        "SELECT has_table_privilege('samurai_agent', 'phoenix.tasks', 'DELETE')",
        "f",
    ),
    "row security that spares the owner": Fault(
        "ALTER TABLE phoenix.tasks NO FORCE ROW LEVEL SECURITY",
        "table tasks (altered)",
        "SELECT relforcerowsecurity FROM pg_class WHERE oid = 'phoenix.tasks'::regclass",
        "t",
    ),
    "an extension dropped": Fault(
        "DROP EXTENSION amcheck", "extension amcheck is missing", "SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'", "1"
    ),
    "a role with too much power": Fault(
        "ALTER ROLE samurai_agent CREATEDB BYPASSRLS",
        "role samurai_agent: has other attributes",
        "SELECT rolcreatedb OR rolbypassrls FROM pg_roles WHERE rolname = 'samurai_agent'",
        "f",
    ),
    "a password changed": Fault(
        "ALTER ROLE public_api PASSWORD 'something-else'",
        "role public_api: has another password",
        "SELECT rolpassword LIKE 'SCRAM-SHA-256$%' FROM pg_authid WHERE rolname = 'public_api'",
        "t",
    ),
    "a look-up of logins that tells everybody everything": Fault(
        "GRANT USAGE ON SCHEMA gateway TO PUBLIC; CREATE OR REPLACE FUNCTION gateway.login(wanted text) "
        "RETURNS TABLE (username text, verifier text) LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS "
        "'SELECT rolname::text, rolpassword FROM pg_catalog.pg_authid WHERE rolname = wanted'",
        "gateways cannot look up logins",
        "SELECT (SELECT count(*) FROM gateway.login('replicator')), "
        "(SELECT count(*) FROM pg_namespace, aclexplode(nspacl) a WHERE nspname = 'gateway' AND a.grantee = 0)",
        "0|0",
    ),
    "a job stopped": Fault(
        "UPDATE cron.job SET active = false WHERE jobname = 'refresh-dashboard'",
        "job refresh-dashboard (altered)",
        "SELECT active FROM cron.job WHERE jobname = 'refresh-dashboard'",
        "t",
    ),
}


@dataclass(frozen=True)
class Mending:
    """What drift said of all the faults together, whether it left them alone, and what the deploy after it did."""

    drift: dict[str, Any]
    drift_code: int
    touched: list[str]
    deployed: dict[str, Any]
    drift_code_after: int
    restarted: bool


@pytest.fixture(scope="module")
def mending(phoenix: Phoenix, vps1: Host, psql: Callable[..., str]) -> Mending:
    """Break everything above at once, look with drift, mend with one deploy, look again."""
    start = psql(START)
    for fault in ON_THE_HOST.values():
        vps1.check_output(fault.break_it)
    for fault in IN_THE_DATABASE.values():
        psql(fault.break_it)
    drift = phoenix("drift", "--json")
    touched = [name for name, fault in ON_THE_HOST.items() if vps1.run(fault.ask).stdout.strip() == fault.whole]
    deployed = deploy(phoenix)
    after = phoenix("drift", "--json").returncode
    return Mending(json.loads(drift.stdout), drift.returncode, touched, deployed, after, psql(START) != start)


def test_drift_says_so_and_touches_nothing(mending: Mending) -> None:
    assert mending.drift_code == 3
    assert mending.touched == []


@pytest.mark.parametrize("name", [*ON_THE_HOST, *IN_THE_DATABASE])
def test_a_fault_is_named_by_drift_and_mended_by_deploy(mending: Mending, vps1: Host, psql: Callable[..., str], name: str) -> None:
    fault = (ON_THE_HOST | IN_THE_DATABASE)[name]
    assert fault.named in json.dumps(mending.drift, ensure_ascii=False)
    answer = vps1.run(fault.ask).stdout.strip() if name in ON_THE_HOST else psql(fault.ask)
    assert answer == fault.whole


def test_the_deploy_mended_only_that(mending: Mending) -> None:
    """Nothing differs afterwards, the other host was left alone, and the database was not restarted."""
    assert mending.deployed["hosts"]["world"] == {"changed": 0, "failed": 0}
    assert mending.drift_code_after == 0
    assert not mending.restarted


def test_a_change_that_no_file_can_undo_is_refused_by_name(phoenix: Phoenix, psql: Callable[..., str]) -> None:
    psql("ALTER TABLE phoenix.agents ADD COLUMN made_by_hand text")
    try:
        refused = phoenix("deploy", "--json")
        assert refused.returncode == 1
        assert "column agents.made_by_hand (added)" in refused.stderr
    finally:
        psql("ALTER TABLE phoenix.agents DROP COLUMN made_by_hand")


def test_a_restart_owed_by_an_earlier_run_is_made_good(phoenix: Phoenix, vps1: Host) -> None:
    """The file was written, the run died before the restart: the next run sees no change in the file and restarts all the same."""
    before = starts(vps1)
    vps1.check_output("touch /etc/default/prometheus-node-exporter")
    deploy(phoenix, "vps1")
    changed = {unit for unit, shown in starts(vps1).items() if before[unit] != shown}
    assert changed == {"Id=prometheus-node-exporter.service"}


def test_a_parameter_restarts_the_server_once_where_it_has_to_and_is_reloaded_where_that_is_enough(
    phoenix: Phoenix, psql: Callable[..., str], tmp_path: Path
) -> None:
    def deployed(settings: str) -> None:
        inventory = changed_inventory(tmp_path, '"postgresql_version": 17', f'"postgresql_version": 17, {settings}')
        done = command("-i", str(inventory), "deploy", *CLUSTER)
        assert done.returncode == 0, done.stderr

    start = psql(START)
    deployed('"postgresql_max_connections": 190')
    assert psql("SHOW max_connections") == "190"
    restarted = psql(START)
    assert restarted != start

    # A standby takes a lower value only after it has replayed the leader's: that one may still have to be restarted here.
    deployed('"postgresql_max_connections": 190, "postgresql_parameters": {"log_temp_files": "33MB"}')
    assert (psql("SHOW log_temp_files"), psql(START)) == ("33MB", restarted)

    deploy(phoenix, *CLUSTER)
    assert (psql("SHOW max_connections"), psql("SHOW log_temp_files")) == ("200", "32MB")


def test_a_full_disk_refuses_the_deploy_and_leaves_the_host_as_it_was(phoenix: Phoenix, vps1: Host, tmp_path: Path) -> None:
    before = starts(vps1)
    inventory = changed_inventory(tmp_path, '"host_memory_mb": 4096', '"host_memory_mb": 4096, "host_min_free_mb": 100_000_000')
    refused = command("-i", str(inventory), "deploy")
    assert refused.returncode != 0
    assert "MB of disk left" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert starts(vps1) == before


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"postgresql_version": 17', '"postgresql_version": 15', "postgresql_version"),
        ('"postgresql_version": 17', '"postgresql_version": "17"', "postgresql_version"),
        ('"postgresql_version": 17', '"postgresql_versoin": 17', "did you mean postgresql_version"),
        ('"host_address": _ADDRESSES[name]', '"host_address": "not an address"', "host_address"),
        (
            '"monitoring_scrape_interval_s": 5',
            '"monitoring_scrape_interval_s": 5, "monitoring_retention_days": 0',
            "monitoring_retention_days",
        ),
        ("str(_LAB.paths.secrets)", 'str(_LAB.paths.state / "no-secrets.yaml")', "no-secrets.yaml does not exist"),
    ],
)
def test_a_bad_setting_is_refused_in_a_sentence_before_any_host_is_touched(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    refused = command("-i", str(changed_inventory(tmp_path, old, new)), "deploy")
    assert refused.returncode == 2
    assert complaint in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"postgresql_version": 17', '"postgresql_version": 16', "put postgresql_version and"),
        (
            '"postgresql_cluster_name": "region2"',
            '"postgresql_cluster_name": "other"',
            "has data in /var/lib/postgresql/17/region2",
        ),
        (
            """"webhook": {"url": f"http://{_ADDRESSES['world']}:9099/"},""",
            '"email": {"to": ["a@b.org"], "sender": "c@b.org", "smarthost": "d:25", "username": "e", "password_secret": "smtp/x"},',
            "has no secret 'smtp/x'",
        ),
    ],
)
def test_what_would_lose_data_or_stop_half_way_is_refused_before_anything_changes(
    vps1: Host, tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    written = "find /etc -newermt '-1 day' -type f -printf '%%p %%T@\\n' | sort | sha256sum"
    before = vps1.check_output(written)
    refused = command("-i", str(changed_inventory(tmp_path, old, new)), "deploy")
    assert refused.returncode == 2, refused.stderr
    assert complaint in refused.stderr
    assert "Traceback" not in refused.stderr
    assert vps1.check_output(written) == before


def test_an_unknown_host_is_refused(phoenix: Phoenix) -> None:
    refused = phoenix("deploy", "vps9")
    assert refused.returncode == 2
    assert "vps9" in refused.stderr
    assert "vps1" in refused.stderr


def test_a_host_without_network_is_named(tmp_path: Path) -> None:
    inventory = changed_inventory(
        tmp_path, '"ssh_hostname": _ADDRESSES[name]', '"ssh_hostname": "127.0.0.9" if name == "world" else _ADDRESSES[name]'
    )
    failed = command("-i", str(inventory), "deploy")
    assert failed.returncode == 2, "nothing was touched"
    assert "world" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_host_that_reaches_no_package_source_says_so(phoenix: Phoenix, world: Host) -> None:
    route = world.check_output("ip route show default")
    world.check_output("apt-get -qq -y remove unattended-upgrades >/dev/null 2>&1; apt-get clean; ip route del default")
    try:
        failed = phoenix("deploy", "world")
    finally:
        world.check_output(f"ip route add {route}")
    assert failed.returncode == 1
    assert "phoenix: world: " in failed.stderr
    assert "Failed to read the package sources of world" in failed.stderr.splitlines()[-1]
    assert deploy(phoenix, "world")["changed"] > 0


def test_two_deploys_at_the_same_time_do_not_mix(platform: Platform) -> None:
    arguments = [sys.executable, "-m", "ops", "-i", str(platform.inventory), "deploy", "--json", "world"]
    runs = [subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    results = [run.communicate(timeout=300) for run in runs]
    codes = sorted(run.returncode for run in runs)
    assert codes == [0, 2], results
    refused = next(stderr for run, (_, stderr) in zip(runs, results, strict=True) if run.returncode == 2)
    assert "another" in refused.lower()


def test_plain_pyinfra_does_the_same(platform: Platform) -> None:
    """The command adds comfort, no magic."""
    pyinfra = shutil.which("pyinfra", path=str(Path(sys.executable).parent))
    assert pyinfra is not None
    done = subprocess.run(
        [pyinfra, str(platform.inventory), "deploys/site.py", "-y", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"]


def test_verify_says_how_many_promises_it_found_kept(phoenix: Phoenix) -> None:
    done = phoenix("verify", "--json", "-k", "test_tls")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["ok"]
    assert (said["passed"] > 0, said["failed"]) == (True, 0)
    refused = phoenix("verify", "-k", "no_such_promise")
    assert refused.returncode == 1
    assert "no test matches 'no_such_promise'" in refused.stderr


def changed_inventory(directory: Path, old: str, new: str) -> Path:
    """A copy of the lab's inventory in which `old` is `new`."""
    text = (ROOT / "inventory" / "lab.py").read_text()
    assert old in text
    path = directory / "lab.py"
    path.write_text(text.replace(old, new))
    return path


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ops", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
