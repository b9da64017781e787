"""The restore drill on real hosts: it proves what it says, notices every kind of damage, and leaves nothing behind.

Damage is done by a program that stands in for pgbackrest, calls the real one and then replaces a page: bytes flipped under a checksum that
no longer fits, a row or a value changed under one that fits (PostgreSQL itself computes it). What the drill counted psql counts again.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from testinfra.host import Host

from deploys.lib.settings import DrillSettings, HostSettings, Platform
from tests.hosts.conftest import Prometheus
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PROGRAM = "/usr/local/lib/phoenix/drill.py"
DROP_IN = "/run/systemd/system/phoenix-drill.service.d/test.conf"
CONFIG = "/etc/phoenix-drill/config.json"
PROBE = "drill_probe"
SPOILT, PAGE = "/usr/local/lib/phoenix/spoilt-pgbackrest", "/usr/local/lib/phoenix/spoilt-page"
ROWS = 5000

# Stands in for pgbackrest: after a restore one page of the probe's table is another.
STAND_IN = """#!/bin/sh
/usr/bin/pgbackrest "$@" || exit
for word; do
    case $word in
        --pg1-path=*) data=${word#*=} ;;
        restore) dd conv=notrunc bs=8192 seek=1 count=1 status=none if=%(page)s of="$data/%(path)s" ;;
    esac
