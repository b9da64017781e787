"""Who may reach the host: SSH and the host's own services, each from its networks; everything else is dropped.

The rules live in a table of their own (`inet phoenix`), replaced in one transaction: other tables, such as the tailnet's, stay.
"""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy

from deploys.gateway import cluster
from deploys.lib import facts, findings, hosts, streams, tailnet
from deploys.lib.operations import File, files, service, template
from deploys.lib.settings import (
    BackupSettings,
    ConnectSettings,
    EtcdSettings,
    ExporterSettings,
    GatewaySettings,
    HostSettings,
    KafkaSettings,
    MonitoringSettings,
    N8nSettings,
    Neo4jSettings,
    PostgresqlSettings,
    RedisSettings,
    ServiceSettings,
    StreamSettings,
    TailscaleSettings,
    WorldSettings,
    of,
)
from deploys.postgresql import archive

RULES = "/etc/phoenix/firewall.nft"
UNIT = "/etc/systemd/system/phoenix-firewall.service"
LOADED = "/run/phoenix-firewall.sha256"
# Prints the table without the addresses that it counts.
LIST = "nft -s -t list table inet phoenix"
CONNECTIONS_PER_CLIENT = 50


# Ports by the group that makes a host serve them: the settings that have them, and their names there.
_PORTS: dict[str, list[tuple[type[ServiceSettings], str]]] = {
    "etcd": [(EtcdSettings, "client_port"), (EtcdSettings, "peer_port")],
    "postgresql": [
        (PostgresqlSettings, "port"),
        (PostgresqlSettings, "patroni_port"),
        (ExporterSettings, "postgres_port"),
        (ExporterSettings, "port"),
    ],
    "gateway": [(GatewaySettings, "port"), (GatewaySettings, "metrics_port"), (GatewaySettings, "exporter_port")],
    "kafka": [(KafkaSettings, "client_port"), (KafkaSettings, "controller_port"), (KafkaSettings, "metrics_port")],
    "connect": [(ConnectSettings, "metrics_port")],
    "redis": [(RedisSettings, "port"), (RedisSettings, "exporter_port")],
    "neo4j": [(Neo4jSettings, "port")],
    "n8n": [(N8nSettings, "port")],
    "monitoring": [(MonitoringSettings, "prometheus_port"), (MonitoringSettings, "alertmanager_port")],
}


def ports() -> list[int]:
    """TCP ports that this host serves to the service networks, by the groups it is in."""
    if "world" in host.groups:
        return sorted(_world_ports())
    found = {hosts.settings(ExporterSettings).node_port}
    found |= {getattr(hosts.settings(kind), name) for group, named in _PORTS.items() if group in host.groups for kind, name in named}
    if archive.archives():
        found.add(hosts.settings(BackupSettings).tls_port)
    if "stream" in host.groups:
        found |= set(streams.ports(hosts.settings(StreamSettings)).values())
    return sorted(found)


def _world_ports() -> set[int]:
    """Of what the lab's `world` plays, that which somebody needs."""
    settings = hosts.settings(WorldSettings)
    found = {settings.alert_receiver_port, settings.s3_port}
    if hosts.members("n8n"):
        found.add(settings.upstreams_port)
    if hosts.members("tailscale"):
        found.add(settings.headscale_port)
    return found


def udp_ports() -> list[int]:
    """UDP ports that are open to everybody: packets of the tailnet carry their own proof."""
    if "tailscale" in host.groups:
        return [hosts.settings(TailscaleSettings).port]
    if "world" in host.groups and (members := hosts.members("tailscale")):
        return [hosts.settings(WorldSettings).headscale_stun_port, of(members[0], TailscaleSettings).port]
    return []


def way_in() -> str:
    """The address whose packets this host passes on into the tailnet; empty on all but the lab's `world`."""
    if "world" not in host.groups or not hosts.members("tailscale"):
        return ""
    return hosts.settings(WorldSettings).operator_address or ""


def per_client() -> dict[int, int]:
    """How many connections one address may hold to each of `ports()`: nobody needs a secret to hold one, so one address alone must not be
    able to take all that a service has."""
    limits = dict.fromkeys(ports(), CONNECTIONS_PER_CLIENT)
    if "postgresql" in host.groups:
        # As many as the agents' login may have: one pooler in front of them is one address.
        settings = hosts.settings(PostgresqlSettings)
        limits[settings.port] = max(CONNECTIONS_PER_CLIENT // 4, settings.max_connections * 6 // 10, _pools(settings))
    if "gateway" in host.groups:
        # Clients by the thousand, often behind one address; still not all that there are.
        gateway = hosts.settings(GatewaySettings)
        limits[gateway.port] = gateway.max_clients * 6 // 10
    if "redis" in host.groups:
        redis = hosts.settings(RedisSettings)
        limits[redis.port] = redis.max_clients * 6 // 10
    return limits


def _pools(settings: PostgresqlSettings) -> int:
    """Connections to this host's server that one gateway, which is one address, may have by the sizes of its pools."""
    gateways = [one for one in hosts.members("gateway") if of(one, GatewaySettings).cluster_name == settings.cluster_name]
    if not gateways:
        return 0
    return sum(pool.total for pool in cluster.sized(settings.max_connections, gateways=len(gateways)).values())


@deploy("Firewall")
def firewall() -> None:
    """Default drop, from the first start on and after every boot."""
    settings = hosts.settings(HostSettings)
    files(
        name="Rules",
        entries=[
            File(
                RULES,
                template("base/firewall.nft.j2", cfg=settings, limits=per_client(), udp=udp_ports(), tailnet=_tailnet(), way_in=way_in()),
            ),
            File(UNIT, template("base/phoenix-firewall.service.j2", rules=RULES, loaded=LOADED, list=LIST)),
        ],
    )
    service(name="Rules are loaded", unit="phoenix-firewall.service", restart_on=[RULES, UNIT], restart_if=differs)


def _tailnet() -> str:
    """The network that is believed on the tailnet's interface only; none on a host that is not in it."""
    return tailnet.NETWORK if "tailscale" in host.groups or way_in() else ""


def differs() -> bool:
    """Whether the kernel's table is another than the one that was loaded."""
    script = f"{LIST} | sha256sum | cmp -s - {LOADED}"
    changed = str(host.get_fact(facts.Output, script=script)).endswith(facts.FAILED)
    if changed:
        findings.report("the kernel's table inet phoenix is not the one of the rules file")
    return changed
