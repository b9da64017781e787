"""The pure decisions of services/backup.py, retention.py and bootstrap_cluster.py, and the configuration that the deploy renders."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploys.backup import repository_state, verified
from deploys.lib import sizing
from deploys.lib.rendering import TEMPLATES, environment
from deploys.lib.settings import GROUP_DATA, BackupSettings, PostgresqlSettings, SettingsError, load
from deploys.world import s3
from services import backup, bootstrap_cluster, retention

HOUR, DAY = 3600, 86400
NOW = 1_800_000_000
ALL = ("vps1", "vps2")


def member(name: str, role: str, state: str = "streaming", lag: Any = 0) -> dict[str, Any]:
    return {"name": name, "role": role, "state": state, "lag": lag}


LEADER = member("vps1", "leader", "running")
COUNTS = "status: {}\n  backup: x, status: {}, total files checked: 9\n    missing: {}, checksum invalid: 0, size invalid: 0, other: {}\n"
WELL = (COUNTS.format("ok", "valid", 0, 0), "")
UNREAD = (COUNTS.format("error", "invalid", 0, 7), "P01  ERROR: [103]: could not verify bundle/1: [042] timeout\n")
DAMAGED = (COUNTS.format("error", "invalid", 1, 0), "")
"""What pgBackRest prints of a backup that it reads back, to stdout and to stderr."""


@pytest.mark.parametrize(
    ("members", "turn"),
    [
        ([LEADER], "vps1"),
        ([LEADER, member("vps2", "sync_standby")], "vps2"),
        ([LEADER, member("vps2", "replica")], "vps2"),
        ([LEADER, member("vps2", "sync_standby", "starting")], "vps1"),
        ([LEADER, member("vps2", "replica", lag="unknown")], "vps1"),
        ([LEADER, member("vps2", "replica", lag=backup.LAG_BYTES + 1)], "vps1"),
        ([LEADER, member("elsewhere", "sync_standby")], "vps1"),
        ([member("vps1", "replica", "stopped")], None),
        ([], None),
    ],
)
def test_a_standby_that_keeps_up_takes_the_backup_and_else_the_leader(members: list[dict[str, Any]], turn: str | None) -> None:
    assert backup.choose({"members": members}, ALL) == turn


def test_the_synchronous_standby_comes_first_whatever_the_names() -> None:
    members = [member("a", "replica"), member("b", "sync_standby"), member("c", "leader", "running")]
    assert backup.choose({"members": members}, ("a", "b", "c")) == "b"


def taken(kind: str, age_s: int) -> dict[str, Any]:
    return {"type": kind, "timestamp": {"start": NOW - age_s, "stop": NOW - age_s + 60}}


@pytest.mark.parametrize(
    ("backups", "kind"),
    [
        ([], "full"),
        ([taken("full", HOUR)], "incr"),
        ([taken("full", 6 * HOUR)], "diff"),
        ([taken("full", 6 * HOUR - 5)], "diff"),  # the timer is never late by less than its accuracy
        ([taken("full", DAY), taken("diff", 5 * HOUR)], "incr"),
        ([taken("full", DAY), taken("diff", 6 * HOUR), taken("incr", HOUR)], "diff"),
        ([taken("full", 7 * DAY), taken("diff", HOUR)], "full"),
        ([taken("full", 8 * DAY), taken("full", 2 * DAY), taken("diff", HOUR)], "incr"),
    ],
)
def test_what_is_due_follows_from_what_there_is(backups: list[dict[str, Any]], kind: str) -> None:
    assert backup.due(backups, now=NOW, diff_every_s=6 * HOUR, full_every_s=7 * DAY) == kind


def test_hourly_runs_of_a_week_make_one_full_and_a_differential_every_six_hours() -> None:
    kinds: list[str] = []
    there: list[dict[str, Any]] = []
    for hour in range(7 * 24):
        now = NOW + hour * HOUR + 3
        kind = backup.due(there, now=now, diff_every_s=6 * HOUR, full_every_s=7 * DAY)
        kinds.append(kind)
        there.append({"type": kind, "timestamp": {"start": now, "stop": now + 60}})
    assert kinds.count("full") == 1
    assert kinds.count("diff") == 27
    assert [hour for hour, kind in enumerate(kinds) if kind != "incr"] == list(range(0, 7 * 24, 6))


HALTED = "INFO: backup '20261123-190000F_20261123-200000I' cannot be resumed: resume only valid for full backup\nERROR: [039]: HTTP"


def test_the_interrupted_backup_is_read_from_the_log() -> None:
    assert backup.halted(HALTED) == "20261123-190000F_20261123-200000I"
    assert backup.halted("INFO: new backup label = 20261123-190000F") is None
    assert backup.halted("backup '../../etc' cannot be resumed") is None


def test_an_error_of_pgbackrest_becomes_one_line_without_headers() -> None:
    log = (
        "INFO: begin\nERROR: [039]: HTTP request failed with 403 (Forbidden):\n       *** Path/Query ***:\n       DELETE /bucket/latest\n"
        "       *** Request Headers ***:\n       authorization: <redacted>\nINFO: end"
    )
    assert backup.reason(log) == "HTTP request failed with 403 (Forbidden) for DELETE /bucket/latest"
    assert backup.reason("") == "no reason given"


INFO = {
    "status": {"code": 0, "message": "ok"},
    "backup": [
        {
            "label": "20261123-190000F",
            "type": "full",
            "timestamp": {"start": NOW - 100, "stop": NOW - 40},
            "lsn": {"start": "0/1", "stop": "0/2"},
            "archive": {"start": "000000010000000000000001", "stop": "000000010000000000000002"},
            "info": {"size": 5000, "repository": {"delta": 700}},
            "annotation": {"verified": "2026-11-23T19:01:00Z"},
            "error": False,
        }
    ],
}
PLAN = backup.Plan("phoenix", "vps1", True, ALL, "https://10.0.0.1:8008", "10.0.0.9:9000", "/data", "/ca.crt", 6 * HOUR, 7 * DAY)


def values(text: str) -> dict[str, float]:
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if not line.startswith("#")}


@pytest.mark.parametrize(
    ("answers", "reads", "problem"),
    [
        ([WELL], 1, ""),
        ([UNREAD, WELL], 2, ""),
        ([UNREAD, UNREAD], 2, "does not verify: could not verify bundle/1: [042] timeout"),
        ([DAMAGED, WELL], 1, "does not verify"),
    ],
)
def test_a_backup_that_could_not_be_read_is_read_once_more_and_one_that_is_damaged_is_not(
    monkeypatch: pytest.MonkeyPatch, answers: list[tuple[str, str]], reads: int, problem: str
) -> None:
    asked: list[str] = []

    def pgbackrest(_: backup.Repository, *words: str, **__: Any) -> subprocess.CompletedProcess[str]:
        asked.append(words[-1])
        out, error = answers[len(asked) - 1] if words[-1] == "verify" else ("", "")
        return subprocess.CompletedProcess(words, 0, out, error)

    monkeypatch.setattr(backup.Repository, "_run", pgbackrest)
    repository = backup.Repository(backup.Plan("phoenix", "vps1", True, (), "", "world:9000", "", "", DAY, 7 * DAY))
    with pytest.raises(backup.Failed, match=re.escape(problem)) if problem else nullcontext():
        repository.verify("20260101-000000F")
    assert asked == ["verify"] * reads + ["annotate"] * (not problem)


def test_metrics_tell_what_the_repository_holds() -> None:
    found = values(backup.exposition(PLAN, INFO, {"ok": True, "finished": NOW - 30.0}, 3, now=NOW))
    assert found['phoenix_backup_last_success_timestamp_seconds{scope="phoenix",type="any"}'] == NOW - 40
    assert found['phoenix_backup_last_success_timestamp_seconds{scope="phoenix",type="full"}'] == NOW - 40
    assert found['phoenix_backup_duration_seconds{scope="phoenix",type="full"}'] == 60
    assert found['phoenix_backup_sent_bytes{scope="phoenix",type="full"}'] == 700
    assert found['phoenix_backup_archive_waiting_segments{scope="phoenix"}'] == 3
    assert found['phoenix_backup_last_run_success{scope="phoenix"}'] == 1
    assert not any("incr" in name for name in found if "count" not in name)


def test_metrics_of_a_repository_that_cannot_be_read_claim_nothing_else() -> None:
    found = values(backup.exposition(PLAN, None, None, None, now=NOW))
    assert found == {
        'phoenix_backup_repository_reachable{scope="phoenix"}': 0,
        'phoenix_backup_checked_timestamp_seconds{scope="phoenix"}': NOW,
    }


def test_a_later_timeline_than_the_newest_backup_s_asks_for_another() -> None:
    newest = INFO["backup"][0]  # type: ignore[index]
    assert backup.promoted(newest, {"state": "running", "timeline": 2})
    assert not backup.promoted(newest, {"state": "running", "timeline": 1})
    assert not backup.promoted(newest, {"state": "starting"})


def test_metrics_are_written_while_patroni_starts_with_its_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """That is no failure of the unit that writes them."""

    def away(*_: object) -> Any:
        raise backup.Failed("Patroni on vps1 does not answer")

    monkeypatch.setattr(backup.Repository, "info", lambda _: INFO)
    monkeypatch.setattr(backup, "METRICS", tmp_path / "backup.prom")
    monkeypatch.setattr(backup, "STATE", tmp_path)
    monkeypatch.setattr(backup, "_patroni", away)
    backup.metrics(replace(PLAN, archives=True, data=str(tmp_path)))
    assert "phoenix_backup_last_success_timestamp_seconds" in (tmp_path / "backup.prom").read_text()
    assert capsys.readouterr().err == "Patroni on vps1 does not answer\n"


def test_labels_are_the_only_things_that_retention_removes_on_request() -> None:
    assert retention.LABEL.fullmatch("20261123-190000F")
    assert retention.LABEL.fullmatch("20261123-190000F_20261123-200000D")
    for wrong in ("..", "20261123-190000F/..", "backup.info", "20261123-190000F_", ""):
        assert not retention.LABEL.fullmatch(wrong)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"type": "latest", "target": None, "set": None}, []),
        ({"type": "immediate", "target": None, "set": "20261123-190000F"}, ["--set=20261123-190000F", "--type=immediate"]),
        ({"type": "time", "target": "2026-11-23 19:00:00+00", "set": None}, ["--type=time", "--target=2026-11-23 19:00:00+00"]),
        ({"type": "lsn", "target": "0/3000000", "set": None}, ["--type=lsn", "--target=0/3000000"]),
    ],
)
def test_a_request_becomes_pgbackrest_s_command(request_: dict[str, Any], words: list[str]) -> None:
    command = bootstrap_cluster.restore_command(request_, stanza="phoenix", data="/data")
    assert command[0] == "pgbackrest" and command[-1] == "restore"
    assert set(words) <= set(command)
    assert ("--target-action=promote" in command) is (request_["type"] != "latest")


@pytest.mark.parametrize(
    "request_", [{"type": "time", "target": None}, {"type": "latest", "target": "x"}, {"type": "yesterday"}, {}], ids=json.dumps
)
def test_a_request_that_makes_no_sense_is_refused(request_: dict[str, Any]) -> None:
    with pytest.raises(bootstrap_cluster.Refused, match="make the request anew"):
        bootstrap_cluster.restore_command(request_, stanza="phoenix", data="/data")


def stanza(code: int, message: str, reason: str = "") -> list[dict[str, Any]]:
    status = {"code": code, "message": message}
    return [{"status": status, "repo": [{"status": {"code": code, "message": reason or message}}], "backup": []}]


def test_an_empty_cluster_is_made_only_where_the_repository_is_surely_empty() -> None:
    assert bootstrap_cluster.occupied(stanza(0, "ok"))
    for code in (1, 2, 3):
        assert not bootstrap_cluster.occupied(stanza(code, "nothing"))
    for unsure in (stanza(99, "other", "timeout"), None, []):
        with pytest.raises(bootstrap_cluster.Refused, match="cannot be read"):
            bootstrap_cluster.occupied(unsure)


def test_the_deploy_tells_an_empty_repository_from_one_out_of_reach() -> None:
    assert repository_state(stanza(2, "no valid backups"))[0] == 2
    assert repository_state(stanza(99, "other", "[HostConnectError]\n unable to connect")) == (99, "[HostConnectError] unable to connect")
    assert repository_state(None)[0] == 99
    assert verified([INFO])
    assert not verified([{"backup": [{**INFO["backup"][0], "annotation": {}}]}])  # type: ignore[index]
    assert not verified([{"backup": [{**INFO["backup"][0], "error": True}]}])  # type: ignore[index]


def settings(**changes: Any) -> BackupSettings:
    defaults: dict[str, Any] = {}
    exec((GROUP_DATA / "backup.py").read_text(), defaults)  # noqa: S102 - our own file
    values_ = {key.removeprefix("backup_"): value for key, value in defaults.items() if key.startswith("backup_")}
    return BackupSettings(**{**values_, "s3_endpoint": "s3.example.org:9000", "s3_bucket": "offsite", **changes})


def configuration(*, archives: bool, others: list[tuple[str, int]]) -> configparser.ConfigParser:
    class Tls:
        CA, CERTIFICATE, KEY = "/ca", "/crt", "/key"

    postgresql = PostgresqlSettings.model_construct(version=17, cluster_name="phoenix", port=5432)
    text = environment(TEMPLATES).get_template("pgbackrest/pgbackrest.conf.j2")
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(
        text.render(
            cfg=settings(), archives=archives, others=others, peers=[f"vps{n + 2}" for n, _ in enumerate(others)], address="10.0.0.1",
            postgresql=postgresql, processes=2, spool="/spool", tls=Tls, key="K", secret="S", cipher="C",
        )
    )  # fmt: skip
    return parser


def test_a_lone_member_backs_itself_up_and_nobody_else_may_read_it() -> None:
    config = configuration(archives=True, others=[])
    assert config["phoenix"]["pg1-path"] == "/var/lib/postgresql/17/phoenix"
    assert "phoenix:backup" not in config
    assert not any(option.startswith("tls-server-auth") for option in config["global:server"])


def test_members_let_each_other_in_by_certificate_and_prefer_the_standby() -> None:
    config = configuration(archives=True, others=[("10.0.0.2", 8432)])
    assert config["phoenix:backup"]["backup-standby"] == "prefer"
    assert config["phoenix:backup"]["pg2-host"] == "10.0.0.2"
    assert config["phoenix:backup"]["pg2-host-type"] == "tls"
    assert config["global:server"]["tls-server-auth"] == "vps2=phoenix"


def test_a_reader_of_the_repository_serves_nothing_and_everybody_encrypts_and_never_deletes() -> None:
    config = configuration(archives=False, others=[])
    assert "global:server" not in config
    assert dict(config["phoenix"]) == {}
    whole = config["global"]
    assert whole["repo1-cipher-type"] == "aes-256-cbc"
    assert (whole["expire-auto"], whole["resume"]) == ("n", "n")
    assert whole["archive-push-queue-max"] == "8192MiB"


def test_the_policy_lets_the_database_delete_nothing_that_exists() -> None:
    policy = json.loads(s3.policy("offsite", database="DB", retention="RET"))
    deletes = [one for one in policy["Statement"] if one["Principal"]["AWS"] == ["DB"] and any("Delete" in a for a in one["Action"])]
    assert [(one["Action"], one["Resource"]) for one in deletes] == [(["s3:DeleteObject"], ["arn:aws:s3:::offsite/*/backup/*/latest"])]
    actions = {action for one in policy["Statement"] for action in one["Action"]}
    assert not {action for action in actions if "Policy" in action or "Lock" in action or "Bypass" in action or "Retention" in action}


@pytest.mark.parametrize(("cores", "processes"), [(1, 1), (2, 1), (4, 2), (16, 8), (64, 8)])
def test_backups_leave_half_of_the_cores_to_the_database(cores: int, processes: int) -> None:
    assert sizing.backup_processes(cores) == processes


def test_full_backups_must_be_taken_more_often_than_they_are_thrown_away() -> None:
    with pytest.raises(ValueError, match="full_every_d must not exceed retention_d"):
        settings(full_every_d=30, retention_d=7)


def test_a_backup_without_anybody_who_expires_it_is_refused(tmp_path: Any) -> None:
    inventory = tmp_path / "one.py"
    host = {
        "host_address": "10.0.0.1", "host_operator_keys": ["ssh-ed25519 A"], "host_secrets_file": "x",
        "backup_s3_endpoint": "s3.example.org", "backup_s3_bucket": "offsite",
    }  # fmt: skip
    inventory.write_text(f"_H = ('vps1', {host!r})\netcd = [_H]\npostgresql = [_H]\nbackup = [_H]\n")
    with pytest.raises(SettingsError, match="group backup has hosts and group drill has none"):
        load(inventory)
    inventory.write_text(inventory.read_text() + "drill = [_H]\n")
    assert [one.name for one in load(inventory).group("drill")] == ["vps1"]
