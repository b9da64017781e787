"""How long a commit takes to be safe offsite: `.venv/bin/python bench/archive.py`, the lab by default.

Commits a change, closes its segment of WAL and asks the S3 service until the segment is there: the time that archiving takes. With `--rpo`
the segment is left to close by itself: the time for which the archive alone would lose the commit. Prints the distribution in seconds.
The server's clock says when it was, so it and this computer's have to agree. The archive gets some segments more, nothing else changes.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from deploys.lib.pki import Authority  # noqa: E402 - the project has to be found first
from deploys.lib.secrets import SecretStore  # noqa: E402
from deploys.lib.settings import BackupSettings, Platform, PostgresqlSettings, load  # noqa: E402

COMMIT = "SELECT pg_create_restore_point('bench'); SELECT extract(epoch FROM clock_timestamp()), pg_walfile_name({});"
PATIENCE_S = 120


def s3_client(platform: Platform, settings: BackupSettings, directory: Path) -> Any:
    """The S3 service as the database hosts' account sees it."""
    secrets = SecretStore.load(platform.secrets_file)
    (directory / "ca.crt").write_text(Authority.of(secrets).certificate)
    return boto3.client(
        "s3",
        endpoint_url=f"https://{settings.s3_endpoint}",
        region_name=settings.s3_region,
        aws_access_key_id=secrets.get("backup/s3-key"),
        aws_secret_access_key=secrets.get("backup/s3-secret"),
        verify=str(directory / "ca.crt") if settings.s3_ca_file else True,
        config=Config(s3={"addressing_style": "path" if settings.s3_uri_style == "path" else "virtual"}),
    )


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-i", "--inventory", type=Path, default=ROOT / "inventory" / "lab.py")
    parser.add_argument("-n", "--count", type=int, default=20, help="commits")
    parser.add_argument("--rpo", action="store_true", help="let segments close by themselves")
    given = parser.parse_args()
    platform = load(given.inventory)
    member = platform.group("backup")[0]
    settings = member[BackupSettings]
    sql = COMMIT.format("pg_current_wal_insert_lsn()" if given.rpo else "pg_switch_wal()")
    command = [sys.executable, "-m", "ops", "-i", str(given.inventory), "psql", "--", "-d", "postgres", "-XAtqc", sql]
    seconds = []
    with tempfile.TemporaryDirectory() as directory:
        s3 = s3_client(platform, settings, Path(directory))
        for _ in range(given.count):
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            started, segment = done.stdout.split()[-1].split("|")
            archived = (
                f"{settings.path.strip('/')}/archive/{settings.stanza}/{member[PostgresqlSettings].version}-1/{segment[:16]}/{segment}"
            )
            while not s3.list_objects_v2(Bucket=settings.s3_bucket, Prefix=archived, MaxKeys=1).get("KeyCount"):
                if time.time() - float(started) > PATIENCE_S:
                    sys.exit(f"{segment} is not in the archive after {PATIENCE_S} s: see docs/runbooks/WalArchiveFailing.md.")
                time.sleep(0.02)
            seconds.append(time.time() - float(started))
            if given.rpo:
                time.sleep((len(seconds) * 7) % 30)  # not always in the same phase of the clock that closes segments
    what = "commit to object, segment closes by itself" if given.rpo else "closed segment to object"
    spread = f"min {min(seconds):.2f}  median {statistics.median(seconds):.2f}  max {max(seconds):.2f}"
    print(f"{what}, {len(seconds)} times, seconds: {spread}")


if __name__ == "__main__":
    main()
