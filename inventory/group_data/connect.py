"""Kafka Connect with Debezium: carries the outbox of PostgreSQL to Kafka. One host; another one takes over by being named instead."""

# The cluster whose outbox is read: the postgresql_cluster_name of its members. Where it has several, the host is in group gateway too: its
# HAProxy knows who leads.
connect_cluster_name = "phoenix"

# Connect's REST interface and the JVM's metrics, both on the loopback address only.
connect_rest_port = 8083
connect_jmx_port = 9415

# What Prometheus asks (HTTPS): the JVM's metrics, and how connectors and tasks are.
connect_metrics_port = 9405

# How long a delivered event may be sent again: rows stay in the outbox for so many days. Then they are gone from PostgreSQL; Kafka keeps
# its own for the retention of each topic.
connect_outbox_keep_days = 7

# How often Debezium looks for changes, and how long the producer waits for company, in milliseconds. With 10 and 2 the way from commit to
# consumer takes 37 ms (p95) at 100 events/s; with the defaults of both, 500 and 0, it takes 757.
connect_poll_interval_ms = 10
connect_linger_ms = 2

# How many events the connector may hold in memory, and take in one go. An event is a kilobyte or two.
connect_queue_size = 8192
connect_batch_size = 2048
