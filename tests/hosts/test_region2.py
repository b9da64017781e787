"""The second region: its copy is the platform's rows, whole and soon, without what stays at home; nobody else writes it, and it
survives the platform's failovers. Both servers are asked by psql."""

from __future__ import annotations

import json
import shlex
import statistics
import subprocess
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from testinfra.host import Host

from deploys.lib import region2
from deploys.lib.secrets import SecretStore
from deploys.lib.settings import HostSettings, Platform, Region2Settings
from tests.hosts.conftest import CA, Tell, slots_ready
from tests.waiting import wait_until

AT_HOME = ("email_encrypted", "email_hash", "email_key_id", "linkedin_url")
"""Columns of personas that reach a person."""

COMPANY = "INSERT INTO phoenix.food_companies (id, name) VALUES ('{id}', '{name}')"

Ask = Callable[[str], str]
WithPassword = Callable[[str], subprocess.CompletedProcess[str]]


def ask_on(host: Host) -> Ask:
    """psql as the superuser on `host`."""

    def ask(sql: str) -> str:
        done = host.run("cd / && runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d phoenix -c %s", sql)
        assert done.succeeded, done.stderr
        return done.stdout.strip()

    return ask


@pytest.fixture(scope="module", autouse=True)
def _second_region(platform: Platform) -> None:
    if not platform.group("region2"):
        pytest.skip("this inventory has no second region")


@pytest.fixture(scope="module")
def copy_host(on: Callable[[str], Host], platform: Platform) -> Host:
    return on(platform.group("region2")[0].name)


@pytest.fixture(scope="module")
def copy(copy_host: Host) -> Ask:
    """psql on the copy."""
    return ask_on(copy_host)


@pytest.fixture
def with_password(copy_host: Host, tell: Tell, secrets: SecretStore) -> WithPassword:
    """`with_password(script)`: the finished script on the copy's host, with architect's password on stdin."""
    return lambda script: tell(copy_host.backend.get_hostname(), script, f"{secrets.get('postgresql/architect')}\n")


@pytest.fixture(scope="module")
def tables(platform: Platform) -> dict[str, list[str]]:
    return platform.group("region2")[0][Region2Settings].tables


@pytest.fixture
def arrived(psql: Ask, copy: Ask) -> Callable[[], None]:
    """`arrived()` waits until the copy has all that was committed before: commits keep their order, and a row behind them has come."""

    def wait() -> None:
        row = str(uuid.uuid4())
        here = f"SELECT count(*) FROM phoenix.food_companies WHERE id = '{row}'"
        psql(COMPANY.format(id=row, name="barrier"))
        try:
            wait_until(lambda: copy(here) == "1", 90, "the barrier arrives", every_s=0.3)
        finally:
            psql(f"DELETE FROM phoenix.food_companies WHERE id = '{row}'")
        wait_until(lambda: copy(here) == "0", 90, "the barrier is gone", every_s=0.3)
        copying = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'"
        wait_until(lambda: copy(copying) == "0", 90, "every table is ready", every_s=0.3)

    return wait


@pytest.fixture
def companies(psql: Ask) -> Iterator[Callable[[], str]]:
    """`companies()` writes a company at home and gives its id; all are gone after the test."""
    mark = f"region2-test-{uuid.uuid4()}"

    def write() -> str:
        made = str(uuid.uuid4())
        psql(COMPANY.format(id=made, name=mark))
        return made

    yield write
    psql(f"DELETE FROM phoenix.food_companies WHERE name = '{mark}'")


def fingerprints(ask: Ask, tables: dict[str, list[str]]) -> dict[str, str]:
    """Rows and a hash over all of them, of each copied table, in the columns that are copied."""
    parts = []
    for table, columns in tables.items():
        row = f"ROW({', '.join(columns)})" if columns else "t"
        hashes = f"SELECT md5({row}::text) AS r FROM phoenix.{table} t"
        both = f"SELECT count(*) || ' ' || coalesce(md5(string_agg(r, ',' ORDER BY r)), '') FROM ({hashes}) h"
        parts.append(f"SELECT '{table}' AS name, ({both}) AS print")
    return dict(json.loads(ask(f"SELECT json_object_agg(name, print) FROM ({' UNION ALL '.join(parts)}) AS p")))


