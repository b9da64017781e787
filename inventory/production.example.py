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


# VPS1, the platform host.
_VPS1 = _host("vps1", "203.0.113.11", "100.64.0.11")

# Monitoring has a host of its own: it has to outlive what it watches.
_MONITOR1 = _host(
    "monitor1",
    "203.0.113.12",
    "100.64.0.12",
    monitoring_receivers=[
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
)

etcd = [_VPS1]
postgresql = [_VPS1]
# Where clients come in (docs/connect.md): name two hosts as soon as there are two.
gateway = [_VPS1]
monitoring = [_MONITOR1]
