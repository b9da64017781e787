"""The lab: machines made on this computer by `make up`. Production's code deploys them; what differs is data, below."""

import os
from pathlib import Path

_STATE = Path("/var/lib/phoenix-lab")
_OPERATOR_KEY = _STATE / "ssh" / "id_ed25519.pub"


def _machine(name, address, **settings):
    return (
        name,
        {
            "ssh_hostname": address,
            "ssh_user": "root",
            "ssh_key": str(_STATE / "ssh" / "id_ed25519"),
            "ssh_known_hosts_file": str(_STATE / "ssh" / "known_hosts"),
            "ssh_strict_host_key_checking": "yes",
            "host_address": address,
            "host_ssh_networks": ["10.66.0.0/24"],
            "host_service_networks": ["10.66.0.0/24"],
            "host_operator_keys": [_OPERATOR_KEY.read_text().strip() if os.access(_OPERATOR_KEY, os.R_OK) else "the lab was never started"],
            "host_secrets_file": str(_STATE / "secrets.yaml"),
            # Machines of the lab are containers.
            "host_own_clock": False,
            # Machines take their packages from Debian, by the mirror that this computer uses.
            "host_apt_sources": {},
            **settings,
        },
    )


# A host of the database: what Debian ships, PostgreSQL 17 and the Apache edition of TimescaleDB. pgTAP is there for the tests.
_DATABASE = {
    # Sized for a small VPS, whatever this computer has.
    "host_memory_mb": 4096,
    "postgresql_version": 17,
    "postgresql_timescaledb_license": "apache",
    "postgresql_packages": [
        "postgresql-{version}",
        "postgresql-{version}-pgvector",
        "postgresql-{version}-cron",
        "postgresql-{version}-pgaudit",
        "postgresql-{version}-timescaledb",
        "postgresql-{version}-pgtap",
    ],
}

# The host that watches: it looks often, so that tests need not wait long, and tells the world.
_MONITORING = {
    "monitoring_scrape_interval_s": 2,
    "monitoring_receivers": [
        {
            "name": "world",
            "severities": ["critical", "warning", "info", "watchdog"],
            "webhook": {"url": "http://10.66.0.20:9099/"},
        }
    ],
}

_VPS1 = _machine("vps1", "10.66.0.11", **_DATABASE, **_MONITORING)
_WORLD = _machine("world", "10.66.0.20", world_alert_receiver_port=9099)

etcd = [_VPS1]
postgresql = [_VPS1]
monitoring = [_VPS1]
world = [_WORLD]
