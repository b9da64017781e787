#!/usr/bin/python3 -sE
"""Looks after the knowledge graph on Neo4j's host. The deploy, timers and `phoenix graph` call it (docs/graph.md).

    graph_keeper.py login|wait               whether Neo4j takes the password: ok, refused or away; wait up to two minutes for ok
    graph_keeper.py pending|migrate          files of sql/cypher/ that are not applied, as a JSON list; apply them
    graph_keeper.py warm-up                  have Neo4j plan and run, on a row that is taken back, one statement of each kind that writes
    graph_keeper.py metrics|parity FILE      for the node exporter: what Neo4j holds; how it differs from PostgreSQL
    graph_keeper.py check|rebuild            the same and its repair, for a person: one JSON object on stdout, progress on stderr
    graph_keeper.py backup|backups|restore   a dump into the offsite repository, encrypted; list them; bring one back (the newest, or NAME)
    graph_keeper.py set-password             ends Neo4j's standstill with the present password; neo4j-password.service runs it

Passwords are credentials of the unit, or files that root reads. Exit codes: 0 done, 1 failed, 3 the graph differs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), "/opt/phoenix/neo4j/driver"]

import psycopg  # noqa: E402 - the path comes first
from neo4j import GraphDatabase  # noqa: E402
from neo4j.exceptions import AuthError, ClientError, DriverError, Neo4jError  # noqa: E402
from phoenix_stream import graph  # noqa: E402
from phoenix_stream.neo4j_driver import connect  # noqa: E402

CONFIG = Path("/etc/phoenix-graph/graph.json")
CYPHER = Path("/opt/phoenix/neo4j/cypher")
HOME, CONF, STATE = "/opt/phoenix/neo4j", "/etc/neo4j", "/var/lib/neo4j"
LAST_BACKUP = Path("/var/lib/phoenix-graph-backup/last.json")
PGBACKREST, REPOSITORY = "/usr/bin/pgbackrest", Path("/etc/pgbackrest/pgbackrest.conf")
START_S = 120.0
NAMED = 10
"""Differences that the journal names."""
DONE, FAILED, DIFFERS = 0, 1, 3


class Failed(Exception):
    """It did not work; the text says what, why, and what to do."""


# ----------------------------------------------------------------------------------------------------------------- connections
def settings() -> dict[str, Any]:
    """What the deploy says of this host."""
    found: dict[str, Any] = json.loads(CONFIG.read_text(encoding="utf-8"))
    return found


def credential(name: str) -> str:
    """A password, from systemd or from root's file."""
    given = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(given, name) if given else CONFIG.with_name(f"{name}.password")
    return path.read_text(encoding="utf-8").strip()


def neo4j() -> Any:
    """A driver for this host's Neo4j."""
    return connect(uri=settings()["uri"], user="neo4j", password=credential("neo4j"), ca=settings()["ca"])


def postgresql() -> psycopg.Connection[Any]:
    """The server that leads, as `graph`, which may read the graph's elements and nothing else."""
    return psycopg.connect(
        host=",".join(settings()["postgresql"]["hosts"]),
        port=settings()["postgresql"]["port"],
        dbname="phoenix",
        user="graph",
        password=credential("graph"),
        sslmode="verify-full",
        sslrootcert=settings()["ca"],
        target_session_attrs="read-write",
        connect_timeout=10,
        application_name="phoenix-graph",
        autocommit=True,
    )


def login() -> str:
    """Whether Neo4j takes the password: ok, refused, or away."""
    try:
        with neo4j() as driver:
            driver.verify_connectivity()
    except (AuthError, ClientError):  # the latter after several wrong ones
        return "refused"
    except (DriverError, Neo4jError, OSError):
        return "away"
    return "ok"


def wait() -> None:
    """Wait until Neo4j takes the password. Raises Failed."""
    end = time.monotonic() + START_S
    while (said := login()) != "ok":
        if time.monotonic() > end:
            raise Failed(f"Neo4j is {said} after {START_S:.0f} s: see 'phoenix logs neo4j'.")
        time.sleep(1)


