"""PostgreSQL and what runs it: answers over TLS with scram, checks its pages, is sized for the host, survives its own death."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from testinfra.host import Host

from deploys.lib.settings import HostSettings, Platform, PostgresqlSettings
from tests.hosts.conftest import CA, CERTIFICATE, KEY

# psql reads the rows of COPY FROM STDIN behind the statement; in a transaction that is given up, so that nothing stays.
COPY_ONE_ROW = """BEGIN;
COPY phoenix.consciousness_timeline (time, global_consciousness, global_trust) FROM STDIN (DELIMITER ',');
now,100,0.5
\\.
ROLLBACK;
"""

LOGINS = ["architect", "samurai_agent", "monitor", "public_api"]


def test_extensions_are_there_and_at_their_packaged_version(psql: Callable[..., str], platform: Platform) -> None:
    settings = platform.hosts["vps1"][PostgresqlSettings]
    installed = psql("SELECT name FROM pg_available_extensions WHERE installed_version = default_version").splitlines()
    assert set(settings.extensions) <= set(installed)


def test_extensions_work(psql: Callable[..., str]) -> None:
    assert psql("SELECT '[1,0]'::vector <-> '[0,1]'::vector")[:6] == "1.4142"
    assert psql("SELECT encode(digest('abc', 'sha256'), 'hex')").startswith("ba7816bf8f01cfea")
    assert psql("SELECT time_bucket('1 hour', '2025-10-01 12:34+00'::timestamptz) = '2025-10-01 12:00+00'") == "t"
    assert int(psql("SELECT count(*) FROM cron.job WHERE active")) > 0
    assert psql("SELECT bt_index_check('pg_class_oid_index'::regclass)") == ""


def test_data_checksums_are_on(psql: Callable[..., str]) -> None:
    assert psql("SHOW data_checksums") == "on"


def test_nothing_waits_for_a_restart_and_every_setting_took(psql: Callable[..., str]) -> None:
    assert psql("SELECT string_agg(name, ',') FROM pg_settings WHERE pending_restart") == ""
    assert psql("SELECT string_agg(name, ',') FROM pg_file_settings WHERE error IS NOT NULL") == ""


def test_memory_fits_the_host(vps1: Host, platform: Platform) -> None:
    budget_mb = (platform.hosts["vps1"][HostSettings].memory_mb or 0) * platform.hosts["vps1"][PostgresqlSettings].memory_share
    asked = "SELECT setting::int / 128 FROM pg_settings WHERE name = 'shared_buffers'"
    shared_mb = int(vps1.check_output("cd / && runuser -u postgres -- psql -XAtqc %s", asked))
    assert 0.2 * budget_mb <= shared_mb <= 0.3 * budget_mb


@pytest.mark.parametrize("login", LOGINS)
def test_logins_work_over_tls_with_scram(psql_as: Callable[..., Any], login: str) -> None:
    answer = psql_as(login, "SELECT current_user, ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    assert answer.stdout.strip().startswith(f"{login}|t|TLSv1."), answer.stderr


def test_without_tls_nobody_gets_in(psql_as: Callable[..., Any]) -> None:
    refused = psql_as("monitor", "SELECT 1", sslmode="disable")
    assert refused.returncode == 2
    assert "no pg_hba.conf entry" in refused.stderr
    assert "no encryption" in refused.stderr


def test_the_superuser_cannot_come_over_the_network(vps1: Host) -> None:
    refused = vps1.run("psql 'host=127.0.0.1 dbname=postgres user=postgres sslmode=require' -c 'SELECT 1'")
    assert refused.rc == 2
    assert "pg_hba.conf rejects connection" in refused.stderr


def test_passwords_are_stored_as_scram_and_the_superuser_has_none(psql: Callable[..., str]) -> None:
    assert (
        psql("SELECT count(*) FROM pg_authid WHERE rolcanlogin AND rolname <> 'postgres' AND rolpassword NOT LIKE 'SCRAM-SHA-256$%'") == "0"
    )
    assert psql("SELECT count(*) FROM pg_authid WHERE rolname = 'postgres' AND rolpassword IS NOT NULL") == "0"


def test_the_cluster_has_a_leader_under_patroni(vps1: Host) -> None:
    listed = vps1.check_output("patronictl -c /etc/patroni/config.yml list -f json")
    assert '"Role": "Leader"' in listed
    assert '"State": "running"' in listed


@pytest.mark.changes
def test_a_killed_server_without_a_standby_is_back_by_itself(on: Callable[[str], Host]) -> None:
    """The second region's cluster has one member; what happens to the platform's is in tests/drills."""
    vps3, started = on("vps3"), "cd / && runuser -u postgres -- psql -XAtqc 'SELECT pg_postmaster_start_time()'"
    before = vps3.check_output(started)
    vps3.check_output("kill -9 $(head -1 /var/lib/postgresql/*/region2/postmaster.pid)")
    writable = "runuser -u postgres -- psql -XAtqc 'SELECT NOT pg_is_in_recovery()' 2>/dev/null | grep -q t"
    vps3.check_output(f"cd /; sleep 1; for i in $(seq 120); do {writable} && exit 0; sleep 0.5; done; exit 1")
    assert vps3.check_output(started) != before


def test_etcd_knows_the_leader_and_keeps_its_history_short(vps1: Host) -> None:
    client = f"ETCDCTL_API=3 etcdctl --endpoints https://127.0.0.1:2379 --cacert {CA} --cert {CERTIFICATE} --key {KEY}"
    assert vps1.check_output(f"{client} get --print-value-only /phoenix/phoenix/leader") in ("vps1", "vps2")
    assert '"dbSize"' in vps1.check_output(f"{client} endpoint status -w json")


def test_a_query_is_seen_by_name_and_without_its_values(psql: Callable[..., str], vps1: Host) -> None:
    psql("SELECT 'phoenix-literal-4711'")
    seen = psql("SELECT count(*) FROM pg_stat_statements WHERE query LIKE '%phoenix-literal-4711%'")
    assert seen == "0"


@pytest.mark.changes
def test_an_agent_that_copies_into_the_timeline_does_not_end_the_server(psql_as: Callable[..., Any], psql: Callable[..., str]) -> None:
    """TimescaleDB and a pgaudit that logs do not get on (docs/decisions/0106): every process of the server would start anew."""
    started = "SELECT backend_start FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
    before = psql(started)
    copied = psql_as("samurai_agent", COPY_ONE_ROW)
    assert copied.returncode == 0, copied.stderr
    assert psql(started) == before


def test_psql_of_the_command_reaches_the_leader(phoenix: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    answer = phoenix("psql", "--", "-XAtc", "SELECT current_database()")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "phoenix"
