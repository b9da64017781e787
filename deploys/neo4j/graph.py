"""What looks after the graph on Neo4j's host: migrations, metrics, the comparison with PostgreSQL, the nightly dump."""

from __future__ import annotations

import json
import sys

from pyinfra import host
from pyinfra.api import Host, deploy, operation

from deploys import exporters, tls
from deploys.lib import artifacts, facts, findings, hosts, verify
from deploys.lib.operations import Commands, Directory, File, files, service, template, units_read, upload
from deploys.lib.settings import ROOT, HostSettings, Neo4jSettings, PostgresqlSettings, SettingsError, of
from deploys.neo4j import driver

USER = "phoenix-graph"
LIBRARY = "/usr/local/lib/phoenix"
KEEPER = f"{LIBRARY}/graph_keeper.py"
DRIVER = "/opt/phoenix/neo4j/driver"
CYPHER = "/opt/phoenix/neo4j/cypher"
DIRECTORY = "/etc/phoenix-graph"
CONFIG = f"{DIRECTORY}/graph.json"
DUMPS = "/var/lib/phoenix-graph-backup"
UNITS = "/etc/systemd/system"
TIMERS = ("metrics", "parity")
SOURCES = ("graph_keeper.py", "phoenix_stream/graph.py", "phoenix_stream/neo4j_driver.py")


def members() -> list[Host]:
    """Members of the cluster that the graph is made from. Raises SettingsError when the inventory has none."""
    wanted = hosts.settings(Neo4jSettings).cluster_name
    found = [member for member in hosts.members("postgresql") if of(member, PostgresqlSettings).cluster_name == wanted]
    if not found:
        raise SettingsError(
            f"host {host.name}: neo4j_cluster_name is {wanted}, and no host of group postgresql is in a cluster of that name: name theirs."
        )
    return found


def backs_up(member: Host) -> bool:
    """Whether dumps are taken on a host: it has the account of the offsite repository."""
    return "backup" in member.groups


def configuration() -> str:
    """What services/graph_keeper.py reads; no secret."""
    settings, found = hosts.settings(Neo4jSettings), members()
    return json.dumps(
        {
            "host": str(host.name),
            "uri": f"bolt://{hosts.settings(HostSettings).address}:{settings.port}",
            "ca": tls.CA,
            "postgresql": {"hosts": [hosts.address(member) for member in found], "port": of(found[0], PostgresqlSettings).port},
            "settle_s": settings.parity_settle_s,
        },
        indent=1,
    )


def installed() -> None:
    """The program and its units are in place; before Neo4j first runs."""
    settings = hosts.settings(Neo4jSettings)
    upload(name="Driver", source=lambda: driver.directory(artifacts.cache()), directory=DRIVER)
    upload(name="Migrations of the graph", source=lambda: ROOT / "sql" / "cypher", directory=CYPHER, pattern="V*__*.cypher")
    units = {f"phoenix-graph-{name}.{kind}" for name in TIMERS for kind in ("service", "timer")}
    if backs_up(host):
        units |= {"phoenix-graph-backup.service", "phoenix-graph-backup.timer"}
    files(
        name="Program and units",
        entries=[
            Directory(f"{LIBRARY}/phoenix_stream"),
            *[File(f"{LIBRARY}/{name}", (ROOT / "services" / name).read_text(encoding="utf-8"), mode="755") for name in SOURCES],
            Directory(DIRECTORY),
            Directory(DUMPS),
            File(CONFIG, configuration),
            File(f"{DIRECTORY}/neo4j.password", hosts.secret("neo4j/neo4j"), mode="600"),
            File(f"{DIRECTORY}/graph.password", hosts.secret("postgresql/graph"), mode="600"),
            *[
                File(
                    f"{UNITS}/{name}",
                    template(
                        "neo4j/" + name.replace("metrics", "watch").replace("parity", "watch") + ".j2",
                        cfg=settings,
                        keeper=sys.modules[__name__],
                        what=name.removeprefix("phoenix-graph-").partition(".")[0],
                        textfiles=exporters.TEXTFILES,
                    ),
                )
                for name in sorted(units)
            ],
        ],
    )


@deploy("Graph")
def graph() -> None:
    """The graph is measured, compared and backed up."""
    names = [*TIMERS, *(["backup"] if backs_up(host) else [])]
    units_read(name="Units are known", units=[f"phoenix-graph-{name}.service" for name in names])
    for name in names:
        service(
            name=f"phoenix-graph-{name} runs on schedule",
            unit=f"phoenix-graph-{name}.timer",
            restart_on=[f"{UNITS}/phoenix-graph-{name}.timer"],
        )
    verify.answers(
        name="The graph can be read and written",
        script=f"{KEEPER} wait",
        seconds=60,
        problem=f"Neo4j on {host.name} does not let the graph's keeper in: run '{KEEPER} login' there.",
    )


@operation()
def migrations() -> Commands:
    """Every file of sql/cypher/ is applied to the store as it is now, and noted in phoenix.schema_version."""
    pending = host.get_fact(facts.Json, script=f"test ! -e {KEEPER} || {KEEPER} pending")
    if pending == []:
        return
    findings.report(f"not applied to the graph: {', '.join(pending or ['everything'])}")
    yield f"{KEEPER} migrate"