def await_same(psql: Ask, copy: Ask, tables: dict[str, list[str]]) -> None:
    """Wait until both sides have the same rows: agents and workflows may be writing meanwhile."""
    wait_until(lambda: fingerprints(psql, tables) == fingerprints(copy, tables), 60, "both sides have the same rows", every_s=0.3)


def errors(copy: Ask) -> int:
    return int(copy("SELECT apply_error_count + sync_error_count FROM pg_stat_subscription_stats WHERE subname = 'region2'"))


def test_every_declared_table_is_here_row_for_row(psql: Ask, copy: Ask, tables: dict[str, list[str]], arrived: Callable[[], None]) -> None:
    subscribed = copy("SELECT string_agg(relname, ',') FROM pg_subscription_rel JOIN pg_class c ON c.oid = srrelid").split(",")
    assert sorted(subscribed) == sorted(tables)
    arrived()
    await_same(psql, copy, tables)


def test_what_is_the_platforms_is_said_by_its_leader_alone(prometheus: Any, leader: Callable[[], Host], platform: Platform) -> None:
    name = leader().check_output("hostname")
    for metric in ("phoenix_personas_total", "phoenix_tasks_created_total", "phoenix_agents_active", "phoenix_pipeline_value_total"):
        wait_until(lambda metric=metric: [one["metric"]["host"] for one in prometheus.query(metric)] == [name], 30, metric, every_s=0.3)
    copies = {host.name for host in platform.group("region2")}
    assert {one["metric"]["host"] for one in prometheus.query("phoenix_subscription_up == 1")} <= copies
    assert prometheus.value("count(phoenix_subscription_up == 1)") == 1


def test_the_slot_is_ready_on_the_standby_for_a_failover(prometheus: Any, standby: Host, platform: Platform) -> None:
    assert "region2" in region2.failover_slots(platform)
    wait_until(lambda: slots(standby)["region2"] == "t|f||t", 120, "the standby has the slot", every_s=0.3)
    assert json.loads(ask_on(standby)(region2.slots_ready(["region2", "no_such_slot"]))) == [
        {"slot": "no_such_slot", "ready": False, "why": "is not on this server"},
        {"slot": "region2", "ready": True, "why": ""},
    ]
    name = standby.check_output("hostname")
    ready = f'phoenix_replication_slot_ready{{slot="region2",host="{name}"}} == 1'
    wait_until(lambda: prometheus.query(ready), 90, "the metric says so", every_s=0.3)


def slots(standby: Host) -> dict[str, str]:
    """Of each logical slot: synced|temporary|invalidation_reason|failover."""
    asked = "SELECT slot_name, synced, temporary, invalidation_reason, failover FROM pg_replication_slots WHERE slot_type = 'logical'"
    return dict(line.split("|", 1) for line in ask_on(standby)(asked).splitlines())


@pytest.fixture
def standby(on: Callable[[str], Host], leader: Callable[[], Host], platform: Platform) -> Host:
    """The member of the platform's cluster that does not lead."""
    leads = leader().check_output("hostname")
    names = [one.name for one in platform.group("postgresql") if "region2" not in one.groups and one.name != leads]
    if not names:
        pytest.skip("the platform's cluster has no standby")
    return on(names[0])


