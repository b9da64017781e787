"""PostgreSQL under Patroni. A lone host is a cluster of one; a standby is one more host in the group."""

# Major version: 16, 17 or 18.
postgresql_version = 16

# Debian packages; {version} is the major version. These are the PostgreSQL project's and Timescale's names.
postgresql_packages = [
    "postgresql-{version}",
    "postgresql-{version}-pgvector",
    "postgresql-{version}-cron",
    "postgresql-{version}-pgaudit",
    "timescaledb-2-postgresql-{version}",
]

# Extensions of the database; one that was dropped by hand comes back with the next deploy.
postgresql_extensions = ["vector", "timescaledb", "pg_cron", "pgcrypto", "pg_stat_statements", "amcheck", "pgaudit"]

# "apache" where only the Apache edition of TimescaleDB is packaged; the schema then rolls up by pg_cron instead.
postgresql_timescaledb_license = "timescale"

postgresql_port = 5432

# Clients come through a pool; agents by the thousand do not need a server process each.
postgresql_max_connections = 200

# Share of the host's RAM that PostgreSQL is sized for; the rest belongs to the host's other services.
postgresql_memory_share = 0.4

# Disk that WAL may take, in GB: the checkpoint distance, and the bound for what a dead replication slot may hold back.
postgresql_wal_keep_gb = 4.0

postgresql_cluster_name = "phoenix"
postgresql_patroni_port = 8008

# How long a leader that lost contact may still be believed, in seconds (Patroni's floor is 20), how often members look, and how long
# they retry the store. The figures behind them are in docs/decisions/0004-patroni-from-the-first-day.md.
postgresql_failover_ttl_s = 20
postgresql_loop_wait_s = 3
postgresql_retry_timeout_s = 5
