"""Archive and backup: pgBackRest sends WAL and backups to S3, encrypted. The first backup is part of the deploy.

Members of the archived cluster write with an account that cannot delete; what is old is expired on the hosts of group `drill`, with an
account that may (`retention`). How it works for people: docs/backup.md.
"""

from __future__ import annotations

import json
import shlex
from typing import Any

from pyinfra import context, host
from pyinfra.api import StringCommand, deploy, operation

from deploys import exporters, tls
from deploys.lib import facts, findings, generated, hosts, sizing
from deploys.lib.operations import Commands, Directory, File, files, refusal, service, template, units_read
from deploys.lib.pki import Authority
from deploys.lib.settings import ROOT, BackupSettings, HostSettings, PostgresqlSettings, of
from deploys.postgresql import archive, patroni
from deploys.postgresql.psql import leads

PACKAGES = ["pgbackrest"]
CONFIG = "/etc/pgbackrest/pgbackrest.conf"
RETENTION_CONFIG = "/etc/pgbackrest-retention/pgbackrest.conf"
PLAN = "/etc/phoenix/backup.json"
SPOOL = "/var/spool/pgbackrest"
PROGRAM = "/usr/local/lib/phoenix/backup.py"
RETENTION = "/usr/local/lib/phoenix/retention.py"
RETENTION_USER = "phoenix-retention"
UNITS = "/etc/systemd/system"
REQUEST = "/var/lib/postgresql/.phoenix-restore.json"
"""What a restore leaves for bootstrap-cluster."""


def require_secrets() -> None:
    """Raise SecretError, before anything changes, when a key of the S3 service is not in the store."""
    keys = generated.S3_KEYS + (generated.RETENTION_KEYS if "drill" in host.groups else ())
    for name in keys:
        hosts.secrets().get(name)


@deploy("Repository fits the cluster")
def preflight() -> None:
    """Refuse, before anything changes, to begin an empty cluster beside the backups of a lost one."""
    unoccupied(name="An empty cluster has an empty repository")


@operation()
def unoccupied() -> Commands:
    """Where no member has data and nobody asked for a restore, the repository holds no backup of this cluster."""
    if not archive.archives():
        return
    data = f"ls -d /var/lib/postgresql/*/{archive.stanza()}/PG_VERSION {REQUEST} 2>/dev/null | grep ."
    present = [member for member in archive.members() if member.connected]
    if any(not member.get_fact(facts.Output, script=data).endswith(facts.FAILED) for member in present):
        return
    # Asked by what a bare host may have; where that is nothing, bootstrap-cluster asks.
    yield StringCommand("sh -s", _stdin=template("pgbackrest/occupied.sh.j2", **_occupied())())


def _occupied() -> dict[str, Any]:
    settings = hosts.settings(BackupSettings)
    where = f"{settings.s3_bucket}.{settings.s3_endpoint}" if settings.s3_uri_style == "host" else settings.s3_endpoint
    return {
        "cfg": settings,
        "url": f"https://{where}/" + ("" if settings.s3_uri_style == "host" else settings.s3_bucket),
        "prefix": f"{settings.path}/backup/{settings.stanza}/backup.info".lstrip("/").replace("//", "/"),
        "key": hosts.secret("backup/s3-key"),
        "secret": hosts.secret("backup/s3-secret"),
        "authority": Authority.of(hosts.secrets()).certificate,
        "problem": f"{host.name} has no data and the repository at {where} holds backups of the cluster {settings.stanza}, which an empty "
        f"cluster would shadow: bring it back with 'phoenix rebuild {host.name}', or set another backup_path for a new cluster.",
    }


@deploy("pgBackRest")
def configure() -> None:
    """Programs and configuration are in place; before Patroni, which hands over WAL and may have to restore."""
    settings = hosts.settings(BackupSettings)
    tls.readers(name="pgBackRest may read the host's key", users=["postgres"])
    others = [member for member in archive.members() if member.name != host.name]
    files(
        name="Configuration",
        entries=[
            Directory("/etc/pgbackrest", "root", "postgres", "750"),
            File(
                CONFIG,
                template(
                    "pgbackrest/pgbackrest.conf.j2",
                    cfg=settings,
                    archives=archive.archives(),
                    others=[(hosts.address(member), of(member, BackupSettings).tls_port) for member in others],
                    peers=[str(member.name) for member in others],
                    address=hosts.settings(HostSettings).address,
                    postgresql=hosts.settings(PostgresqlSettings),
                    processes=lambda: sizing.backup_processes(hosts.resources().cores),
                    spool=SPOOL,
                    tls=tls,
                    **_repository(generated.S3_KEYS),
                ),
                "root",
                "postgres",
                "640",
            ),
            Directory(SPOOL, "postgres", "postgres", "750"),
            File(PLAN, plan),
            File(PROGRAM, _service("backup.py"), mode="755"),
            File(archive.BOOTSTRAP, _service("bootstrap_cluster.py"), mode="755"),
            *[
                File(
                    f"{UNITS}/{name}",
                    template(f"pgbackrest/{name}.j2", tls=tls, spool=SPOOL, program=PROGRAM, directory=exporters.TEXTFILES),
                )
                for name in _units()
            ],
        ],
    )


def _units() -> list[str]:
    names = ["phoenix-backup-metrics.service", "phoenix-backup-metrics.timer"]
    if archive.archives():
        names += ["phoenix-backup.service", "phoenix-backup.timer", "phoenix-backup-server.service"]
    return names


def _service(name: str) -> str:
    return (ROOT / "services" / name).read_text(encoding="utf-8")