done
"""


@dataclass
class Driller:
    """The host that drills."""

    host: Host
    directory: str

    def drill(self) -> dict[str, Any]:
        """Drill once. Returns the receipt, with the exit code as `code`."""
        done = self.host.run(f"{PROGRAM} --json")
        return {**json.loads(done.stdout), "code": done.rc}

    def left(self) -> str:
        """Processes of the drill's user, and what its directory has beside receipts."""
        return str(
            self.host.check_output(
                f"ps -o pid=,args= -u phoenix-drill || true; ls -A {self.directory} | "
                "grep -vxE 'receipts|receipt.json|receipt.md|success.json|phoenix_drill.prom|lock' || true"
            )
        )

    def metric(self, name: str) -> float:
        """A value of the node exporter's text file."""
        text = self.host.file("/var/lib/prometheus/node-exporter/phoenix_drill.prom").content_string
        (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
        return float(line.split(" ")[1])


@pytest.fixture(scope="module")
def driller(on: Callable[[str], Host], platform: Platform) -> Driller:
    (member, *_) = platform.group("drill")
    return Driller(on(member.name), member[DrillSettings].directory)


@pytest.fixture(scope="module")
def passed(driller: Driller) -> dict[str, Any]:
    """The receipt of a drill of the platform as it is."""
    return driller.drill()


@pytest.fixture
def changed(driller: Driller) -> Iterator[Callable[..., None]]:
    """`changed(pgbackrest="...")`: the unit drills with other settings until the test ends."""

    def change(environment: str = "", **settings: Any) -> None:
        values = json.loads(driller.host.file(CONFIG).content_string) | settings
        driller.host.check_output("umask 022; printf %s %s >%s", "%s", json.dumps(values), "/run/phoenix-drill-test.json")
        lines = ["[Service]", "ExecStart=", f"ExecStart={PROGRAM} --config /run/phoenix-drill-test.json --in-unit", environment]
        driller.host.check_output("mkdir -p %s && printf '%%s\\n' %s >%s", DROP_IN.rsplit("/", 1)[0], "\n".join(lines), DROP_IN)
        driller.host.check_output("systemctl daemon-reload")

    yield change
    driller.host.check_output(
        f"rm -f {DROP_IN} /run/phoenix-drill-test.json {SPOILT} {PAGE}; systemctl daemon-reload; systemctl reset-failed"
    )


@pytest.fixture(scope="module")
def probe(psql: Callable[..., str], leader: Callable[[], Host]) -> Iterator[str]:
    """A table of known rows that is in the newest backup and was not touched since. Gives its place below the data directory."""
    psql(
        f"DROP TABLE IF EXISTS phoenix.{PROBE}; CREATE TABLE phoenix.{PROBE} (id integer NOT NULL, words text NOT NULL);"
        f"INSERT INTO phoenix.{PROBE} SELECT n, repeat('x', 60) FROM generate_series(1, {ROWS}) n"
    )
    psql(f"VACUUM (FREEZE) phoenix.{PROBE}")
    leader().check_output("python3 -I /usr/local/lib/phoenix/backup.py incr --here")
    psql("CREATE EXTENSION IF NOT EXISTS pageinspect", database="postgres")
    yield psql(f"SELECT pg_relation_filepath('phoenix.{PROBE}')")
    psql("DROP EXTENSION pageinspect", database="postgres")
    psql(f"DROP TABLE phoenix.{PROBE}")


def spoilt(page: bytes, how: str, psql: Callable[..., str]) -> bytes:
    """The second page of a table, after what `how` says has happened to its first row."""
    changed = bytearray(page)
    (first,) = struct.unpack_from("<I", page, 24)
    row = first & 0x7FFF
    if how == "bytes":
        changed[row + 30] ^= 0xFF
        return bytes(changed)
    if how == "row":
        changed[24:28] = bytes(4)  # the pointer to it
    else:
        changed[row + 24] ^= 0x01  # the lowest byte of its number
    checksum = int(psql(f"SELECT page_checksum(decode('{changed.hex()}', 'hex'), 1)", database="postgres"))
    struct.pack_into("<h", changed, 8, checksum)
    return bytes(changed)


@pytest.fixture
def spoil(driller: Driller, changed: Callable[..., None], psql: Callable[..., str], probe: str) -> Callable[[str], None]:
    """`spoil("row")`: from now on a restore brings the probe's table back like that."""

    def arrange(how: str) -> None:
        page = bytes.fromhex(psql(f"SELECT encode(pg_read_binary_file('{probe}', 8192, 8192), 'hex')"))
        write = f"import sys; open({PAGE!r}, 'wb').write(bytes.fromhex(sys.argv[1]))"
        driller.host.check_output("python3 -c %s %s", write, spoilt(page, how, psql).hex())
        driller.host.check_output("printf %s %s >%s && chmod 755 %s", "%s", STAND_IN % {"page": PAGE, "path": probe}, SPOILT, SPOILT)
        changed(pgbackrest=SPOILT)

    return arrange


def test_a_drill_succeeds_and_loses_nothing(passed: dict[str, Any]) -> None:
    assert passed["code"] == 0, passed["error"]
    assert (passed["ok"], passed["error"], passed["lost_rows"]) == (True, None, 0)
    assert [step["name"] for step in passed["steps"] if not step["ok"]] == []
    names = [step["name"] for step in passed["steps"]]
    assert [name for name in names if name in {"restore", "recover", "compare", "amcheck", "checksums"}] == [
        "restore",
        "recover",
        "compare",
        "amcheck",
        "checksums",
    ]


def test_it_is_within_what_is_promised(passed: dict[str, Any]) -> None:
    assert 0 < passed["rpo_seconds"] <= 900
    assert 0 < passed["rto_seconds"] <= 3600
    measured = {step["name"]: step["seconds"] for step in passed["steps"]}
    assert passed["rto_seconds"] == pytest.approx(measured["restore"] + measured["recover"] + measured["promote and write"], abs=0.05)


def test_what_it_counted_is_what_psql_counts(passed: dict[str, Any], psql: Callable[..., str]) -> None:
    """Of tables that nobody writes to: the others may have moved on since."""
    for table in ("phoenix.personas", "phoenix.flyway_schema_history", "phoenix.consciousness_timeline", "phoenix.food_products"):
        assert passed["tables"][table]["restored"]["rows"] == int(psql(f"SELECT count(*) FROM {table}")), table
    everything = psql(
        "SELECT count(*) FROM pg_class c WHERE relnamespace = 'phoenix'::regnamespace AND relkind IN ('r', 'p') AND relpersistence = 'p' "
        "AND NOT relispartition"
    )
    views = psql("SELECT count(*) FROM pg_matviews WHERE schemaname = 'phoenix' AND ispopulated")
    assert len(passed["tables"]) == int(everything) + int(views)


def test_recovery_stopped_where_the_leader_was_asked(passed: dict[str, Any], psql: Callable[..., str]) -> None:
    lsn = passed["lsn"]
    behind = psql(
        f"SELECT '{lsn['replayed']}'::pg_lsn <= '{lsn['witness']}'::pg_lsn AND '{lsn['witness']}'::pg_lsn <= '{lsn['marker']}'::pg_lsn"
    )
    assert behind == "t"


def test_the_slot_is_gone(passed: dict[str, Any], psql: Callable[..., str]) -> None:
    assert passed["ok"]
    assert psql("SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'phoenix_drill%'") == "0"


def test_nothing_is_left_behind(passed: dict[str, Any], driller: Driller) -> None:
    assert passed["ok"]
    assert driller.left() == ""


def test_the_receipt_is_kept_for_programs_and_for_people(passed: dict[str, Any], driller: Driller) -> None:
    assert json.loads(driller.host.file(passed["receipt"]).content_string)["lsn"] == passed["lsn"]
    assert driller.host.file(passed["receipt"].replace(".json", ".md")).contains("passed")


def test_prometheus_has_the_figures(passed: dict[str, Any], prometheus: Prometheus) -> None:
    here = f'{{host="{passed["host"]}"}}'
    until = time.monotonic() + 60
    figures = f"abs(phoenix_drill_rto_seconds{here} - {passed['rto_seconds']}) < 0.01"
    wait_until(lambda: prometheus.query(figures), 60, "the figures of the drill arrive", every_s=2)
    assert prometheus.value(f"phoenix_drill_success{here}") == 1
    assert abs(prometheus.value(f"phoenix_drill_rpo_seconds{here}") - passed["rpo_seconds"]) < 0.01
    # One that an earlier drill set off goes with the next look at the rules.
    firing = 'ALERTS{alertname=~"Drill.*", alertstate="firing"}'
    wait_until(lambda: not prometheus.query(firing), until - time.monotonic(), "no alert is left", every_s=2)


@pytest.mark.changes
@pytest.mark.parametrize(
    ("how", "says"),
    [
        # Read by the comparison, found by the server itself.
        ("bytes", "invalid page in block 1"),
        # With the right checksum: only the comparison with the leader finds these.
        ("row", f"{PROBE} has {ROWS - 1} rows instead of {ROWS}"),
        ("value", f"{PROBE} has other contents in its {ROWS} rows"),
    ],
)
def test_what_does_not_come_back_as_it_was_is_noticed(driller: Driller, spoil: Callable[[str], None], how: str, says: str) -> None:
    before = driller.metric("phoenix_drill_last_success_timestamp_seconds")
    spoil(how)
    receipt = driller.drill()
    assert (receipt["code"], receipt["ok"]) == (1, False)
    assert says in receipt["error"]
    assert receipt["lost_rows"] == {"bytes": None, "row": 1, "value": 0}[how]
    assert driller.left() == ""
    assert driller.metric("phoenix_drill_success") == 0
    assert driller.metric("phoenix_drill_last_success_timestamp_seconds") == before


@pytest.mark.changes
def test_a_drill_that_is_stopped_cleans_up_and_says_so(driller: Driller) -> None:
    driller.host.check_output("systemctl start --no-block phoenix-drill")
    _until(driller, f"test -d {driller.directory}/scratch/data")
    driller.host.run("systemctl stop phoenix-drill")
    assert driller.left() == ""
    receipt = json.loads(driller.host.file(f"{driller.directory}/receipt.json").content_string)
    assert not receipt["ok"]
    assert "told to stop" in receipt["error"]


@pytest.mark.changes
def test_a_drill_that_is_killed_is_cleaned_up_and_noted(driller: Driller) -> None:
    driller.host.check_output("systemctl start --no-block phoenix-drill")
    _until(driller, f"test -d {driller.directory}/scratch/data")
    driller.host.check_output("systemctl kill --kill-whom=main --signal=KILL phoenix-drill")
    _until(driller, "systemctl show -P ActiveState phoenix-drill | grep -qxE 'inactive|failed'")
    assert driller.left() == ""
    assert driller.metric("phoenix_drill_success") == 0
    assert "killed" in json.loads(driller.host.file(f"{driller.directory}/receipt.json").content_string)["error"]


@pytest.mark.changes
def test_what_a_power_cut_leaves_is_removed_by_the_next_drill(driller: Driller) -> None:
    """With the whole unit killed at once nothing of it gets to clean up."""
    driller.host.check_output("systemctl start --no-block phoenix-drill")
    _until(driller, f"test -d {driller.directory}/scratch/data")
    driller.host.check_output("systemctl kill --signal=KILL phoenix-drill")
    _until(driller, "systemctl show -P ActiveState phoenix-drill | grep -qxE 'inactive|failed'")
    killed = json.loads(driller.host.file(f"{driller.directory}/running.json").content_string)["started"]
    receipt = driller.drill()
    assert receipt["ok"], receipt["error"]
    assert driller.left() == ""
    kept = driller.host.check_output(f"grep -l killed {driller.directory}/receipts/*.json | xargs grep -h started")
    assert killed in kept


@pytest.mark.changes
def test_only_one_drill_at_a_time(driller: Driller) -> None:
    second = driller.host.run(f"flock {driller.directory}/lock {PROGRAM} --clean")
    assert second.rc == 2
    assert "A drill runs already" in second.stderr


@pytest.mark.changes
@pytest.mark.parametrize(
    ("settings", "code", "says"),
    [
        ({"hosts": ["127.0.0.2"]}, 1, "gives no witness"),
        ({"user": "nobody_knows"}, 1, "gives no witness (connection failed"),
        ({"stanza": "another"}, 1, "no sound backup of another"),
        ({"min_free_mb": 10**9}, 2, "the drill needs"),
    ],
    ids=["no leader", "login refused", "no backup", "no room"],
)
def test_what_is_missing_is_said_in_one_sentence(
    driller: Driller, changed: Callable[..., None], settings: dict[str, Any], code: int, says: str
) -> None:
    changed(**settings)
    receipt = driller.drill()
    assert receipt["code"] == code, receipt
    assert says in receipt["error"]
    assert receipt["error"].count("\n") == 0
    assert driller.left() == ""


@pytest.fixture
def cut_off(driller: Driller, platform: Platform) -> Iterator[None]:
    """The drill's user, and nobody else, is turned away from the S3 service."""
    address = platform.hosts["world"][HostSettings].address
    only = f"ip daddr {address} meta skuid phoenix-drill reject"
    rules = f"table ip drill_test {{ chain out {{ type filter hook output priority 0; {only}; }}; }}"
    driller.host.check_output("nft %s", rules)
    yield
    driller.host.check_output("nft delete table ip drill_test")


@pytest.mark.changes
@pytest.mark.usefixtures("cut_off")
def test_a_repository_that_cannot_be_reached_is_said_in_one_sentence(driller: Driller) -> None:
    receipt = driller.drill()
    assert receipt["code"] == 1
    assert "The repository of backups cannot be read" in receipt["error"]
    assert receipt["error"].count("\n") == 0


@pytest.mark.changes
def test_a_failure_is_told_and_its_end_too(driller: Driller, received: Callable[[], list[dict[str, Any]]]) -> None:
    """From the fault to the person: Prometheus sees it, Alertmanager routes the alert, the receiver has it, and its end as well."""

    def newest() -> dict[str, Any]:
        told = [alert for alert in received() if alert["labels"]["alertname"] == "DrillFailed"]
        return told[-1] if told else {"status": "nothing"}

    if driller.metric("phoenix_drill_success"):  # otherwise one of the tests above made it fail
        driller.host.check_output("systemctl start --no-block phoenix-drill")
        _until(driller, f"test -d {driller.directory}/scratch/data")
        driller.host.run("systemctl stop phoenix-drill")
    wait_until(lambda: newest()["status"] == "firing", 120, "the failure is told", every_s=1)
    alert = newest()
    assert alert["annotations"]["runbook_url"].endswith("/DrillFailed.md")
    assert alert["labels"]["host"] in alert["annotations"]["summary"]
    assert driller.drill()["ok"]
    wait_until(lambda: newest()["status"] == "resolved", 180, "its end is told", every_s=1)


def _until(driller: Driller, condition: str, seconds: float = 120) -> None:
    driller.host.check_output(f"for i in $(seq {int(seconds * 5)}); do {{ {condition}; }} && exit 0; sleep 0.2; done; exit 1")
