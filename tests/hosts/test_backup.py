"""Archive and backup, asked at the S3 service itself: what is there, what it is readable for, and what its accounts may not do."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from testinfra.host import Host

from deploys.lib.pki import Authority
from deploys.lib.secrets import SecretStore
from deploys.lib.settings import ROOT, BackupSettings, HostSettings, Platform, PlatformHost, PostgresqlSettings

CURL = "curl -s --max-time 5 --cacert /etc/phoenix/tls/ca.crt"
PROGRAM = "/usr/local/lib/phoenix/backup.py"
RETENTION_TURNS = "for i in $(seq 100); do systemctl start phoenix-retention.service; sleep 3; done"


class Bucket:
    """The repository as the S3 service has it."""

    def __init__(self, s3: Any, settings: BackupSettings, version: int) -> None:
        self.s3, self.name, self.path = s3, settings.s3_bucket, settings.path.strip("/")
        self.stanza, self.version = settings.stanza, version

    def keys(self, below: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=f"{self.path}/{below}")
        return [one["Key"] for page in pages for one in page.get("Contents", [])]

    def read(self, key: str) -> bytes:
        return bytes(self.s3.get_object(Bucket=self.name, Key=key)["Body"].read())

    def await_segment(self, segment: str, *, seconds: float) -> float:
        """Seconds until this segment of WAL is in the archive."""
        return self.await_key(f"archive/{self.stanza}/{self.version}-1/{segment[:16]}/{segment}", seconds=seconds)

    def await_key(self, below: str, *, seconds: float) -> float:
        """Seconds until an object with this beginning is there."""
        started = time.monotonic()
        while not self.keys(below):
            assert time.monotonic() - started < seconds, f"{below} is not there after {seconds} s"
            time.sleep(0.1)
        return time.monotonic() - started


@pytest.fixture(scope="module")
def settings(platform: Platform) -> BackupSettings:
    if not platform.group("backup"):
        pytest.skip("this inventory has no backup")
    return platform.group("backup")[0][BackupSettings]


@pytest.fixture(scope="module")
def members(platform: Platform, settings: BackupSettings) -> list[PlatformHost]:
    """Hosts of the archived cluster."""
    database = {host.name for host in platform.group("postgresql")}
    return [host for host in platform.group("backup") if host.name in database and host[PostgresqlSettings].cluster_name == settings.stanza]


@pytest.fixture
def leader(on: Callable[[str], Host], members: list[PlatformHost]) -> Host:
    """Whoever leads now, by Patroni's own word."""
    for member in members:
        url = f"https://{member[HostSettings].address}:{member[PostgresqlSettings].patroni_port}/primary"
        if on(member.name).run(f"{CURL} -f -o /dev/null {url}").rc == 0:
            return on(member.name)
    raise AssertionError("nobody leads")


@pytest.fixture(scope="module")
def drill(on: Callable[[str], Host], platform: Platform) -> Host:
    return on(platform.group("drill")[0].name)


@pytest.fixture(scope="module")
def client(settings: BackupSettings, secrets: SecretStore, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """`client("s3")` speaks as the database hosts' account, `client("retention")` as the one that may delete."""
    ca = tmp_path_factory.mktemp("s3") / "ca.crt"
    ca.write_text(Authority.of(secrets).certificate)

    def speak(account: str) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=f"https://{settings.s3_endpoint}",
            region_name=settings.s3_region,
            aws_access_key_id=secrets.get(f"backup/{account}-key"),
            aws_secret_access_key=secrets.get(f"backup/{account}-secret"),
            verify=str(ca) if settings.s3_ca_file else True,
            config=Config(s3={"addressing_style": "path" if settings.s3_uri_style == "path" else "virtual"}, retries={"max_attempts": 2}),
        )

    return speak


@pytest.fixture(scope="module")
def bucket(settings: BackupSettings, client: Callable[[str], Any], members: list[PlatformHost]) -> Bucket:
    return Bucket(client("s3"), settings, members[0][PostgresqlSettings].version)


def query(leader: Host, sql: str) -> str:
    return str(leader.check_output("cd / && runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d postgres -c %s", sql)).strip()


def info(leader: Host, stanza: str) -> Any:
    return json.loads(leader.check_output(f"cd / && runuser -u postgres -- pgbackrest --stanza={stanza} --output=json info"))[0]


def denied(call: Callable[..., Any], **arguments: Any) -> None:
    with pytest.raises(ClientError) as refused:
        call(**arguments)
    assert refused.value.response["Error"]["Code"] == "AccessDenied", refused.value


def test_a_committed_row_s_wal_is_on_s3_within_seconds(leader: Host, bucket: Bucket) -> None:
    query(leader, "SELECT pg_create_restore_point('phoenix test')")
    segment = query(leader, "SELECT pg_walfile_name(pg_switch_wal())")
    assert bucket.await_segment(segment, seconds=20) < 20


