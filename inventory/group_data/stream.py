"""Stream workers: events from Kafka into PostgreSQL, Redis and Neo4j. A process for each store, on every host of the group."""

# The cluster that heartbeats and consciousness are written to: the postgresql_cluster_name of its members.
stream_cluster_name = "phoenix"

# The stores that get a worker; each has to have its group in the inventory (postgresql, redis, neo4j).
stream_sinks = ["postgres", "redis", "neo4j"]

# What Prometheus asks: this port for PostgreSQL's worker, the next for Redis', the one after that for Neo4j's.
stream_metrics_port = 9195

# How long the brokers wait for a worker that has gone silent before another host's may take its partitions. A worker that is restarted
# keeps them, so this counts only when a host is lost. Longer than a broker takes to start: workers that cannot reach it in time join anew.
# The brokers allow no less than 6 s (group.min.session.timeout.ms).
stream_session_timeout_ms = 20000

# Events written at once, at most, and how long the first of them waits for more. PostgreSQL commits for every batch, so it gets fewer and
# larger ones (the heartbeats of 1,000 agents take 2% of a core; 11% with 20 ms); what Redis and Neo4j hold is looked at at once.
stream_batch_events = 500
stream_linger_ms = {"postgres": 200, "redis": 2, "neo4j": 2}