@pytest.mark.parametrize("role", ["postgres", "architect"])
def test_nobody_writes_the_copy(copy_host: Host, role: str) -> None:
    for sql in (
        "INSERT INTO phoenix.agents (codename, team, role, consciousness_vector) VALUES ('here', 'iota', 'scout', '{}')",
        "INSERT INTO phoenix.personas_default (id, fingerprint, name, created_at) "
        "VALUES (gen_random_uuid(), repeat('0', 64), 'x', '1990-01-01')",
        "TRUNCATE phoenix.task_votes",
    ):
        done = copy_host.run(f"cd / && PGOPTIONS='-c role={role}' runuser -u postgres -- psql -Xd phoenix -c %s", sql)
        assert done.rc == 1
        assert "is a copy: its rows come from the platform's cluster" in done.stderr, done.stderr


def test_what_a_migration_does_to_rows_is_left_to_the_publisher(copy: Ask, psql: Ask) -> None:
    rows = "SELECT count(*) FROM phoenix.food_companies"
    copy("SET phoenix.migrating = on; INSERT INTO phoenix.food_companies (name) VALUES ('from a migration')")
    assert copy(f"{rows} WHERE name = 'from a migration'") == "0"


def test_the_subscribers_password_is_in_no_catalogue(copy_host: Host, copy: Ask, secrets: SecretStore) -> None:
    assert "passfile=" in copy("SELECT subconninfo FROM pg_subscription")
    assert secrets.get("postgresql/subscriber") not in copy("SELECT subconninfo FROM pg_subscription")
    assert copy_host.file(region2.PASSFILE).mode == 0o600


def test_the_subscribers_login_reads_what_is_copied_and_no_more(copy_host: Host, leader: Callable[[], Host], copy: Ask) -> None:
    conninfo = copy("SELECT subconninfo FROM pg_subscription").replace("connect_timeout=5", "connect_timeout=30")

    def read(sql: str) -> Any:
        return copy_host.run("cd / && runuser -u postgres -- psql -XAtqd %s -c %s", conninfo, sql)

    assert read("SELECT count(id) FROM phoenix.personas").succeeded
    assert read("SELECT count(*) FROM phoenix.tasks").succeeded
    for sql in (
        *(f"SELECT {column} FROM phoenix.personas" for column in AT_HOME),
        "SELECT * FROM phoenix.consciousness_timeline",
        "SELECT * FROM phoenix.metrics_overview",
        "DELETE FROM phoenix.tasks",
        "CREATE TABLE phoenix.mine ()",
    ):
        assert "permission denied" in read(sql).stderr, sql
    # With the right to replicate it could decode every table: from elsewhere it does not even get to show its password.
    refused = leader().run(f"psql 'host=127.0.0.1 dbname=phoenix user=subscriber sslmode=verify-full sslrootcert={CA}' -c 'SELECT 1'")
    assert "pg_hba.conf rejects connection" in refused.stderr


# Runs on the copy's host as postgres, password of architect on stdin: writes at home, looks here until the row is seen, by one clock.
LATENCY = """
import json, sys, time, psycopg2
home = psycopg2.connect(sys.argv[1] + " password=" + sys.stdin.readline().strip())
here = psycopg2.connect("dbname=phoenix")
home.autocommit = here.autocommit = True
write, look, seconds = home.cursor(), here.cursor(), []
for number in range(30):
    name = sys.argv[2] + str(number)
    write.execute("INSERT INTO phoenix.food_companies (name) VALUES (%s)", [name])
    committed = time.monotonic()
    while True:
        look.execute("SELECT count(*) FROM phoenix.food_companies WHERE lower(name) = lower(%s)", [name])
        if look.fetchone()[0] or time.monotonic() - committed > 30:
            break
    seconds.append(time.monotonic() - committed)
print(json.dumps(seconds))
"""


def of_architect(platform: Platform) -> str:
    """libpq's words for the server that takes the platform's writes, but for the password."""
    members = [host[HostSettings].address for host in platform.group("postgresql") if "region2" not in host.groups]
    return (
        f"host={','.join(members)} dbname=phoenix user=architect target_session_attrs=primary connect_timeout=2 "
        f"sslmode=verify-full sslrootcert={CA}"
    )


