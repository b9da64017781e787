"""What arrives from another server: the slots that a standby keeps ready for a failover, the subscriptions of a copy.

How far a slot's reader is behind is known on the leader, and the PostgreSQL exporter says it (pg_replication_slot_*).
"""

from phoenix_exporter.collector import Collector, Role
from phoenix_exporter.metric import Counter, Gauge

# PostgreSQL 17 has the columns synced, failover and invalidation_reason, 16 conflicting, 18 counts conflicts (confl_*): read by way
# of JSON, one statement is good for all. On 16 there is a slot on a standby only because Patroni keeps it there.
SQL = """
WITH subscription AS (
    SELECT s.oid, s.subname AS name, s.subenabled AS enabled, worker.latest_end_time, worker.pid IS NOT NULL AS runs, to_jsonb(e) AS errors
    FROM pg_subscription AS s
    LEFT JOIN pg_stat_subscription AS worker
        ON worker.subid = s.oid AND worker.relid IS NULL AND to_jsonb(worker) ->> 'leader_pid' IS NULL
    LEFT JOIN pg_stat_subscription_stats AS e ON e.subid = s.oid
    WHERE s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND NOT pg_is_in_recovery()
)
SELECT r.slot_name AS slot,
       (NOT r.temporary AND r.wal_status IS DISTINCT FROM 'lost' AND coalesce((j ->> 'synced')::boolean, true)
        AND j ->> 'invalidation_reason' IS NULL AND NOT coalesce((j ->> 'conflicting')::boolean, false))::int AS ready,
       NULL AS subscription, NULL::int AS up, NULL::float8 AS last_message, NULL AS state, NULL::bigint AS tables,
       NULL AS kind, NULL::bigint AS errors, NULL AS conflict, NULL::bigint AS conflicts
FROM pg_replication_slots AS r
CROSS JOIN LATERAL to_jsonb(r) AS j
WHERE r.slot_type = 'logical' AND coalesce((j ->> 'failover')::boolean, true) AND pg_is_in_recovery()
UNION ALL
SELECT NULL, NULL, name, (enabled AND runs)::int, extract(epoch FROM latest_end_time), NULL, NULL, NULL, NULL, NULL, NULL
FROM subscription
UNION ALL
SELECT NULL, NULL, name, NULL, NULL, v.state, v.tables, NULL, NULL, NULL, NULL
FROM subscription
CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE t.srsubstate = 'r') AS ready, count(*) FILTER (WHERE t.srsubstate <> 'r') AS copying
                    FROM pg_subscription_rel AS t WHERE t.srsubid = subscription.oid) AS n
CROSS JOIN LATERAL (VALUES ('ready', n.ready), ('copying', n.copying)) AS v (state, tables)
UNION ALL
SELECT NULL, NULL, name, NULL, NULL, NULL, NULL, v.kind, v.errors, NULL, NULL
FROM subscription
CROSS JOIN LATERAL (VALUES ('apply', (errors ->> 'apply_error_count')::bigint),
                           ('sync', (errors ->> 'sync_error_count')::bigint)) AS v (kind, errors)
UNION ALL
SELECT NULL, NULL, name, NULL, NULL, NULL, NULL, NULL, NULL, substr(c.key, 7), c.value::bigint
FROM subscription
CROSS JOIN LATERAL jsonb_each_text(errors) AS c (key, value)
WHERE c.key LIKE 'confl\\_%'
"""

COLLECTOR = Collector(
    name="replication",
    sql=SQL,
    ttl_s=5.0,
    roles=frozenset({Role.STANDBY, Role.COPY}),
    metrics=(
        Gauge(
            "phoenix_replication_slot_ready",
            "ready",
            "On a standby: 1 when this logical slot would serve its subscriber after a failover to here.",
            ("slot",),
        ),
        Gauge("phoenix_subscription_up", "up", "1 when enabled and its worker runs.", ("subscription",)),
        Gauge(
            "phoenix_subscription_last_message_timestamp_seconds",
            "last_message",
            "Unix time of the newest message of the publisher that was reported back to it.",
            ("subscription",),
        ),
        Gauge(
            "phoenix_subscription_tables",
            "tables",
            "Tables by state: ready, or still copying what was there before.",
            ("subscription", "state"),
        ),
        Counter(
            "phoenix_subscription_errors_total",
            "errors",
            "Errors by kind: apply (a change that cannot be made) or sync (an initial copy that fails).",
            ("subscription", "kind"),
        ),
        Counter(
            "phoenix_subscription_conflicts_total",
            "conflicts",
            "Changes that met a row other than they expected, by conflict; PostgreSQL 18 and newer.",
            ("subscription", "conflict"),
        ),
    ),
)