@pytest.mark.slow
def test_wal_is_sent_without_anybody_asking(leader: Host, bucket: Bucket) -> None:
    """The RPO of the archive alone: a change is on S3 within a minute although its segment is not full."""
    query(leader, "SELECT pg_create_restore_point('phoenix test')")
    segment = query(leader, "SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
    assert bucket.await_segment(segment, seconds=60) < 60


def test_everything_on_s3_is_ciphertext_that_the_key_opens(
    bucket: Bucket, secrets: SecretStore, settings: BackupSettings, tmp_path: Path
) -> None:
    cipher = secrets.get("backup/cipher")
    sample = bucket.keys("archive/")[-5:] + bucket.keys("backup/")[-20:]
    assert len(sample) > 5
    for key in sample:
        body = bucket.read(key)
        # Files of a bundle, and blocks of a file of which blocks are kept, are encrypted each by itself.
        assert "/bundle/" in key or key.endswith(".pgbi") or body.startswith(b"Salted__"), key
        assert cipher.encode() not in body
        assert b"pg_catalog" not in body and b"[backup:current]" not in body
    content = bucket.read(f"{bucket.path}/backup/{settings.stanza}/backup.info")
    opened = decrypted(content, cipher, tmp_path)
    assert b"[backup:current]" in opened
    assert b"[backup:current]" not in decrypted(content, "another key", tmp_path)


def decrypted(content: bytes, password: str, directory: Path) -> bytes:
    """What openssl makes of it."""
    (directory / "content").write_bytes(content)
    command = ["openssl", "enc", "-d", "-aes-256-cbc", "-md", "sha1", "-pass", "stdin", "-in", str(directory / "content")]
    return subprocess.run(command, input=password.encode() + b"\n", capture_output=True, check=False).stdout


def test_the_database_hosts_account_deletes_nothing_and_changes_no_rule(bucket: Bucket) -> None:
    s3, name = bucket.s3, bucket.name
    key = bucket.keys("backup/")[0]
    version = s3.list_object_versions(Bucket=name, Prefix=key)["Versions"][0]["VersionId"]
    denied(s3.delete_object, Bucket=name, Key=key)
    denied(s3.delete_object, Bucket=name, Key=key, VersionId=version)
    denied(s3.delete_bucket, Bucket=name)
    denied(s3.put_bucket_policy, Bucket=name, Policy="{}")
    denied(s3.put_bucket_versioning, Bucket=name, VersioningConfiguration={"Status": "Suspended"})
    lock = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}}
    denied(s3.put_object_lock_configuration, Bucket=name, ObjectLockConfiguration=lock)
    assert s3.head_object(Bucket=name, Key=key)


def test_nobody_removes_a_locked_version(bucket: Bucket, client: Callable[[str], Any]) -> None:
    key = bucket.keys("backup/")[0]
    version = bucket.s3.list_object_versions(Bucket=bucket.name, Prefix=key)["Versions"][0]["VersionId"]
    denied(client("retention").delete_object, Bucket=bucket.name, Key=key, VersionId=version)


def test_what_is_overwritten_is_still_there(bucket: Bucket) -> None:
    """With the database hosts' key one may overwrite; the older version stays and can be read."""
    key = f"{bucket.path}/test/overwritten"
    first = bucket.s3.put_object(Bucket=bucket.name, Key=key, Body=b"good")["VersionId"]
    bucket.s3.put_object(Bucket=bucket.name, Key=key, Body=b"bad")
    assert bucket.read(key) == b"bad"
    assert bucket.s3.get_object(Bucket=bucket.name, Key=key, VersionId=first)["Body"].read() == b"good"


def test_wrong_credentials_get_nothing(bucket: Bucket, client: Callable[[str], Any]) -> None:
    stranger = client("s3")
    stranger._request_signer._credentials.secret_key = "wrong"
    with pytest.raises(ClientError) as refused:
        stranger.list_objects_v2(Bucket=bucket.name)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_a_verified_backup_is_there_and_none_is_damaged(leader: Host, settings: BackupSettings) -> None:
    found = info(leader, settings.stanza)
    assert found["status"]["code"] == 0
    assert any("verified" in one.get("annotation", {}) for one in found["backup"])
    assert not any(one["error"] for one in found["backup"])


def test_metrics_are_what_pgbackrest_says(leader: Host, settings: BackupSettings) -> None:
    leader.check_output("systemctl start phoenix-backup-metrics.service")
    newest = info(leader, settings.stanza)["backup"][-1]["timestamp"]["stop"]
    text = leader.file("/var/lib/prometheus/node-exporter/phoenix_backup.prom").content_string
    wanted = f'phoenix_backup_last_success_timestamp_seconds{{scope="{settings.stanza}",type="any"}} {newest}'
    assert wanted in text.splitlines()


