"""Whether the database's own scheduled work is done: partitions made, the dashboard refreshed, old rows removed."""

from phoenix_exporter.collector import Collector, Role
from phoenix_exporter.metric import Gauge

SQL = """
SELECT
    jobname AS job,
    active::int AS active,
    coalesce(extract(epoch FROM last_success), 0) AS last_success,
    extract(epoch FROM last_end - last_start) AS last_duration,
    coalesce(failures_24h, 0) AS failures,
    (last_status IS NOT DISTINCT FROM 'failed')::int AS failing
FROM phoenix.metrics_jobs
ORDER BY jobname
"""

COLLECTOR = Collector(
    name="jobs",
    sql=SQL,
    ttl_s=30.0,
    # A copy has jobs of its own; a standby runs none and shows the leader's.
    roles=frozenset({Role.LEADER, Role.COPY}),
    metrics=(
        Gauge("phoenix_job_active", "active", "1 when scheduled, 0 when somebody switched it off.", ("job",)),
        Gauge(
            "phoenix_job_last_success_timestamp_seconds",
            "last_success",
            "Unix time of the last run that succeeded; 0 = never.",
            ("job",),
        ),
        Gauge("phoenix_job_last_duration_seconds", "last_duration", "How long the last finished run took.", ("job",)),
        Gauge("phoenix_job_failing", "failing", "1 when the newest run failed, 0 otherwise, also before the first.", ("job",)),
        Gauge("phoenix_job_failures_24h", "failures", "Runs that failed in the last 24 hours.", ("job",)),
    ),
)
