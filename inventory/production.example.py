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

# The platform host and its standby.
_VPS1 = _host("vps1", "203.0.113.11", "100.64.0.11", **_BACKUP)
_VPS2 = _host("vps2", "203.0.113.12", "100.64.0.12", **_BACKUP)

# The second region: a copy of what it needs (a cluster of its own), the third vote, and what has to outlive the others: the watchers, and
# the drill that restores their backup every night.
_VPS3 = _host("vps3", "198.51.100.13", "100.64.0.13", postgresql_cluster_name="region2", **_BACKUP, **_MONITORING)

# Each joins once with a key of its own, a secret that is good for one join (docs/tailscale.md): ./phoenix secrets set tailscale/vps1-key
tailscale = [_VPS1, _VPS2, _VPS3]
# A lone VPS1 is a cluster of one: leave the others out of these lists, and add them when you have them. Two of three members keep etcd.
etcd = [_VPS1, _VPS2, _VPS3]
postgresql = [_VPS1, _VPS2, _VPS3]
region2 = [_VPS3]
# Where clients come in (docs/connect.md).
gateway = [_VPS1, _VPS2]
# The agents' hormone levels (docs/redis.md).
redis = [_VPS1]
# From Kafka into the stores (docs/stream.md).
stream = [_VPS1]
backup = [_VPS1, _VPS2, _VPS3]
drill = [_VPS3]
monitoring = [_VPS3]
# The workflows (docs/n8n.md); beside a gateway. Their APIs' keys: ./phoenix secrets set n8n/hubspot-token, n8n/enrichment-key
n8n = [_VPS1]
# One host, or three: with three Kafka survives the loss of one (docs/kafka.md).
kafka = [_VPS1]