def test_the_data_directory_s_own_file_never_sets_the_archive_command(leader: Host) -> None:
    """postgresql.auto.conf travels with a backup and wins over everything."""
    assert query(leader, "SELECT count(*) FROM pg_settings WHERE name LIKE 'archive%' AND sourcefile LIKE '%auto.conf'") == "0"
    assert query(leader, "SELECT count(*) FROM pg_settings WHERE pending_restart") == "0"


def test_bootstrap_refuses_to_shadow_the_backups(leader: Host) -> None:
    refused = leader.run("cd / && runuser -u postgres -- /usr/local/lib/phoenix/bootstrap-cluster")
    assert refused.rc == 1
    assert "an empty cluster would shadow them" in refused.stderr
    assert "phoenix rebuild" in refused.stderr


@pytest.mark.changes
def test_the_standby_takes_the_backup_when_there_is_one(
    leader: Host, on: Callable[[str], Host], members: list[PlatformHost], bucket: Bucket, settings: BackupSettings
) -> None:
    before = set(bucket.keys(f"backup/{settings.stanza}/"))
    turn = json.loads(leader.check_output(f"{PROGRAM} auto"))
    streaming = query(leader, "SELECT coalesce(string_agg(application_name, ','), '') FROM pg_stat_replication WHERE state = 'streaming'")
    standbys = [member.name for member in members if member.name in streaming.split(",")]
    if standbys:
        assert (turn["taken"], turn["host"] in standbys) == (False, True)
        turn = json.loads(on(turn["host"]).check_output(f"{PROGRAM} auto"))
    assert turn["taken"]
    new = set(bucket.keys(f"backup/{settings.stanza}/")) - before
    assert f"{bucket.path}/backup/{settings.stanza}/{turn['label']}/backup.manifest" in new


@pytest.fixture
def broken_s3(world: Host) -> Iterator[None]:
    world.check_output("systemctl stop phoenix-s3.service")
    yield
    world.check_output("systemctl start phoenix-s3.service")


@pytest.mark.changes
def test_an_s3_service_that_is_away_is_told_in_one_sentence_and_hangs_nothing(
    broken_s3: None, leader: Host, settings: BackupSettings
) -> None:
    started = time.monotonic()
    failed = leader.run(f"{PROGRAM} auto --here")
    assert time.monotonic() - started < 30
    assert failed.rc == 1
    answer = json.loads(failed.stdout)
    assert answer["ok"] is False
    assert f"{settings.s3_endpoint} does not answer (Connection refused)" in answer["error"]
    assert query(leader, "SELECT 1") == "1"


@pytest.mark.changes
@pytest.mark.slow
def test_an_interrupted_backup_stands_in_nobody_s_way(leader: Host, drill: Host, settings: BackupSettings) -> None:
    """Killed in its midst: the next one is taken, although nobody on this host may delete what the first one left."""
    log = "/tmp/phoenix-halt.log"
    script = (
        f"cd / && setsid runuser -u postgres -- pgbackrest --stanza={settings.stanza} --type=full --log-level-stderr=detail backup "
        f"</dev/null >{log} 2>&1 & for i in $(seq 150); do grep -q 'backup file' {log} && break; sleep 0.1; done; "
        f"pkill -9 -x pgbackrest; grep -c 'completed successfully' {log}; rm {log}"
    )
    assert leader.run(script).stdout.strip() == "0", "it was not interrupted"
    before = len(info(leader, settings.stanza)["backup"])
    # Whose turn to remove it comes every two minutes has many here.
    drill.check_output("systemd-run --quiet --collect --unit=phoenix-test-turns sh -c %s", RETENTION_TURNS)
    taken = leader.run(f"timeout 400 {PROGRAM} auto --here")
    drill.run("systemctl stop phoenix-test-turns")
    assert taken.rc == 0, taken.stderr
    assert json.loads(taken.stdout)["taken"]
    assert len(info(leader, settings.stanza)["backup"]) == before + 1


@pytest.mark.changes
def test_a_missing_key_of_the_provider_is_asked_for_before_anything_changes(
    platform: Platform, secrets: SecretStore, tmp_path: Path
) -> None:
    """As in production, where nobody plays the provider: a person has to set the key."""
    store = SecretStore.create(tmp_path / "secrets.yaml", recipients=[])
    for name in secrets.names():
        if not name.startswith(("backup/s3", "backup/retention")):
            store.set(name, secrets.get(name))
    member = platform.group("backup")[0]
    data = {**member.data, "host_secrets_file": str(store.path)}
    inventory = tmp_path / "alone.py"
    inventory.write_text(f"backup = [({member.name!r}, {data!r})]\ndrill = backup\n")
    command = [sys.executable, "-m", "ops", "-i", str(inventory), "deploy"]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert refused.returncode != 0
    assert "has no secret 'backup/s3-key': add it with 'phoenix secrets set backup/s3-key'" in refused.stderr