@pytest.mark.changes
def test_a_write_arrives_soon(platform: Platform, psql: Ask, arrived: Callable[[], None], with_password: WithPassword) -> None:
    """From the commit's being acknowledged at home to the row's being read in the second region."""
    arrived()
    mark = f"latency-{uuid.uuid4()}-"
    try:
        program = shlex.join(["runuser", "-u", "postgres", "--", "python3", "-c", LATENCY, of_architect(platform), mark])
        done = with_password(f"cd / && {program}")
        assert done.returncode == 0, done.stderr
        seconds = sorted(json.loads(done.stdout))
        print(f"acknowledged to readable: median {statistics.median(seconds) * 1000:.0f} ms, worst {seconds[-1] * 1000:.0f} ms")
        assert statistics.median(seconds) < 2
    finally:
        psql(f"DELETE FROM phoenix.food_companies WHERE name LIKE '{mark}%'")


@pytest.mark.changes
def test_what_reaches_a_person_stays_at_home(psql: Ask, copy: Ask, arrived: Callable[[], None]) -> None:
    person = str(uuid.uuid4())
    psql(
        "INSERT INTO phoenix.personas (id, fingerprint, name, linkedin_url, email_encrypted, email_hash, email_key_id) VALUES "
        f"('{person}', encode(sha256('{person}'), 'hex'), 'Probe', 'https://example.org/in/probe', decode(repeat('01', 40), 'hex'), "
        "decode(repeat('ab', 32), 'hex'), 1)"
    )
    try:
        arrived()
        row = f"FROM phoenix.personas WHERE id = '{person}'"
        assert copy(f"SELECT name {row}") == "Probe"
        for column in AT_HOME:
            assert psql(f"SELECT {column} IS NOT NULL {row}") == "t"
            assert copy(f"SELECT {column} IS NULL {row}") == "t"
        psql(f"UPDATE phoenix.personas SET trust_score = 0.75 WHERE id = '{person}'")
        arrived()
        assert copy(f"SELECT trust_score, email_hash IS NULL {row}") == "0.75|t"
    finally:
        psql(f"DELETE FROM phoenix.personas WHERE id = '{person}'")
    arrived()
    assert copy(f"SELECT count(*) FROM phoenix.persona_registry WHERE id = '{person}'") == "0"


@pytest.mark.changes
def test_the_copys_own_jobs_leave_its_rows_alone(psql: Ask, copy: Ask, tables: dict[str, list[str]], arrived: Callable[[], None]) -> None:
    arrived()
    before = (fingerprints(copy, tables), errors(copy))
    for command in copy("SELECT command FROM cron.job WHERE active").splitlines():
        copy(f"SET ROLE architect; {command}" if "job_run_details" not in command else command)
    arrived()
    assert (fingerprints(copy, tables), errors(copy)) == before


@pytest.mark.changes
def test_a_conflict_is_counted_and_resolved_by_hand(
    psql: Ask, copy: Ask, copy_host: Host, arrived: Callable[[], None], prometheus: Any
) -> None:
    """docs/runbooks/SubscriptionErrors.md, both ways: removing the row that stands in the way, and skipping the publisher's transaction."""
    counter = 'sum(phoenix_subscription_errors_total{kind="apply"})'
    for resolve in ("remove", "skip"):
        arrived()
        row = str(uuid.uuid4())
        before, seen = errors(copy), prometheus.value(counter)
        copy("SET session_replication_role = replica; " + COMPANY.format(id=row, name="written here"))
        psql(COMPANY.format(id=row, name="written at home"))
        wait_until(lambda before=before: errors(copy) >= before + 2, 60, "the error is counted", every_s=0.3)
        wait_until(lambda seen=seen: prometheus.value(counter) >= seen + 2, 60, "the metric says so", every_s=0.3)
        assert copy(f"SELECT name FROM phoenix.food_companies WHERE id = '{row}'") == "written here"
        if resolve == "remove":
            copy(f"SET session_replication_role = replica; DELETE FROM phoenix.food_companies WHERE id = '{row}'")
        else:
            context = copy_host.check_output("journalctl -u patroni -o cat --no-pager -n 400 | grep 'finished at' | tail -n 1")
            position = context.split("finished at ")[1].split()[0].strip(",")
            copy(f"ALTER SUBSCRIPTION region2 SKIP (lsn = '{position}')")
        arrived()
        wanted = "written at home" if resolve == "remove" else "written here"
        assert copy(f"SELECT name FROM phoenix.food_companies WHERE id = '{row}'") == wanted
        psql(f"DELETE FROM phoenix.food_companies WHERE id = '{row}'")
        arrived()
        assert copy(f"SELECT count(*) FROM phoenix.food_companies WHERE id = '{row}'") == "0"


