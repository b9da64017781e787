"""The server's connections and this database's transactions."""

from phoenix_exporter.collector import EVERY_ROLE, Collector
from phoenix_exporter.metric import Counter, Gauge, Rate

# The limit of connections is the server's, so all its databases count; only client backends count against it.
SQL = """
WITH clients AS (
    SELECT usename AS role, coalesce(state, 'unknown') AS state, count(*) AS connections
    FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND usename IS NOT NULL
    GROUP BY 1, 2
)
SELECT role, state, connections, NULL::bigint AS open, NULL::int AS maximum, NULL::int AS reserved, NULL::int AS in_recovery,
       NULL AS result, NULL::bigint AS transactions
FROM clients
UNION ALL
SELECT NULL, NULL, NULL,
       (SELECT coalesce(sum(connections), 0) FROM clients),
       current_setting('max_connections')::int,
       current_setting('superuser_reserved_connections')::int + current_setting('reserved_connections')::int,
       pg_is_in_recovery()::int,
       NULL, NULL
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, r.result, r.transactions
FROM pg_stat_database AS d
CROSS JOIN LATERAL (VALUES ('commit', d.xact_commit), ('rollback', d.xact_rollback)) AS r (result, transactions)
WHERE d.datname = current_database()
ORDER BY connections DESC NULLS LAST
"""

COLLECTOR = Collector(
    name="database",
    sql=SQL,
    roles=EVERY_ROLE,
    metrics=(
        Gauge(
            "phoenix_db_connections_active",
            "open",
            "Client connections held open now, in all databases and states: what counts against max_connections.",
        ),
        Gauge(
            "phoenix_db_connections",
            "connections",
            "phoenix_db_connections_active by role and state.",
            ("role", "state"),
        ),
        Gauge("phoenix_db_connections_max", "maximum", "max_connections of the server."),
        Gauge(
            "phoenix_db_connections_reserved",
            "reserved",
            "Connections of these that are kept for superusers and members of pg_use_reserved_connections.",
        ),
        Gauge("phoenix_db_in_recovery", "in_recovery", "1 on a standby, 0 on a server that takes writes."),
        Counter(
            "phoenix_db_transactions_total",
            "transactions",
            "Transactions that ended in this database, by result. Falls only when the server's statistics are reset.",
            ("result",),
        ),
        Rate(
            "phoenix_db_transactions_per_second",
            "transactions",
            "Commits and rollbacks per second in this database, mean of the last 60 s as this exporter saw them.",
        ),
    ),
)
