"""The worker: Connect's jars and Debezium under a JVM, its settings, its unit. What it knows is in Kafka; on its host it keeps nothing."""

from __future__ import annotations

import sys
from collections import Counter

from pyinfra import host
from pyinfra.api import Host, deploy

from deploys import base, exporters, tls
from deploys.kafka import cluster
from deploys.lib import artifacts, hosts, java, outbox, sizing
from deploys.lib.operations import Directory, File, files, service, template, upload
from deploys.lib.rendering import TEMPLATES
from deploys.lib.settings import ConnectSettings, GatewaySettings, PostgresqlSettings, SettingsError, of

PACKAGES = java.PACKAGES
SERVICE = "phoenix-connect"
USER = "phoenix-connect"
HOME = "/opt/phoenix/connect"
PLUGINS = "/opt/phoenix/connect-plugins"
CONFIGURATION = "/etc/phoenix-connect"
CONFIG, LOG4J, JMX, SECRETS = (f"{CONFIGURATION}/{name}" for name in ("worker.properties", "log4j2.xml", "jmx.yml", "secrets.properties"))
AGENT = f"{HOME}/jmx_prometheus_javaagent-1.0.1.jar"
UNIT = f"/etc/systemd/system/{SERVICE}.service"
JVM = java.Jvm(SERVICE, USER, jars=HOME)


def members() -> list[Host]:
    """Members of the cluster whose outbox is read, by name. Raises SettingsError when the inventory has none."""
    wanted = hosts.settings(ConnectSettings).cluster_name
    found = [member for member in hosts.members("postgresql") if of(member, PostgresqlSettings).cluster_name == wanted]
    if not found:
        raise SettingsError(
            f"host {host.name}: connect_cluster_name is {wanted}, and no host of group postgresql has that cluster: correct it."
        )
    return found


def database() -> tuple[str, int]:
    """Address and port that lead to whoever takes writes.

    HAProxy on the host itself, where there is one: it cuts a connection to a server that does not lead any more, also when that one's
    machine is gone and nothing would ever be heard of it. A cluster of one needs nobody to ask. Raises SettingsError for a cluster of
    several without a gateway on the host.
    """
    serving = members()
    settings = hosts.settings(ConnectSettings)
    if "gateway" in host.groups and hosts.settings(GatewaySettings).cluster_name == settings.cluster_name:
        return "127.0.0.1", hosts.settings(GatewaySettings).writer_port
    if len(serving) > 1:
        raise SettingsError(
            f"host {host.name} is in group connect and not in gateway, and cluster {settings.cluster_name} has {len(serving)} members: "
            "add it to gateway, whose HAProxy knows who leads."
        )
    return hosts.address(serving[0]), of(serving[0], PostgresqlSettings).port


def preflight() -> None:
    """Raise SettingsError, before anything changes, when the inventory cannot work."""
    database()
    if not cluster.members():
        raise SettingsError(f"host {host.name} is in group connect and no host is in group kafka: add one.")
    several = Counter(of(one, ConnectSettings).cluster_name for one in hosts.members("connect"))
    if name := next((name for name, count in several.items() if count > 1), None):
        raise SettingsError(
            f"group connect has {several[name]} hosts for cluster {name}: leave one, any other can take over (docs/change-events.md)."
        )


@deploy("Kafka Connect")
def worker() -> None:
    """The worker runs with these settings. Its connector follows (connector.py)."""
    exporters.account(name=f"User {USER}", user=USER)
    upload(name="Connect", source=lambda: artifacts.jars(TEMPLATES / "connect" / "pom.xml"), directory=HOME)
    upload(name="Debezium", source=lambda: artifacts.archive(TEMPLATES / "connect" / "plugins.sha256"), directory=PLUGINS)
    own, settings = sys.modules[__name__], hosts.settings(ConnectSettings)
    files(
        name="Configuration",
        entries=[
            Directory(CONFIGURATION),
            File(
                CONFIG,
                template(
                    "connect/worker.properties.j2",
                    cfg=settings,
                    outbox=outbox,
                    bootstrap=cluster.bootstrap(),
                    copies=cluster.copies(len(cluster.members())),
                    plugins=PLUGINS,
                    tls=tls,
                ),
            ),
            File(SECRETS, _secrets, mode="600"),
            File(LOG4J, template("connect/log4j2.xml.j2")),
            File(JMX, template("connect/jmx.yml.j2")),
            File(UNIT, template("connect/phoenix-connect.service.j2", cfg=settings, heap_mb=_heap_mb, worker=own, java=java)),
        ],
    )
    java.noted(name="A worker without an archive of classes notes them", jvm=JVM)
    read = [CONFIG, SECRETS, LOG4J, JMX, UNIT, JVM.dropin, tls.CA, f"{HOME}/.phoenix-digest", f"{PLUGINS}/.phoenix-digest"]
    service(name="Connect runs with this configuration", unit=f"{SERVICE}.service", restart_on=read)


def archive() -> None:
    """The worker's next start finds its classes, those of a running connector among them."""
    java.archived(name="Connect | The next start finds its classes", jvm=JVM)


def _heap_mb() -> int:
    return sizing.connect_heap_mb(base.memory_mb())


def _secrets() -> str:
    """A Java properties file; passwords have letters, digits, `-` and `_` only."""
    store = hosts.secrets()
    return f"kafka={store.get('kafka/connect')}\npostgresql={store.get('postgresql/connect')}\n"
