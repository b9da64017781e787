"""How long the database's statements take, from pg_stat_statements."""

from phoenix_exporter.collector import EVERY_ROLE, Collector
from phoenix_exporter.metric import MeanHistogram

# false: without the statements' texts, which the server would read from a file. One row of arrays instead of thousands of rows: a
# third of the work on this side. Only what clients sent: with track = all a function's inner statements would count twice.
# The columns are the same in PostgreSQL 16, 17 and 18.
SQL = """
SELECT array_agg(s.userid::bigint) AS userid, array_agg(s.queryid) AS queryid,
       array_agg(s.calls) AS calls, array_agg(s.total_exec_time / 1000) AS seconds
FROM pg_stat_statements(false) AS s
WHERE s.toplevel AND s.queryid IS NOT NULL
  AND s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

COLLECTOR = Collector(
    name="statements",
    sql=SQL,
    ttl_s=10.0,
    roles=EVERY_ROLE,
    metrics=(
        MeanHistogram(
            "phoenix_db_query_duration_seconds",
            key=("userid", "queryid"),
            calls="calls",
            seconds="seconds",
            help=(
                "Execution time of statements in this database since the exporter started (no planning, no waiting for "
                "the client). _sum and _count are exact; a call is in the bucket of its statement's mean since the last look."
            ),
            buckets_s=(
                *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
                *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
            ),
        ),
    ),
)
