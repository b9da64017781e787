"""Kafka: carries the change events. One host runs broker and controller in one process; three make a cluster that survives one of them."""

# Where clients come in (SASL_SSL, SCRAM-SHA-512), brokers among them, and where brokers reach the controllers.
kafka_client_port = 9093
kafka_controller_port = 9094

# What Prometheus asks: topics, lag of consumers, and what the broker says of itself. On the loopback address the broker has the same port.
kafka_metrics_port = 9404

# Heap of the broker, in MB. 0 takes a sixteenth of the host's RAM, at least 384.
kafka_heap_mb = 0

# The topics, with the spec's partitions and retention. A deploy puts back what was changed by hand. More partitions here are added; fewer
# are refused, for Kafka cannot take one away: the order of events by key would be lost with it.
kafka_topics = {
    "agent.heartbeat": {"partitions": 12, "retention_h": 24},
    "task.created": {"partitions": 6, "retention_h": 7 * 24},
    "task.completed": {"partitions": 6, "retention_h": 30 * 24},
    "persona.enriched": {"partitions": 3, "retention_h": 90 * 24},
    "consciousness.update": {"partitions": 24, "retention_h": 1},
    "hormone.cascade": {"partitions": 12, "retention_h": 1},
    # Ours: nodes and edges for Neo4j, and events that a consumer refused, each with the reason.
    "graph.changed": {"partitions": 6, "retention_h": 7 * 24},
    "dead-letter": {"partitions": 3, "retention_h": 30 * 24},
}

# How long a broker may be silent before others take its partitions over, and how often it says that it is there. Kafka's own 9 s and 2 s
# make a restart after a crash wait.
kafka_session_timeout_ms = 2000
kafka_heartbeat_interval_ms = 400