@pytest.mark.changes
def test_what_was_changed_by_hand_is_named_and_put_back(
    phoenix: Callable[..., subprocess.CompletedProcess[str]],
    psql: Ask,
    copy: Ask,
    tables: dict[str, list[str]],
    arrived: Callable[[], None],
) -> None:
    arrived()
    psql("ALTER PUBLICATION region2 SET (publish = 'insert')")
    psql("GRANT SELECT ON phoenix.personas TO subscriber; REVOKE SELECT ON phoenix.tasks FROM subscriber")
    psql("ALTER ROLE subscriber NOBYPASSRLS")
    copy("ALTER SUBSCRIPTION region2 SET (disable_on_error = true)")
    copy("ALTER SUBSCRIPTION region2 DISABLE")
    copy("DROP TRIGGER region2_copy ON phoenix.agents")

    named = phoenix("drift")

    assert named.returncode == 3, named.stdout + named.stderr
    for words in (
        "publication region2 has other options",
        "subscriber has other rights on personas",
        "subscriber has other rights on tasks",
        "role subscriber: has other attributes",
        "subscription region2: disable_on_error differs",
        "subscription region2 is disabled",
        "agents may be written by anybody",
    ):
        assert words in named.stdout, f"{words} is not in {named.stdout}"
    done = phoenix("deploy", "--json")
    assert done.returncode == 0, done.stderr
    arrived()
    assert copy("SELECT subenabled AND NOT subdisableonerr FROM pg_subscription") == "t"
    assert psql("SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate FROM pg_publication WHERE pubname = 'region2'") == "t"
    assert copy("SELECT count(*) FROM pg_trigger WHERE tgname = 'region2_copy' AND tgrelid = 'phoenix.agents'::regclass") == "1"
    await_same(psql, copy, tables)


@pytest.mark.changes
def test_columns_and_tables_come_and_go_by_phase(psql: Ask, copy: Ask, arrived: Callable[[], None], companies: Callable[[], str]) -> None:
    """What a migration does, in the order in which a deploy lets both sides do it: more on the copy first, less on the platform first."""
    arrived()
    before = errors(copy)
    migration = "SET phoenix.migrating = on; SET ROLE phoenix_owner; ALTER TABLE phoenix.food_companies "
    for ask in (copy, psql):
        ask(f"{migration} ADD COLUMN region2_probe text")
    try:
        row = companies()
        psql(f"UPDATE phoenix.food_companies SET region2_probe = 'new' WHERE id = '{row}'")
        arrived()
        assert copy(f"SELECT region2_probe FROM phoenix.food_companies WHERE id = '{row}'") == "new"
    finally:
        for ask in (psql, copy):
            ask(f"{migration} DROP COLUMN region2_probe")
    row = companies()
    arrived()
    assert copy(f"SELECT count(*) FROM phoenix.food_companies WHERE id = '{row}'") == "1"
    assert errors(copy) == before


WRITER = r"""
read -r PGPASSWORD && export PGPASSWORD
touch LEDGER; end=$(($(date +%s) + 600)); i=0
while test -e LEDGER && test ! -e LEDGER.stop && test $(date +%s) -lt $end; do
    i=$((i + 1))
    timeout 5 psql -XAtq "CONNINFO" -c "INSERT INTO phoenix.food_companies (name) VALUES ('MARK-$i')" >/dev/null 2>&1 && echo $i >>LEDGER
    sleep 0.02
done
echo end >>LEDGER
"""


