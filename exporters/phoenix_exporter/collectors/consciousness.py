"""The newest measured consciousness of the federation, and when it was measured."""

from phoenix_exporter.collector import Collector
from phoenix_exporter.metric import Gauge

SQL = """
SELECT global_consciousness, global_trust, extract(epoch FROM time) AS measured_at
FROM phoenix.metrics_consciousness
"""

COLLECTOR = Collector(
    name="consciousness",
    sql=SQL,
    metrics=(
        Gauge(
            "phoenix_consciousness_current",
            "global_consciousness",
            "Newest global consciousness; absent while none was measured.",
        ),
        Gauge("phoenix_trust_current", "global_trust", "Newest global trust; absent while none was measured."),
        Gauge(
            "phoenix_consciousness_timestamp_seconds",
            "measured_at",
            "Unix time at which phoenix_consciousness_current was measured: an old value is not a good one.",
        ),
    ),
)
