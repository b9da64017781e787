"""Copy this to production.py, put your hosts in, then:

./phoenix secrets init -i inventory/production.py
./phoenix deploy -i inventory/production.py
"""


def _host(name, ssh_address, address, **settings):
    return (
        name,
        {
            # How you reach it, and as whom.
            "ssh_hostname": ssh_address,
            "ssh_user": "root",
            # How the other hosts reach it: its address in the tailnet or private network.
            "host_address": address,
            # Public keys of the people who operate the platform.
            "host_operator_keys": ["ssh-ed25519 AAAA... you@example.org"],
            "host_secrets_file": "inventory/production.secrets.yaml",
            **settings,
        },
    )


# The bucket of the offsite backups; docs/backup.md says what it has to be like. Its keys are secrets, and somebody else's:
# ./phoenix secrets set backup/s3-key, backup/s3-secret (may not delete), backup/retention-key, backup/retention-secret (may)
_BACKUP = {
    "backup_s3_endpoint": "s3.example.org",
    "backup_s3_bucket": "phoenix-backup",
}

# The watchers and who is told.
_MONITORING = {
    "monitoring_receivers": [
        {
            "name": "on-call",
            "severities": ["critical", "warning", "info"],
            "email": {
                "to": ["on-call@example.org"],
                "sender": "phoenix@example.org",
                "smarthost": "mail.example.org:587",
                "username": "phoenix",
                # The password itself: ./phoenix secrets set smtp/password
                "password_secret": "smtp/password",
            },
        },
        {
            "name": "dead-mans-switch",
            "severities": ["watchdog"],
            "webhook": {"url": "https://watchdog.example.org/phoenix"},
        },
    ],
}

# The platform host and its standby. With 8 GB and everything on it PostgreSQL takes a little less than its default share (docs/sizes.md).
_VPS1 = _host("vps1", "203.0.113.11", "100.64.0.11", postgresql_memory_share=0.35, **_BACKUP)
_VPS2 = _host("vps2", "203.0.113.12", "100.64.0.12", **_BACKUP)

# The second region: a copy of what it needs (a cluster of its own), the third vote, and what has to outlive the others: the watchers, and
# the drill that restores their backup every night.
_VPS3 = _host("vps3", "198.51.100.13", "100.64.0.13", postgresql_cluster_name="region2", **_BACKUP, **_MONITORING)

# The private network (docs/tailscale.md). Each joins once, by a key that is good for one join: ./phoenix secrets set tailscale/vps1-key
tailscale = [_VPS1, _VPS2, _VPS3]
# Who leads. A lone VPS1 is a cluster of one: leave the others out of these lists, and add them when you have them. Two of three keep etcd.
etcd = [_VPS1, _VPS2, _VPS3]
# The truth, under Patroni.
postgresql = [_VPS1, _VPS2, _VPS3]
# The copy in the second region: logical replication (docs/region2.md).
region2 = [_VPS3]
# WAL and backups, encrypted, offsite (docs/backup.md).
backup = [_VPS1, _VPS2, _VPS3]
# Restores the backup every night, and alone may delete what has expired (docs/drill.md).
drill = [_VPS3]
# Where clients come in (docs/connect.md).
gateway = [_VPS1, _VPS2]
# Other systems into PostgreSQL; in group gateway as well (docs/n8n.md): ./phoenix secrets set n8n/hubspot-token, n8n/enrichment-key
n8n = [_VPS1]
# From the outbox to Kafka: one host, in group gateway as well (docs/change-events.md).
connect = [_VPS1]
# The events. One host, or three: then every partition has three copies (docs/kafka.md).
kafka = [_VPS1]
# From Kafka into the stores, a process for each (docs/stream.md).
stream = [_VPS1]
# The agents' hormone levels, a copy (docs/redis.md).
redis = [_VPS1]
# The knowledge graph, made from PostgreSQL (docs/graph.md).
neo4j = [_VPS1]
# Prometheus and Alertmanager, not on the host that they watch most (docs/alerts.md).
monitoring = [_VPS3]
