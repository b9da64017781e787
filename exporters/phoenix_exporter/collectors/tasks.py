"""The task board: what was ever created, completed and failed, and what lies in which status now."""

from phoenix_exporter.collector import Collector
from phoenix_exporter.metric import Counter, Gauge, Untyped

SQL = """
SELECT created, completed, failed, NULL AS status, NULL::bigint AS tasks,
       CASE created WHEN 0 THEN 'NaN' ELSE completed::float8 / created END AS completion_rate
FROM phoenix.metrics_task_counters
UNION ALL
SELECT NULL, NULL, NULL, status, tasks, NULL
FROM phoenix.metrics_task_status
"""

_KEPT = "deleting tasks does not lower it."
_SPEC = "under the name that the spec's alert uses."

COLLECTOR = Collector(
    name="tasks",
    sql=SQL,
    metrics=(
        Counter("phoenix_tasks_created_total", "created", f"Tasks ever created; {_KEPT}"),
        Counter("phoenix_tasks_completed_total", "completed", f"Tasks ever completed; {_KEPT}"),
        Counter("phoenix_tasks_failed_total", "failed", f"Tasks ever failed; {_KEPT}"),
        Untyped("phoenix_tasks_created", "created", f"phoenix_tasks_created_total {_SPEC}"),
        Untyped("phoenix_tasks_completed", "completed", f"phoenix_tasks_completed_total {_SPEC}"),
        Gauge(
            "phoenix_tasks_completion_rate",
            "completion_rate",
            "Tasks ever completed divided by tasks ever created; NaN while none was created.",
        ),
        Gauge("phoenix_tasks_by_status", "tasks", "Tasks now in each status.", ("status",)),
    ),
)
