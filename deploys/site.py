"""The platform, host by host: which services a host gets follows from its groups, and this is the only place that composes them.

pyinfra INVENTORY deploys/site.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pyinfra import host

from deploys import backup, base, drill, etcd, exporters, firewall, monitoring, redis, sources, stream, tailscale, tls
from deploys.connect import connector, worker
from deploys.connect import watcher as connect_watcher
from deploys.gateway import gateway
from deploys.kafka import broker, client, content
from deploys.kafka import exporter as kafka_exporter
from deploys.lib import generated, hosts
from deploys.lib.operations import packages, together
from deploys.n8n import database as n8n_database
from deploys.n8n import n8n
from deploys.neo4j import server as neo4j
from deploys.postgresql import database, outbox, patroni, publication, roles, schema, subscription, watcher
from deploys.world import alerts, headscale, s3, upstreams, way_in

groups = set(host.groups)
ours = "world" not in groups

generated.ensure(hosts.secrets())
if hosts.members("backup"):
    generated.ensure_backup(hosts.secrets(), provider=bool(hosts.members("world")))
if hosts.members("n8n"):
    generated.ensure_n8n(hosts.secrets(), provider=bool(hosts.members("world")))
if "n8n" in groups:
    n8n.preflight()
if hosts.members("kafka"):
    generated.ensure_kafka(hosts.secrets())
if hosts.members("redis"):
    generated.ensure_redis(hosts.secrets())
if hosts.members("neo4j"):
    generated.ensure_neo4j(hosts.secrets())
if "backup" in groups:
    backup.require_secrets()
if "monitoring" in groups:
    monitoring.require_secrets()
base.preflight()
if "postgresql" in groups:
    patroni.preflight()
if "backup" in groups:
    backup.preflight()
if "gateway" in groups:
    gateway.preflight()
if "connect" in groups:
    worker.preflight()
if "kafka" in groups:
    broker.preflight()
if "stream" in groups:
    stream.preflight()
sources.sources()

wanted = list(base.PACKAGES)
if ours:
    wanted += exporters.PACKAGES
if "etcd" in groups:
    wanted += etcd.PACKAGES
if "postgresql" in groups:
    patroni.prepare()
    wanted += patroni.packages() + schema.PACKAGES + exporters.POSTGRESQL_PACKAGES
if "backup" in groups:
    wanted += backup.PACKAGES
if "drill" in groups:
    wanted += drill.packages()
if "gateway" in groups:
    wanted += gateway.packages()
if "n8n" in groups:
    wanted += n8n.PACKAGES
if "connect" in groups:
    wanted += worker.PACKAGES
if "kafka" in groups:
    wanted += broker.PACKAGES + client.PACKAGES
if "redis" in groups:
    wanted += redis.PACKAGES
if "stream" in groups:
    wanted += stream.PACKAGES
if "neo4j" in groups:
    wanted += neo4j.PACKAGES
if "monitoring" in groups:
    wanted += monitoring.PACKAGES
if "tailscale" in groups:
    wanted += tailscale.packages()
packages(name="Packages | Everything that this host's services need", names=wanted)

base.baseline()
firewall.firewall()
tls.tls()

# What belongs to somebody else is there before the platform asks for it.
if "world" in groups:
    alerts.alert_receiver()
    if hosts.members("backup"):
        s3.s3()
    if hosts.members("n8n"):
        upstreams.upstreams()
    if hosts.members("tailscale"):
        headscale.headscale()
        way_in.way_in()
if hosts.members("tailscale"):
    together(name="Together | Who has to join has a key")
    if "tailscale" in groups:
        tailscale.tailscale()
    together(name="Together | Every host has joined the tailnet")
    if "world" in groups:
        headscale.nodes()
    together(name="Together | Every host of the tailnet has its address")
    if "tailscale" in groups:
        tailscale.settled()
if "etcd" in groups:
    etcd.etcd()
if "backup" in groups:
    backup.configure()
if "postgresql" in groups:
    patroni.patroni()
    roles.roles()
    database.database()
    schema.schema()
    if hosts.members("n8n") and "region2" not in groups:
        n8n_database.database()
    if publication.publishes():
        publication.publication()
    if patroni.connectors():
        outbox.outbox()
if "region2" in groups:
    subscription.subscription()
if "postgresql" in groups:
    watcher.watcher()
if "backup" in groups:
    backup.backup()
if "drill" in groups:
    backup.retention()
if ours:
    exporters.node()
if "gateway" in groups:
    gateway.gateway()
if "redis" in groups:
    redis.redis()
if "neo4j" in groups:
    neo4j.neo4j()
if "postgresql" in groups:
    exporters.postgres()
    exporters.phoenix()
if "kafka" in groups:
    broker.broker()
    content.content()
    kafka_exporter.exporter()
if "stream" in groups:
    stream.stream()
if "drill" in groups:
    drill.drill()
if "n8n" in groups:
    n8n.n8n()
if hosts.members("connect"):
    together(name="Together | Outbox, topics and gateways are there before Connect asks for them")
if "connect" in groups:
    worker.worker()
    connector.connector()
    connect_watcher.watcher()
if "kafka" in groups:
    broker.archive()
if "connect" in groups:
    worker.archive()
together(name="Together | Everything that Prometheus asks is there")
if "monitoring" in groups:
    monitoring.prometheus()
