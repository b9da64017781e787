"""The lab's `world` plays the S3 provider: a real server, https, accounts with rights of their own, versions and object lock.

What is here is what a production bucket has to be like; docs/backup.md says it for a provider's console.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex

from pyinfra import host
from pyinfra.api import StringCommand, deploy, operation

from deploys import exporters, tls
from deploys.lib import artifacts, facts, findings, hosts, verify
from deploys.lib.artifacts import GoProgram
from deploys.lib.operations import Commands, Directory, File, files, service, template, upload
from deploys.lib.settings import HostSettings, WorldSettings

SERVER = GoProgram(
    module="github.com/versity/versitygw",
    version="v1.8.0",
    checksum="h1:au+wI+aybno/STsQiSm35Uu6Q6iK5MWReQxgO6SEMFc=",
    package="github.com/versity/versitygw/cmd/versitygw",
    go=(1, 25),
)
USER = "phoenix-s3"
HOME = "/opt/phoenix/s3"
UNIT = "/etc/systemd/system/phoenix-s3.service"
CONFIG = "/etc/phoenix-s3"
ROOT_ENVIRONMENT, ACCOUNTS, ROOT_CURL = f"{CONFIG}/root.env", f"{CONFIG}/iam/users.json", f"{CONFIG}/root.curl"
DATA = "/var/lib/phoenix-s3"

READ_BUCKET = ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketVersions", "s3:ListBucketMultipartUploads"]
WRITE = ["s3:GetObject", "s3:GetObjectVersion", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
DELETE = ["s3:DeleteObject", "s3:DeleteObjectVersion"]
"""None of these sets lets anybody change policy, versioning or lock, or go round a lock."""
NEVER_THERE = "*/backup/*/latest"
"""pgBackRest ends every backup by deleting this name, a link on other storage, and fails when it may not. On S3 there is no such object."""


@deploy("S3 server")
def s3() -> None:
    """The server answers, with the bucket of the settings: versioned, locked, and open to exactly two accounts."""
    settings, own = hosts.settings(WorldSettings), hosts.settings(HostSettings).address
    exporters.account(name=f"User {USER}", user=USER)
    tls.readers(name="The S3 server may read the host's key", users=[USER])
    upload(name="Server", source=lambda: artifacts.go_program(SERVER), directory=HOME)
    files(
        name="Accounts and unit",
        entries=[
            Directory(CONFIG, "root", USER, "750"),
            Directory(f"{CONFIG}/iam", "root", USER, "750"),
            File(ROOT_ENVIRONMENT, template("world/s3.env.j2", **_root()), mode="600"),
            File(ROOT_CURL, template("world/s3.curl.j2", region=settings.s3_region, tls=tls, **_root()), mode="600"),
            File(ACCOUNTS, accounts, "root", USER, "640"),
            File(
                UNIT,
                template(
                    "world/s3.service.j2",
                    cfg=settings,
                    address=own,
                    program=f"{HOME}/{SERVER.name}",
                    user=USER,
                    data=DATA,
                    iam=f"{CONFIG}/iam",
                    environment=ROOT_ENVIRONMENT,
                    tls=tls,
                ),
            ),
        ],
    )
    service(
        name="Server runs with this configuration",
        unit="phoenix-s3.service",
        restart_on=[UNIT, ROOT_ENVIRONMENT, ACCOUNTS, f"{HOME}/.phoenix-digest", *tls.ALL],
    )
    verify.answers(
        name="Server answers over TLS",
        script=f"{tls.CURL} --max-time 5 {url()}/health",
        seconds=30,
        problem=f"The S3 server on {host.name} does not answer at {url()}: look at 'phoenix logs s3'.",
    )
    bucket(name="Bucket with versions, lock and policy")


def url() -> str:
    """Where the server answers."""
    return f"https://{hosts.settings(HostSettings).address}:{hosts.settings(WorldSettings).s3_port}"


def _root() -> dict[str, object]:
    return {"key": hosts.secret("world/s3-root-key"), "secret": hosts.secret("world/s3-root-secret")}


def accounts() -> str:
    """The server's list of accounts: who has no bucket policy may do nothing."""
    secrets = hosts.secrets()
    pairs = {secrets.get(f"backup/{name}-key"): secrets.get(f"backup/{name}-secret") for name in ("s3", "retention")}
    account = {"role": "user", "userID": 0, "groupID": 0, "projectID": 0}
    found = {key: {"access": key, "secret": secret, **account} for key, secret in pairs.items()}
    return json.dumps({"accessAccounts": found}, indent=1, sort_keys=True)


def policy(bucket_name: str, *, database: str, retention: str) -> str:
    """The bucket's policy. `database` and `retention` are access keys: the first may write and never delete, the second may delete."""

    def allow(key: str, actions: list[str], resource: str) -> dict[str, object]:
        return {"Effect": "Allow", "Principal": {"AWS": [key]}, "Action": actions, "Resource": [f"arn:aws:s3:::{resource}"]}

    statements = [
        allow(database, READ_BUCKET, bucket_name),
        allow(database, WRITE, f"{bucket_name}/*"),
        allow(database, ["s3:DeleteObject"], f"{bucket_name}/{NEVER_THERE}"),
        allow(retention, READ_BUCKET, bucket_name),
        allow(retention, WRITE + DELETE, f"{bucket_name}/*"),
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))


def lock(days: int) -> str:
    """Default retention: for this long nobody, whoever they are, removes a version."""
    return (
        '<ObjectLockConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><ObjectLockEnabled>Enabled</ObjectLockEnabled>'
        f"<Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Days>{days}</Days></DefaultRetention></Rule></ObjectLockConfiguration>"
    )


@operation()
def bucket() -> Commands:
    """The bucket exists, keeps versions, locks each for the days of the settings, and obeys `policy`."""
    settings, secrets = hosts.settings(WorldSettings), hosts.secrets()
    name = settings.s3_bucket
    wanted = policy(name, database=secrets.get("backup/s3-key"), retention=secrets.get("backup/retention-key"))
    curl = f"curl -sS --max-time 10 -K {ROOT_CURL}"
    at = f"{url()}/{name}"
    asked = "; ".join(f"{curl} -w '\\n' {shlex.quote(f'{at}?{what}=')}" for what in ("versioning", "object-lock", "policy"))
    said = host.get_fact(facts.Output, script=f"{{ {asked}; }} 2>/dev/null")
    commands: list[str | StringCommand] = []
    if "<Status>Enabled</Status>" not in said:
        findings.report(f"bucket {name} is missing")
        # Locked from its first object on, which brings versions with it.
        commands.append(f"{curl} -f -X PUT -H 'x-amz-bucket-object-lock-enabled: true' {at}")
    if not re.search(rf"<Days>{settings.s3_lock_days}</Days><Mode>COMPLIANCE</Mode>", said):
        findings.report(f"bucket {name} does not lock its objects for {settings.s3_lock_days} days")
        commands.append(_put(f"{curl} -f", f"{at}?object-lock=", lock(settings.s3_lock_days)))
    if wanted not in said:
        findings.report(f"bucket {name} has another policy")
        commands.append(_put(f"{curl} -f", f"{at}?policy=", wanted))
    yield from commands


def _put(curl: str, address: str, body: str) -> StringCommand:
    body += "\n"  # pyinfra ends every line
    digest = base64.b64encode(hashlib.md5(body.encode(), usedforsecurity=False).digest()).decode()
    return StringCommand(f"{curl} -X PUT -H 'content-md5: {digest}' --data-binary @- {shlex.quote(address)}", _stdin=body)
