"""One address: HAProxy finds the writer and the readers, PgBouncer pools in front of it. On every host of the group, all alike."""

# The cluster whose writer and readers are served: the postgresql_cluster_name of its members.
gateway_cluster_name = "phoenix"

# Where clients come in (PgBouncer, TLS): database phoenix is the writer, phoenix_ro the readers.
gateway_port = 6432

# HAProxy, on the loopback address only: what PgBouncer connects to, and programs of this host that need a session of their own.
gateway_writer_port = 5000
gateway_readers_port = 5001

# What Prometheus asks: HAProxy, and the exporter of PgBouncer.
gateway_metrics_port = 8405
gateway_exporter_port = 9127

# Client connections that one PgBouncer takes. One client address may have six tenths of them.
gateway_max_clients = 2500

# How long a new connection to the database waits for a leader, and a client for a connection, before they are told that there is none.
# A lost machine costs up to 23 s (docs/decisions/0530-gateway.md), so both wait longer than that.
gateway_hold_s = 25
gateway_query_wait_s = 30

# A standby further behind than this is no reader until it has caught up.
gateway_reader_max_lag_mb = 64