# ----------------------------------------------------------------------------------------------------------------- migrations
def migrations() -> dict[str, tuple[str, str, str]]:
    """Description, checksum and text of each file of sql/cypher/, by its version, in order."""
    found = {}
    for path in CYPHER.glob("V*__*.cypher"):
        version, _, description = path.stem.removeprefix("V").partition("__")
        text = path.read_text(encoding="utf-8")
        found[version] = (description.replace("_", " "), hashlib.sha256(text.encode()).hexdigest(), text)
    return dict(sorted(found.items(), key=lambda one: [int(part) for part in one[0].split(".")]))


def statements(text: str) -> list[str]:
    """The statements of a file, without comments; none has a semicolon inside."""
    bare = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("//"))
    return [one.strip() for one in bare.split(";") if one.strip()]


def pending() -> list[str]:
    """Versions that are not applied: what they make is not in the store, or PostgreSQL has no note of them."""
    with neo4j() as driver, postgresql() as database:
        made = {record["name"] for what in ("CONSTRAINTS", "INDEXES") for record in driver.execute_query(f"SHOW {what} YIELD name").records}
        noted = dict(database.execute("SELECT version, checksum FROM phoenix.graph_migrations").fetchall())
    return [
        version
        for version, (_, checksum, text) in migrations().items()
        if noted.get(version) != checksum or not set(re.findall(r"^CREATE (?:CONSTRAINT|INDEX) (\w+)", text, re.MULTILINE)) <= made
    ]


def migrate() -> None:
    """Apply what is not. Every statement bears repetition."""
    wanted = pending()
    with neo4j() as driver, postgresql() as database:
        for version in wanted:
            description, checksum, text = migrations()[version]
            for statement in statements(text):
                driver.execute_query(statement)
            driver.execute_query("CALL db.awaitIndexes(300)")
            database.execute("SELECT phoenix.record_graph_migration(%s, %s, %s)", [version, description, checksum])
            print(f"{version} {description}", file=sys.stderr)


# ----------------------------------------------------------------------------------------------------------------- metrics
def gauge(name: str, text: str, values: dict[str, float]) -> list[str]:
    """One metric as the node exporter reads it, its values by their labels."""
    return [f"# HELP {name} {text}", f"# TYPE {name} gauge", *(f"{name}{labels} {value:.15g}" for labels, value in values.items())]


def metrics() -> list[str]:
    """What Neo4j holds, and when it was last sent offsite."""
    lines, up = [], False
    try:
        with neo4j() as driver:
            nodes = {f'{{label="{label}"}}': _count(driver, f"MATCH (n:{label})") for label in (*graph.NODES, "Gone")}
            edges = {f'{{type="{edge.type}"}}': _count(driver, f"MATCH ()-[n:{edge.type}]->()") for edge in graph.EDGES}
            running = driver.execute_query("SHOW TRANSACTIONS YIELD transactionId RETURN count(*) AS n").records[0]["n"]
            heap = driver.execute_query(
                'CALL dbms.queryJmx("java.lang:type=Memory") YIELD attributes RETURN attributes.HeapMemoryUsage.value.properties AS heap'
            ).records[0]["heap"]
        up = True
        lines += gauge("phoenix_graph_nodes", "Nodes by label; Gone are memories of deleted edges.", nodes)
        lines += gauge("phoenix_graph_edges", "Edges by type.", edges)
        lines += gauge("phoenix_neo4j_transactions", "Transactions that run now.", {"": running})
        lines += gauge("phoenix_neo4j_heap_used_bytes", "Used heap.", {"": heap["used"]})
        lines += gauge("phoenix_neo4j_heap_max_bytes", "Largest heap.", {"": heap["max"]})
    except (Neo4jError, DriverError, OSError) as error:
        print(f"Neo4j does not answer: {' '.join(str(error).split())}", file=sys.stderr)
    lines += gauge("phoenix_neo4j_up", "Whether Neo4j answers with its password.", {"": up})
    lines += gauge("phoenix_neo4j_checked_timestamp_seconds", "When this was found out.", {"": time.time()})
    with suppress(OSError, ValueError):
        last = json.loads(LAST_BACKUP.read_text(encoding="utf-8"))
        lines += gauge("phoenix_graph_backup_last_success_timestamp_seconds", "When the newest dump was offsite.", {"": last["at"]})
        lines += gauge("phoenix_graph_backup_size_bytes", "Size of the newest dump.", {"": last["bytes"]})
        lines += gauge("phoenix_graph_backup_duration_seconds", "How long the newest dump took.", {"": last["seconds"]})
    return lines


