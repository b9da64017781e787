"""Which agents there are and which of them are alive."""

from phoenix_exporter.collector import Collector
from phoenix_exporter.metric import Gauge

SQL = """
SELECT
    team,
    sum(registered) AS registered_in_team,
    sum(active) AS active_in_team,
    CASE WHEN grouping(team) = 1 THEN coalesce(sum(registered), 0) END AS registered,
    CASE WHEN grouping(team) = 1 THEN coalesce(sum(active), 0) END AS active
FROM phoenix.metrics_agents_by_team
GROUP BY GROUPING SETS ((team), ())
ORDER BY team
"""

COLLECTOR = Collector(
    name="agents",
    sql=SQL,
    metrics=(
        Gauge("phoenix_agents_active", "active", "Agents not decommissioned, with a heartbeat in the last 5 minutes."),
        Gauge("phoenix_agents_registered", "registered", "Agents not decommissioned."),
        Gauge("phoenix_team_agents_active", "active_in_team", "phoenix_agents_active by team.", ("team",)),
        Gauge("phoenix_team_agents_registered", "registered_in_team", "phoenix_agents_registered by team.", ("team",)),
    ),
)
