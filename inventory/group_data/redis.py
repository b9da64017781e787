"""Redis: the hormone levels of the agents, for those who ask all the time. PostgreSQL is the truth (docs/redis.md)."""

# The cluster whose agents they are: the postgresql_cluster_name of its members.
redis_cluster_name = "phoenix"

# TLS only; there is no other port.
redis_port = 6379

# What Prometheus asks.
redis_exporter_port = 9121

# Share of the host's RAM that the data may take. An agent takes about 300 bytes: 3 % of 8 GB hold 800,000 agents.
redis_memory_share = 0.03

# Connections that Redis takes. Beyond that it refuses new ones, and RedisConnectionsRejected tells.
redis_max_clients = 1000

# Every so many seconds all levels are compared with PostgreSQL. A level that stays different for the second number, in seconds, counts:
# an event takes some milliseconds, more when many come at once.
redis_parity_every_s = 60
redis_parity_settle_s = 5