def _repository(keys: tuple[str, str]) -> dict[str, Any]:
    return {"key": hosts.secret(keys[0]), "secret": hosts.secret(keys[1]), "cipher": hosts.secret(generated.CIPHER)}


def plan() -> str:
    """What services/backup.py and bootstrap_cluster.py have to know; no secret."""
    settings = hosts.settings(BackupSettings)
    postgresql = hosts.settings(PostgresqlSettings)
    own = hosts.settings(HostSettings).address
    return json.dumps(
        {
            "stanza": settings.stanza,
            "host": str(host.name),
            "archives": archive.archives(),
            "members": [str(member.name) for member in archive.members()],
            "patroni": f"https://{own}:{postgresql.patroni_port}" if archive.archives() else "",
            "data": f"/var/lib/postgresql/{postgresql.version}/{postgresql.cluster_name}",
            "endpoint": settings.s3_endpoint,
            "initdb": [f"/usr/lib/postgresql/{postgresql.version}/bin/initdb", *(f"--{option}" for option in patroni.INITDB)],
            "ca": tls.CA,
            "diff_every_s": settings.diff_every_h * 3600,
            "full_every_s": settings.full_every_d * 86400,
        },
        indent=1,
    )


@deploy("Archive and backups")
def backup() -> None:
    """The archive takes WAL, a verified backup exists, and the timers take the next ones."""
    units_read(name="Units are known", units=[name for name in _units() if name.endswith(".service")])
    if archive.archives():
        service(
            name="Members read each other's files",
            unit="phoenix-backup-server.service",
            restart_on=[f"{UNITS}/phoenix-backup-server.service"],
            reload_on=[CONFIG, *tls.ALL],
        )
        first(name="A verified backup exists")
        service(name="Backups are taken", unit="phoenix-backup.timer", restart_on=[f"{UNITS}/phoenix-backup.timer"])
    service(name="Backups are watched", unit="phoenix-backup-metrics.timer", restart_on=[f"{UNITS}/phoenix-backup-metrics.timer"])


@operation()
def first() -> Commands:
    """The repository has this cluster's stanza and at least one verified backup; the leader sees to it."""
    if not leads():
        return
    pgbackrest = f"runuser -u postgres -- {archive.PROGRAM} --stanza={archive.stanza()}"
    info = host.get_fact(facts.Json, script=f"cd / && {pgbackrest} --io-timeout=5 --output=json info")
    code, message = repository_state(info)
    if info is None and not context.state.is_executing:  # a look at a host that is yet to get pgBackRest
        code = MISSING[0]
    if code == UNREADABLE:
        problem = f"{host.name} cannot read the repository at {hosts.settings(BackupSettings).s3_endpoint} ({message}): {_NEXT}"
        findings.report(problem)
        yield refusal(problem)
        return
    if code in MISSING:
        findings.report("the repository has no stanza")
        yield f"cd / && {pgbackrest} stanza-create"
        yield f"cd / && {pgbackrest} check"
    if not verified(info):
        findings.report("there is no verified backup")
        # Here, whoever's turn it is: the deploy waits for it, and a standby may be about to be made from it.
        problem = f"The first backup of {host.name} failed: it says above why; deploy again when it is mended."
        yield f"{PROGRAM} auto --here >/dev/null || {{ echo {shlex.quote(problem)} >&2; exit 1; }}"


_NEXT = "check backup_s3_* in the inventory, the S3 keys, and the way to the service (docs/runbooks/BackupRepositoryUnreachable.md)."

OK, NO_BACKUP, UNREADABLE = 0, 2, 99
MISSING = (1, 3)
"""pgBackRest's status codes of a stanza: its path is missing, its data are missing."""


def repository_state(info: Any) -> tuple[int, str]:
    """pgBackRest's status code of the stanza, and its words, from the output of `info`."""
    if not info:
        return UNREADABLE, "pgbackrest info says nothing"
    status = info[0]["status"]
    reasons = [repo["status"]["message"] for repo in info[0].get("repo", []) if repo["status"]["code"] == status["code"]]
    message = " ".join(str((reasons or [status["message"]])[0]).split())
    return int(status["code"]), message


def verified(info: Any) -> bool:
    """Whether a whole backup was read back and found well; services/backup.py writes that beside it."""
    return any("verified" in one.get("annotation", {}) and not one.get("error") for one in (info or [{}])[0].get("backup", []))


@deploy("Retention")
def retention() -> None:
    """Old backups go, and what interrupted ones left; with an account that may delete, which database hosts do not have."""
    settings = hosts.settings(BackupSettings)
    exporters.account(name=f"User {RETENTION_USER}", user=RETENTION_USER)
    files(
        name="Configuration",
        entries=[
            Directory("/etc/pgbackrest-retention", "root", RETENTION_USER, "750"),
            File(
                RETENTION_CONFIG,
                template("pgbackrest/retention.conf.j2", cfg=settings, **_repository(generated.RETENTION_KEYS)),
                "root",
                RETENTION_USER,
                "640",
            ),
            File(RETENTION, _service("retention.py"), mode="755"),
            *[
                File(
                    f"{UNITS}/{name}",
                    template(
                        f"pgbackrest/{name}.j2", program=RETENTION, config=RETENTION_CONFIG, user=RETENTION_USER, stanza=settings.stanza
                    ),
                )
                for name in ("phoenix-retention.service", "phoenix-retention.timer")
            ],
        ],
    )
    units_read(name="Unit is known", units=["phoenix-retention.service"])
    service(name="Old backups go", unit="phoenix-retention.timer", restart_on=[f"{UNITS}/phoenix-retention.timer"])
