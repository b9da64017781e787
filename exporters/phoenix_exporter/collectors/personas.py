"""How many personas there are."""

from phoenix_exporter.collector import Collector
from phoenix_exporter.metric import Gauge

# Exact, so its cost grows with the table (7 ms at 100,000 rows); hence the long time to live.
SQL = """
SELECT personas FROM phoenix.metrics_personas
"""

COLLECTOR = Collector(
    name="personas",
    sql=SQL,
    ttl_s=60.0,
    metrics=(Gauge("phoenix_personas_total", "personas", "Personas stored now (a gauge: the name is the spec's)."),),
)