@pytest.mark.changes
@pytest.mark.slow
def test_a_failover_loses_no_row_and_needs_no_hand(
    *,
    on: Callable[[str], Host],
    leader: Callable[[], Host],
    platform: Platform,
    copy_host: Host,
    copy: Ask,
    psql: Ask,
    with_password: WithPassword,
    arrived: Callable[[], None],
    tables: dict[str, list[str]],
    vps1_leads: None,
) -> None:
    """A writer outside notes every acknowledged row, while the platform's leader hands over and its successor's server is killed."""
    arrived()
    subscription = copy("SELECT oid FROM pg_subscription")
    mark, ledger = f"ledger-{uuid.uuid4()}", f"/run/phoenix-ledger-{uuid.uuid4()}"
    members = [host for host in platform.group("postgresql") if "region2" not in host.groups]
    conninfo = of_architect(platform)
    script = WRITER.replace("CONNINFO", conninfo).replace("MARK", mark).replace("LEDGER", ledger)
    # What is put into the background has no stdin of its own.
    started = f'read -r password && {{ printf "%s\\n" "$password" | setsid nohup sh -c {shlex.quote(script)} >/dev/null 2>&1 & }}'
    assert with_password(started).returncode == 0

    def noted() -> list[str]:
        return copy_host.run(f"cat {ledger}").stdout.split()

    def ready() -> bool:
        names = [host.name for host in members if host.name != leader().check_output("hostname")]
        return all(slots_ready(on(name), ["region2"]) for name in names)

    try:
        wait_until(lambda: len(noted()) > 5, 60, "the writer writes", every_s=0.3)
        first = leader().check_output("hostname")
        second = next(host.name for host in members if host.name != first)
        wait_until(ready, 120, "the slot is on the standby", every_s=0.3)
        on(first).check_output(f"patronictl -c /etc/patroni/config.yml switchover phoenix --candidate {second} --force")
        wait_until(lambda: leader().check_output("hostname") == second, 60, "the other one leads", every_s=0.3)
        count = len(noted())
        wait_until(lambda: len(noted()) > count + 5, 120, "writing goes on", every_s=0.3)
        wait_until(ready, 120, "the old leader has the slot, as the new one's", every_s=0.3)
        on(second).check_output("kill -9 $(head -1 /var/lib/postgresql/*/phoenix/postmaster.pid)")
        count = len(noted())
        wait_until(lambda: len(noted()) > count + 5, 120, "writing goes on", every_s=0.3)
        copy_host.check_output(f"touch {ledger}.stop")
        wait_until(lambda: noted()[-1:] == ["end"], 30, "the writer ends", every_s=0.3)
        acknowledged = {f"{mark}-{number}" for number in noted()[:-1]}
        following = "SELECT count(*) FROM pg_stat_subscription WHERE pid > 0 AND relid IS NULL"
        wait_until(lambda: copy(following) == "1", 90, "the copy follows", every_s=0.3)
        arrived()
        here = set(copy(f"SELECT name FROM phoenix.food_companies WHERE name LIKE '{mark}-%'").splitlines())
        home = set(psql(f"SELECT name FROM phoenix.food_companies WHERE name LIKE '{mark}-%'").splitlines())
        lost, different = len(acknowledged - here), len(here ^ home)
        print(f"{len(acknowledged)} rows acknowledged, {lost} lost in the second region, {different} different from home")
        assert acknowledged <= here
        assert here == home
        assert copy("SELECT oid FROM pg_subscription") == subscription
        await_same(psql, copy, tables)
    finally:
        copy_host.run(f"rm -f {ledger} {ledger}.stop")
        psql(f"DELETE FROM phoenix.food_companies WHERE name LIKE '{mark}-%'")
