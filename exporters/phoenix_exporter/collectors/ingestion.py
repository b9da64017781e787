"""Whether n8n's workflows bring in what they are there for."""

from phoenix_exporter.collector import Collector
from phoenix_exporter.metric import Gauge

SQL = """
SELECT workflow, last_success, failures_24h, requests_24h, retries_24h FROM phoenix.metrics_ingestion ORDER BY workflow
"""

COLLECTOR = Collector(
    name="ingestion",
    sql=SQL,
    ttl_s=30.0,
    metrics=(
        Gauge(
            "phoenix_ingestion_last_success_timestamp_seconds",
            "last_success",
            "Unix time at which a run of the workflow last ended well; 0 = never, or not within 30 days.",
            ("workflow",),
        ),
        Gauge("phoenix_ingestion_failures_24h", "failures_24h", "Runs that failed or were abandoned in the last 24 hours.", ("workflow",)),
        Gauge("phoenix_ingestion_requests_24h", "requests_24h", "Requests to the other side in the last 24 hours.", ("workflow",)),
        Gauge("phoenix_ingestion_retries_24h", "retries_24h", "Of those, how many had to be made again.", ("workflow",)),
    ),
)
