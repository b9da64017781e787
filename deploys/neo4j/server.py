"""Neo4j's server: jars, configuration, unit, and a password that was never another.

The first start finds the password's hash where Neo4j's own tool would have put it, so the default password is never valid. Later the
password is repaired by services/graph_keeper.py, behind a network namespace of its own.
"""

from __future__ import annotations

import hashlib
import secrets
import sys

from pyinfra import context, host
from pyinfra.api import StringCommand, deploy, operation

from deploys import base, exporters, tls
from deploys.lib import artifacts, facts, findings, hosts, java, sizing, verify
from deploys.lib.operations import Commands, Directory, File, files, service, template, units_read, upload, write_command
from deploys.lib.rendering import TEMPLATES
from deploys.lib.settings import HostSettings, Neo4jSettings
from deploys.neo4j import graph

PACKAGES = [*java.PACKAGES, "python3-psycopg"]
SERVICE = "neo4j"
USER = "neo4j"
HOME = "/opt/phoenix/neo4j"
STATE = "/var/lib/neo4j"
CONFIG = "/etc/neo4j"
CONF = f"{CONFIG}/neo4j.conf"
UNIT = f"/etc/systemd/system/{SERVICE}.service"
JVM = java.Jvm(SERVICE, USER, jars=f"{HOME}/lib", collector="-XX:+UseG1GC")
PASSWORD_UNIT = "/etc/systemd/system/neo4j-password.service"  # noqa: S105 - a path
INITIAL = f"{STATE}/data/dbms/auth.ini"
SYSTEM = f"{STATE}/data/databases/system"
"""There from the first start on; Neo4j reads INITIAL only before."""
ITERATIONS = 1024


def size() -> sizing.Neo4jSize:
    """Sizes for the present host."""
    return sizing.neo4j(memory_mb=base.memory_mb(), memory_share=hosts.settings(Neo4jSettings).memory_share)


@deploy("Neo4j")
def neo4j() -> None:
    """Neo4j answers over TLS with its password, has its constraints, and is measured, compared and backed up."""
    settings, own = hosts.settings(Neo4jSettings), hosts.settings(HostSettings).address
    exporters.account(name=f"User {USER}", user=USER)
    exporters.account(name=f"User {graph.USER}", user=graph.USER)
    tls.readers(name="Neo4j may read the host's key", users=[USER])
    upload(name="Server", source=lambda: artifacts.jars(TEMPLATES / "neo4j" / "pom.xml"), directory=f"{HOME}/lib")
    files(
        name="Configuration",
        entries=[
            Directory(CONFIG, "root", USER, "750"),
            File(CONF, template("neo4j/neo4j.conf.j2", cfg=settings, address=own, size=size, state=STATE, tls=tls), "root", USER, "640"),
            Directory(STATE, USER, USER, "750"),
            *[Directory(f"{STATE}/{name}", USER, USER, "750") for name in ("data", "data/dbms", "logs", "plugins", "import")],
            File(
                UNIT,
                template("neo4j/neo4j.service.j2", server=sys.modules[__name__], size=size, java=java),
            ),
            File(
                PASSWORD_UNIT,
                template("neo4j/neo4j-password.service.j2", keeper=graph, server=sys.modules[__name__], size=size),
            ),
        ],
    )
    graph.installed()
    initial_password(name="The first start knows the password")
    units_read(name="systemd knows how a password is repaired", units=["neo4j-password.service"])
    java.noted(name="A server without an archive of classes notes them", jvm=JVM)
    service(
        name="Neo4j runs with this configuration",
        unit=f"{SERVICE}.service",
        restart_on=[CONF, UNIT, JVM.dropin, f"{HOME}/lib/.phoenix-digest", *tls.ALL],
    )
    answers = f"openssl s_client -connect {own}:{settings.port} -CAfile {tls.CA} -verify_return_error -brief </dev/null"
    verify.answers(
        name="Neo4j answers over TLS",
        script=answers,
        seconds=120,
        problem=f"Neo4j on {host.name} does not answer at {own}:{settings.port}: look at 'phoenix logs neo4j'.",
    )
    password(name="Neo4j takes the password")
    graph.migrations(name="Migrations of the graph applied")
    # Half of what a change needs is loaded when the first one is written.
    java.archived(name="The next start finds its classes", jvm=JVM, exercise=f"{graph.KEEPER} warm-up")
    graph.graph()


@operation()
def initial_password() -> Commands:
    """Before the first start, the password's salted hash lies where `neo4j-admin dbms set-initial-password` would have put it: that tool
    takes the password as an argument, which everybody on the host can read."""
    there = host.get_fact(facts.PathStates, paths=[INITIAL, SYSTEM])
    if there:
        return
    findings.report("Neo4j has no password yet")
    entry = File(INITIAL, "", USER, USER, "600")
    yield StringCommand(write_command(entry), _stdin=credential(hosts.secrets().get("neo4j/neo4j"), secrets.token_bytes(32)) + "\n")


def credential(password: str, salt: bytes) -> str:
    """A line of auth.ini: the user neo4j with this password, which need not be changed. Apache Shiro's iterated SHA-256."""
    digest = salt + password.encode()
    for _ in range(ITERATIONS):
        digest = hashlib.sha256(digest).digest()
    return f"neo4j:SHA-256,{digest.hex()},{salt.hex()},{ITERATIONS}:"


@operation()
def password() -> Commands:
    """Neo4j takes the password of the secret store. Another is replaced while nobody else reaches the server."""
    said = str(host.get_fact(facts.Output, script=f"{graph.KEEPER} login"))
    if "refused" not in said:
        return
    findings.report("Neo4j has another password")
    yield "systemctl start neo4j-password.service && systemctl start neo4j.service"
    if context.state.is_executing:
        yield f"{graph.KEEPER} wait"
