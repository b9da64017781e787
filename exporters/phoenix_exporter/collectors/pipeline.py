"""What the sales pipeline is worth."""

from phoenix_exporter.collector import Collector
from phoenix_exporter.metric import Gauge

SQL = """
SELECT
    stage,
    sum(opportunities) AS opportunities,
    sum(value) AS value,
    sum(weighted_value) AS weighted_value,
    CASE WHEN grouping(stage) = 1
         THEN coalesce(sum(weighted_value) FILTER (WHERE stage <> 'closed_lost'), 0) END AS pipeline
FROM phoenix.metrics_pipeline
GROUP BY GROUPING SETS ((stage), ())
ORDER BY stage
"""

COLLECTOR = Collector(
    name="pipeline",
    sql=SQL,
    ttl_s=15.0,
    metrics=(
        Gauge(
            "phoenix_pipeline_value_total",
            "pipeline",
            "US dollars: value times probability of all opportunities that are not lost, as on the dashboard (a gauge).",
        ),
        Gauge("phoenix_pipeline_opportunities", "opportunities", "Opportunities in each stage.", ("stage",)),
        Gauge("phoenix_pipeline_stage_value", "value", "US dollars: value in each stage.", ("stage",)),
        Gauge(
            "phoenix_pipeline_stage_weighted_value",
            "weighted_value",
            "US dollars: value times probability in each stage.",
            ("stage",),
        ),
    ),
)