def _count(driver: Any, match: str) -> float:
    return float(driver.execute_query(f"{match} RETURN count(n) AS n").records[0]["n"])


def parity() -> list[str]:
    """How the graph differs from PostgreSQL. Raises Failed when one of them does not answer: then what was known stays, and gets old."""
    try:
        with neo4j() as driver, postgresql() as database:
            found = graph.check(driver, database, settle_s=settings()["settle_s"])
    except (Neo4jError, DriverError, psycopg.Error, OSError) as error:
        raise Failed(f"could not compare: {' '.join(str(error).split())}") from error
    for difference in found.differences[:NAMED]:
        print(difference)
    kinds = {f'{{kind="{kind}"}}': sum(one.kind == kind for one in found.differences) for kind in (*graph.NODES, *graph.BY_TYPE)}
    return [
        *gauge("phoenix_graph_elements", "Nodes and edges that there have to be, by PostgreSQL.", {"": found.nodes + found.edges}),
        *gauge(
            "phoenix_graph_differences", "Nodes and edges that differ, by label or type.", {**kinds, '{kind="unknown"}': found.strangers}
        ),
        *gauge("phoenix_graph_checked_timestamp_seconds", "When everything was last compared.", {"": time.time()}),
        *gauge("phoenix_graph_check_seconds", "How long that took.", {"": found.seconds}),
    ]


def write(path: Path, lines: Sequence[str]) -> None:
    """Replace `path` in one step."""
    new = path.with_suffix(".new")
    new.write_text("\n".join(lines) + "\n", encoding="utf-8")
    new.replace(path)


