"""The lab: machines made on this computer by `make up`. Production's code deploys them; what differs is data, below."""

import os

from lab import Lab

_LAB = Lab.from_environment()
_ADDRESSES = {machine.name: _LAB.address(machine) for machine in _LAB.machines}
_NETWORK = str(_LAB.network)
_TAILNET = {machine.name: _LAB.tailnet_address(machine) for machine in _LAB.machines}
_OPERATOR_KEY = _LAB.paths.ssh_key.with_suffix(".pub")


def _machine(name, **settings):
    return (
        name,
        {
            "ssh_hostname": _ADDRESSES[name],
            "ssh_user": "root",
            "ssh_key": str(_LAB.paths.ssh_key),
            "ssh_known_hosts_file": str(_LAB.paths.known_hosts),
            "ssh_strict_host_key_checking": "yes",
            # The hosts meet in the tailnet; the world is outside.
            "host_address": _ADDRESSES[name] if name == "world" else _TAILNET[name],
            "host_ssh_networks": [_NETWORK],
            "host_service_networks": [_NETWORK] if name == "world" else ["100.64.0.0/10"],
            "host_operator_keys": [_OPERATOR_KEY.read_text().strip() if os.access(_OPERATOR_KEY, os.R_OK) else "the lab was never started"],
            "host_secrets_file": str(_LAB.paths.secrets),
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

# VPS1 is of 8 GB and runs everything (docs/sizes.md).
_EVERYTHING = {"host_memory_mb": 8192, "postgresql_memory_share": 0.35}

# The second region's own cluster, and the third member of etcd.
_REGION2 = {"postgresql_cluster_name": "region2"}

# The host that watches: it looks often, so that tests need not wait long, and tells the world.
_MONITORING = {
    "monitoring_scrape_interval_s": 5,
    "monitoring_receivers": [
        {
            "name": "world",
            "severities": ["critical", "warning", "info", "watchdog"],
            "webhook": {"url": f"http://{_ADDRESSES['world']}:9099/"},
        }
    ],
}

# The offsite copy is in the S3 service that the world plays. A quarter of an hour of WAL may wait for it on these small disks.
_BACKUP = {
    "backup_s3_endpoint": f"{_ADDRESSES['world']}:9000",
    "backup_s3_bucket": "phoenix-backup",
    "backup_s3_uri_style": "path",
    "backup_s3_ca_file": "/etc/phoenix/tls/ca.crt",
    "backup_queue_max_gb": 2.0,
}

# n8n's workflows ask the world, which plays the enrichment API, the feeds and the CRM.
_UPSTREAMS = f"https://{_ADDRESSES['world']}:9443"
_N8N = {
    "n8n_hubspot_url": _UPSTREAMS,
    "n8n_enrichment_url": _UPSTREAMS,
    "n8n_feeds": {name: f"{_UPSTREAMS}/feeds/{name}" for name in ("foodnavigator.com", "foodbusinessnews.net", "bakingbusiness.com")},
}


# The control server is the one that the world plays; the programs are built from source, as no Debian package has them. This computer
# comes in by way of the world, as an operator's that has joined.
_TAILSCALE = {
    "tailscale_package": None,
    "tailscale_login_server": f"https://{_ADDRESSES['world']}:8443",
    "tailscale_ca_file": "/etc/phoenix/tls/ca.crt",
    "tailscale_operators": ["tag:phoenix-operator"],
}

_VPS1 = _machine("vps1", **(_DATABASE | _EVERYTHING | _BACKUP | _N8N | _TAILSCALE))
_VPS2 = _machine("vps2", **(_DATABASE | _BACKUP | _TAILSCALE))
_VPS3 = _machine("vps3", **(_DATABASE | _REGION2 | _BACKUP | _MONITORING | _TAILSCALE))
_WORLD = _machine(
    "world",
    world_alert_receiver_port=9099,
    world_s3_port=9000,
    world_s3_bucket="phoenix-backup",
    world_s3_region="us-east-1",
    world_s3_lock_days=1,
    world_operator_address=str(_LAB.gateway),
)

tailscale = [_VPS1, _VPS2, _VPS3]
etcd = [_VPS1, _VPS2, _VPS3]
postgresql = [_VPS1, _VPS2, _VPS3]
region2 = [_VPS3]
backup = [_VPS1, _VPS2, _VPS3]
drill = [_VPS3]
gateway = [_VPS1, _VPS2]
kafka = [_VPS1]
redis = [_VPS1]
stream = [_VPS1]
connect = [_VPS1]
neo4j = [_VPS1]
monitoring = [_VPS3]
n8n = [_VPS1]
world = [_WORLD]
