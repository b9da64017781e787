"""How change events leave the database: what is in the outbox, what the connector has still to take, and how its slot is.

Without a slot nothing can be said of what is undelivered: those series are absent, and phoenix_outbox_slot_present is 0.
"""

from phoenix_exporter.collector import Collector, Role
from phoenix_exporter.metric import Gauge

SQL = """
SELECT newest_seq, slot_present::int AS present, slot_active::int AS active,
       CASE WHEN slot_present THEN (wal_status IS NOT DISTINCT FROM 'lost')::int END AS lost,
       safe_wal_size AS safe, lag_bytes AS lag, undelivered, oldest_undelivered_seconds AS oldest
FROM phoenix.metrics_outbox
"""

COLLECTOR = Collector(
    name="outbox",
    sql=SQL,
    ttl_s=5.0,
    # A copy's outbox stays empty; a standby's slot is looked at by replication.
    roles=frozenset({Role.LEADER}),
    metrics=(
        Gauge("phoenix_outbox_newest_seq", "newest_seq", "Number of the newest event that is kept; 0 without one."),
        Gauge("phoenix_outbox_slot_present", "present", "1 when the connector's replication slot is there."),
        Gauge("phoenix_outbox_slot_active", "active", "1 while the connector reads it."),
        Gauge("phoenix_outbox_slot_lost", "lost", "1 when WAL that it still needs is gone: nothing is delivered any more."),
        Gauge("phoenix_outbox_slot_safe_bytes", "safe", "WAL that may still be written before the slot is lost; absent without a bound."),
        Gauge("phoenix_outbox_slot_lag_bytes", "lag", "WAL behind which the connector is."),
        Gauge("phoenix_outbox_undelivered", "undelivered", "Events beyond what the connector has confirmed; up to a second old."),
        Gauge("phoenix_outbox_oldest_undelivered_seconds", "oldest", "Age of the oldest of them; 0 without one."),
    ),
)