# ----------------------------------------------------------------------------------------------------------------- for people
def person(what: str) -> int:
    """A check or a rebuild, said in JSON."""
    work: Callable[..., graph.Result] = graph.check if what == "check" else graph.rebuild

    def said(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        with neo4j() as driver, postgresql() as database:
            found = work(driver, database, said=said, **({"settle_s": settings()["settle_s"]} if what == "check" else {}))
    except (Neo4jError, DriverError, psycopg.Error, OSError, graph.Settling) as error:
        raise Failed(" ".join(str(error).split())) from error
    same = not (found.differences or found.strangers)
    print(
        json.dumps(
            {
                "ok": same or what == "rebuild",
                "nodes": found.nodes,
                "edges": found.edges,
                "differences": len(found.differences) + found.strangers,
                "unknown": found.strangers,
                "written": found.written,
                "first": [str(one) for one in found.differences[:100]],
                "seconds": round(found.seconds, 2),
            }
        )
    )
    return DONE if same or what == "rebuild" else DIFFERS


# ----------------------------------------------------------------------------------------------------------------- backup
def backup() -> None:
    """Stop Neo4j, dump it into the repository, start it, read the dump back. Raises Failed."""
    started = time.time()
    name = f"neo4j/{settings()['host']}/{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.dump"
    with tempfile.TemporaryDirectory(prefix="phoenix-graph-", dir="/var/lib/phoenix-graph-backup") as scratch:
        dump = Path(scratch) / "neo4j.dump"
        with _standing_still(), dump.open("wb") as out:
            _admin(["database", "dump", "neo4j", "--to-stdout"], stdout=out)
        with dump.open("rb") as content:
            digest, size = hashlib.file_digest(content, "sha256").hexdigest(), dump.stat().st_size
        if not size:
            raise Failed("Neo4j's dump is empty: see 'phoenix logs graph-backup'.")
        with dump.open("rb") as content:
            _repository(["repo-put", name], stdin=content)
        back = Path(scratch) / "back.dump"
        with back.open("wb") as out:
            _repository(["repo-get", name], stdout=out)
        with back.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != digest:
                raise Failed(f"{name} is not in the repository as it was sent: see docs/runbooks/GraphBackupOld.md.")
    wait()
    said = {"ok": True, "name": name, "bytes": size, "at": time.time(), "seconds": round(time.time() - started, 1)}
    LAST_BACKUP.write_text(json.dumps(said), encoding="utf-8")
    LAST_BACKUP.chmod(0o644)
    print(json.dumps(said))


def backups() -> list[str]:
    """Names of the dumps in the repository, the oldest first."""
    done = _repository(["repo-ls", f"neo4j/{settings()['host']}", "--output=json"], stdout=subprocess.PIPE)
    return sorted(f"neo4j/{settings()['host']}/{name}" for name in json.loads(done.stdout or b"{}") if name.endswith(".dump"))


def restore(name: str | None) -> None:
    """Replace the graph by a dump. `phoenix graph rebuild` then brings it up to the present. Raises Failed."""
    there = backups()
    chosen = name or (there[-1] if there else None)
    if chosen is None or chosen not in there:
        raise Failed(f"there is no dump {chosen or 'at all'}: 'graph_keeper.py backups' lists them; 'phoenix graph rebuild' needs none.")
    with tempfile.TemporaryDirectory(prefix="phoenix-graph-", dir="/var/lib/phoenix-graph-backup") as scratch:
        dump = Path(scratch) / "neo4j.dump"
        with dump.open("wb") as out:
            _repository(["repo-get", chosen], stdout=out)
        with _standing_still(), dump.open("rb") as content:
            _admin(["database", "load", "neo4j", "--from-stdin", "--overwrite-destination=true"], stdin=content)
    wait()
    print(json.dumps({"ok": True, "name": chosen}))


@contextmanager
def _standing_still() -> Iterator[None]:
    """Neo4j is stopped inside, and runs again afterwards, whatever happens."""
    subprocess.run(["systemctl", "stop", "neo4j.service"], check=True)
    try:
        yield
    finally:
        subprocess.run(["systemctl", "start", "neo4j.service"], check=True)


def _admin(words: Sequence[str], **streams: Any) -> None:
    """One command of neo4j-admin, as the user of the store. Raises Failed."""
    java = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-cp", f"{HOME}/lib/*", "org.neo4j.server.startup.Neo4jAdminCommand", *words]
    user = ["setpriv", "--reuid=neo4j", "--regid=neo4j", "--init-groups", "--inh-caps=-all", "--no-new-privs"]
    environment = {"PATH": os.environ["PATH"], "NEO4J_HOME": STATE, "NEO4J_CONF": CONF, "HEAP_SIZE": "256m"}
    done = subprocess.run([*user, *java], env=environment, cwd="/", stderr=subprocess.PIPE, check=False, **streams)
    if done.returncode != 0:
        raise Failed(f"neo4j-admin {' '.join(words[:2])}: {_last(done.stderr)}")


def _repository(words: Sequence[str], **streams: Any) -> subprocess.CompletedProcess[bytes]:
    """One command of pgBackRest outside of any stanza, which encrypts with the repository's key. Raises Failed."""
    # For a file of a backup it finds the key by itself, for one of ours it has to be told.
    key = re.search(r"^repo1-cipher-pass=(.+)$", REPOSITORY.read_text(encoding="utf-8"), re.MULTILINE)
    if key is None:
        raise Failed(f"{REPOSITORY} has no repo1-cipher-pass, so the dump would not be encrypted: deploy again.")
    environment = {**os.environ, "PGBACKREST_CIPHER_PASS": key[1].strip()}
    done = subprocess.run([PGBACKREST, *words], cwd="/", env=environment, stderr=subprocess.PIPE, check=False, **streams)
    if done.returncode != 0:
        raise Failed(f"pgbackrest {words[0]}: {_last(done.stderr)}: see docs/runbooks/BackupRepositoryUnreachable.md.")
    return done


def _last(log: bytes) -> str:
    return " ".join((log.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1].split())


# ----------------------------------------------------------------------------------------------------------------- password
def set_password() -> None:
    """Start Neo4j without a password in this unit's own network, give its user the present one, stop it. Raises Failed."""
    with tempfile.TemporaryDirectory() as scratch:
        conf = Path(CONF, "neo4j.conf").read_text(encoding="utf-8")
        kept = [line for line in conf.splitlines() if not line.startswith(("server.bolt.", "dbms.ssl.", "dbms.security.auth_enabled"))]
        ours = [
            "server.bolt.enabled=true",
            "server.bolt.listen_address=127.0.0.1:7687",
            "server.bolt.tls_level=DISABLED",
            "dbms.security.auth_enabled=false",
        ]
        Path(scratch, "neo4j.conf").write_text("\n".join([*kept, *ours]) + "\n", encoding="utf-8")
        server = subprocess.Popen(
            [
                "java",
                "-Xmx512m",
                "-cp",
                f"{HOME}/lib/*",
                "org.neo4j.server.CommunityEntryPoint",
                f"--home-dir={STATE}",
                f"--config-dir={scratch}",
                "--console-mode",
            ],
            cwd="/",
        )
        try:
            _alter(server)
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(timeout=60)
            except subprocess.TimeoutExpired:
                server.kill()


def _alter(server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_S
    while True:
        try:
            with GraphDatabase.driver("bolt://127.0.0.1:7687", telemetry_disabled=True, max_transaction_retry_time=0) as driver:
                driver.execute_query(
                    "ALTER USER neo4j SET PASSWORD $password CHANGE NOT REQUIRED", password=credential("neo4j"), database_="system"
                )
            return
        except ClientError as error:
            if "already set" in str(error) or "Old password and new password" in str(error):
                return
            raise Failed(f"Neo4j does not take the password: {error.code}") from None
        except (DriverError, Neo4jError, OSError) as error:
            if server.poll() is not None or time.monotonic() > end:
                raise Failed(f"Neo4j does not start to be given its password ({type(error).__name__}): see 'phoenix logs neo4j'.") from None
            time.sleep(1)


def warm_up() -> None:
    """Have Neo4j load what changes need: of nodes and of edges, that come and that go. Waits for it first. Raises Failed."""
    wait()
    with neo4j() as driver:
        for kind in (graph.NODES[0], graph.EDGES[0].type):
            for there in (True, False):
                graph.warm_up(driver, (kind, there), rounds=1)


ORDERS = {"wait": wait, "migrate": migrate, "warm-up": warm_up, "backup": backup, "set-password": set_password}
"""What takes no argument and says nothing."""


def main(words: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    what, rest = (words[0] if words else ""), list(words[1:])
    try:
        if what in ("check", "rebuild"):
            return person(what)
        if what == "login":
            print(login())
        elif what == "pending":
            print(json.dumps(pending()))
        elif what in ("metrics", "parity"):
            write(Path(rest[0]), metrics() if what == "metrics" else parity())
        elif what == "backups":
            print(json.dumps(backups()))
        elif what == "restore":
            restore(rest[0] if rest else None)
        elif what in ORDERS:
            ORDERS[what]()
        else:
            print(__doc__, file=sys.stderr)
            return FAILED
    except (Failed, Neo4jError, DriverError, psycopg.Error) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        if what in ("check", "rebuild", "backup", "restore"):
            print(json.dumps({"ok": False, "error": str(error)}))
        return FAILED
    return DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
