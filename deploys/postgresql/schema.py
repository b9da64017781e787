"""The schema: Flyway applies sql/ in order; what its repeatable files define is put back when somebody changed it by hand."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from pyinfra import context, host
from pyinfra.api import StringCommand, deploy, operation

from deploys import tls
from deploys.lib import artifacts, findings, hosts, region2
from deploys.lib.operations import Commands, File, files, refusal, template, upload
from deploys.lib.rendering import TEMPLATES
from deploys.lib.settings import ROOT, PostgresqlSettings
from deploys.postgresql.catalog import DIFFERENCES, MIGRATIONS, RECORD, RECORDED, STRUCTURE
from deploys.postgresql.database import NAME
from deploys.postgresql.psql import Query, execute, of_leader

PACKAGES = ["openjdk-21-jre-headless"]
SQL = ROOT / "sql"
HOME = "/opt/phoenix/flyway"
CONFIG = "/etc/phoenix/flyway.conf"
CONTRACTS = "-- contracts:"
"""How the first line of a migration begins that drops, renames or narrows something (docs/schema.md)."""

APPLIED = """
SELECT CASE WHEN to_regclass('phoenix.flyway_schema_history') IS NULL THEN '{}'::json ELSE
    (SELECT coalesce(json_object_agg(script, json_build_object('checksum', checksum, 'success', success)), '{}') FROM (
        SELECT DISTINCT ON (script) script, checksum, success FROM phoenix.flyway_schema_history
        WHERE version IS NOT NULL OR script LIKE 'R\\_\\_%' ORDER BY script, installed_rank DESC) last)
END
"""


@deploy("Schema")
def schema() -> None:
    """Every migration in sql/ is applied, none was edited afterwards, and functions, views, policies and grants are as the files say."""
    upload(name="Flyway", source=lambda: artifacts.jars(TEMPLATES / "flyway" / "pom.xml"), directory=f"{HOME}/lib")
    upload(name="Migrations", source=lambda: SQL, directory=f"{HOME}/sql", pattern="[VR]*__*")
    files(
        name="How Flyway logs in",
        entries=[
            File(
                CONFIG,
                template(
                    "flyway/flyway.conf.j2",
                    database=NAME,
                    port=hosts.settings(PostgresqlSettings).port,
                    ca=tls.CA,
                    sql=f"{HOME}/sql",
                    password=hosts.secret("postgresql/architect"),
                ),
                mode="600",
            )
        ],
    )
    if region2.NAME in host.groups:
        # A copy has every column before the first row with it arrives, and loses one after the last row with it has.
        migrate(name="Migrations that add, on the copy", contracting=False)
    else:
        migrate(name="Migrations applied")
    if region2.NAME in host.groups:
        migrate(name="Migrations that take away, on the copy")
    mend(name="Functions, views, policies and grants as the files say")


def checksum(path: Path) -> int:
    """Flyway's checksum of a migration: CRC-32 over the lines without their ends, as a signed 32-bit integer."""
    crc = 0
    # What ends a line is \n, \r\n or \r, all read as \n here; splitlines() would take more characters for ends.
    for line in path.read_text(encoding="utf-8").removeprefix("\ufeff").split("\n"):
        crc = zlib.crc32(line.encode(), crc)
    return crc - (1 << 32) if crc & (1 << 31) else crc


def migrations() -> dict[str, int]:
    """Checksum of each migration by file name."""
    return {path.name: checksum(path) for pattern in ("V*__*.sql", "R__*.sql") for path in sorted(SQL.glob(pattern))}


def contracts(name: str) -> bool:
    """Whether a versioned migration says in its first line that it takes away what a row of before may still have."""
    first, _, _ = (SQL / name).read_text(encoding="utf-8").partition("\n")
    return name.startswith("V") and first.startswith(CONTRACTS)


