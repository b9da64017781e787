"""Settings of every host. The inventory overrides them per host or group; types and ranges are in deploys/lib/settings.py."""

# Networks that may open SSH. Everything else is dropped by the host's firewall.
host_ssh_networks = ["100.64.0.0/10"]

# Networks that may reach PostgreSQL, the exporters and so on: by default the tailnet alone.
host_service_networks = ["100.64.0.0/10"]

# The account for people. It logs in with the keys below and may become root; nobody logs in with a password.
host_operator = "ops"

host_timezone = "Etc/UTC"

# A machine keeps a clock of its own, and an alert tells when no time server sets it. A container has its computer's.
host_own_clock = True

# Disk that the journal may take, in MB.
host_journal_max_mb = 1024

# A deploy is refused when a host has less free disk than this, in MB: a half-written configuration is worse than an old one.
host_min_free_mb = 1024

# Vendors' repositories, by name. A mirror or an air-gapped site replaces `uris` and `key_url`; the fingerprint stays the vendor's.
host_apt_sources = {
    "postgresql": {
        "uris": ["https://apt.postgresql.org/pub/repos/apt"],
        "suites": ["trixie-pgdg"],
        "components": ["main"],
        "key_url": "https://www.postgresql.org/media/keys/ACCC4CF8.asc",
        "key_fingerprint": "B97B0AFCAA1A47F044F244A07FCC7D46ACCC4CF8",
    },
    "timescaledb": {
        "uris": ["https://packagecloud.io/timescale/timescaledb/debian/"],
        "suites": ["trixie"],
        "components": ["main"],
        "key_url": "https://packagecloud.io/timescale/timescaledb/gpgkey",
        "key_fingerprint": "1005FB68604CE9B8F6879CF759F18EDF47F24417",
    },
    "tailscale": {
        "uris": ["https://pkgs.tailscale.com/stable/debian"],
        "suites": ["trixie"],
        "components": ["main"],
        "key_url": "https://pkgs.tailscale.com/stable/debian/trixie.gpg",
        "key_fingerprint": "2596A99EAAB33821893C0A79458CA832957F5868",
    },
}

# Ports of the exporters on every host.
exporter_port = 9188
exporter_node_port = 9100
exporter_postgres_port = 9187
