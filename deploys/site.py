"""The platform, host by host: which services a host gets follows from its groups, and this is the only place that composes them.

pyinfra INVENTORY deploys/site.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pyinfra import host

from deploys import base, etcd, exporters, firewall, monitoring, sources, tls, world
from deploys.gateway import gateway
from deploys.lib import generated, hosts
from deploys.lib.operations import packages, together
from deploys.postgresql import database, patroni, roles, schema, watcher

groups = set(host.groups)
ours = "world" not in groups

generated.ensure(hosts.secrets())
if "monitoring" in groups:
    monitoring.require_secrets()
base.preflight()
if "postgresql" in groups:
    patroni.preflight()
if "gateway" in groups:
    gateway.preflight()
sources.sources()

wanted = list(base.PACKAGES)
if ours:
    wanted += exporters.PACKAGES
if "etcd" in groups:
    wanted += etcd.PACKAGES
if "postgresql" in groups:
    patroni.prepare()
    wanted += patroni.packages() + schema.PACKAGES + exporters.POSTGRESQL_PACKAGES
if "gateway" in groups:
    wanted += gateway.packages()
if "monitoring" in groups:
    wanted += monitoring.PACKAGES
packages(name="Packages | Everything that this host's services need", names=wanted)

base.baseline()
firewall.firewall()
tls.tls()

if "etcd" in groups:
    etcd.etcd()
if "postgresql" in groups:
    patroni.patroni()
    roles.roles()
    database.database()
    schema.schema()
    watcher.watcher()
if ours:
    exporters.node()
if "gateway" in groups:
    gateway.gateway()
if "postgresql" in groups:
    exporters.postgres()
    exporters.phoenix()
if "world" in groups:
    world.alert_receiver()
together(name="Together | Everything that Prometheus asks is there")
if "monitoring" in groups:
    monitoring.prometheus()