@operation()
def migrate(*, contracting: bool = True) -> Commands:
    """Flyway has applied every file as it is now. It is started only when its history says otherwise: a JVM costs seconds.

    Without `contracting` it goes as far as the first migration that takes something away; that one, and those behind it, have their turn
    when the publisher has applied them.
    """
    leads, found = of_leader(APPLIED, database=NAME)
    if not leads:
        return
    applied: dict[str, Any] = found or {}
    pending = [name for name, crc in migrations().items() if applied.get(name) != {"checksum": crc, "success": True}]
    if not pending:
        return
    edited = [name for name in pending if name.startswith("V") and applied.get(name, {}).get("success")]
    if edited:
        findings.report(f"{', '.join(edited)} differ from what was applied")
        yield refusal(f"{', '.join(edited)} were applied before with other content: put them back and write a new migration.")
        return
    differing = _differing() or []
    by_hand = [what for what in differing if what.startswith(STRUCTURE)]
    if by_hand and MIGRATIONS not in differing:  # else an earlier run came as far as some migrations, and these are theirs
        # What is there when migrations have run becomes the record that drift compares with: nothing may slip in with them.
        findings.report(f"changed by hand: {_some(by_hand)}")
        yield _cannot_be_put_back(by_hand)
        return
    target = "latest" if contracting else _before_contraction(pending)
    if target is None:
        return
    findings.report(f"not applied: {', '.join(pending)}")
    # It lives for a second: no time to optimise. Its history tells times without a zone; ours is UTC.
    java = f"java -Xmx256m -XX:TieredStopAtLevel=1 -Duser.timezone=UTC -cp '{HOME}/lib/*'"
    yield f"cd {HOME} && {java} org.flywaydb.commandline.Main -configFiles={CONFIG} -skipCheckForUpdate -target={target} migrate"
    if target == "latest":
        yield from _record()


def _before_contraction(pending: list[str]) -> str | None:
    """Flyway's target in front of the first pending contraction; `latest` without one, None when nothing comes before it."""
    versions = sorted((name for name in migrations() if name.startswith("V")), key=_version)
    stops = [name for name in versions if name in pending and contracts(name)]
    if not stops:
        return "latest"
    before = [name for name in versions if name in pending and _version(name) < _version(stops[0])]
    return ".".join(map(str, _version(before[-1]))) if before else None


def _version(name: str) -> tuple[int, ...]:
    """`V13.2__persona_pages.sql` as (13, 2)."""
    return tuple(int(part) for part in name.removeprefix("V").partition("__")[0].split("."))


@operation()
def mend() -> Commands:
    """The catalogue is what it was right after the last migration; where it is not, the repeatable files are applied again.

    A table's columns, constraints and indexes that were changed by hand are named and refused: no file can put back data.
    """
    leads, differing = of_leader(DIFFERENCES, database=NAME)
    if not leads:
        return
    if differing is None and host.get_fact(Query, sql=RECORDED, database=NAME):
        # To record now would make right whatever stands in the way.
        findings.report("the catalogue cannot be compared with its record")
        yield refusal(
            f"The catalogue of database {NAME} cannot be compared with its record: deploy again, or look at 'phoenix logs patroni'."
        )
    elif differing is None or MIGRATIONS in differing:  # a run ended between the migrations and the record of them
        yield from _record()
    elif differing:
        findings.report(f"changed by hand: {_some(differing)}")
        yield _repeatables()
        if context.state.is_executing and (left := _differing()):
            yield _cannot_be_put_back(left)


def _differing() -> list[str] | None:
    """Objects that differ from the recorded catalogue, with how; None when nothing was recorded yet."""
    differing: list[str] | None = host.get_fact(Query, sql=DIFFERENCES, database=NAME)
    return differing


def _record() -> Commands:
    """Commands after which everything that the repeatable files define is theirs, and the catalogue is recorded."""
    yield _repeatables()
    yield execute(RECORD, database=NAME)


def _repeatables() -> StringCommand:
    sql = "\n".join(path.read_text(encoding="utf-8") for path in sorted(SQL.glob("R__*.sql")))
    return execute(sql, database=NAME, settings="-c role=phoenix_owner -c phoenix.migrating=on")


def _cannot_be_put_back(objects: list[str]) -> StringCommand:
    return refusal(
        f"{_some(objects)} in database {NAME}: changed by hand, and no repeatable file puts it back: "
        "undo the change by hand, or write a migration that makes it."
    )


def _some(names: list[str]) -> str:
    """A list for people: the first dozen names."""
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return ", ".join(names[:12]) + more
