"""All collectors, in the order in which a scrape runs them.

`database` is first and is never cached: its answer is what phoenix_up stands on. The dearest come last, so that a tight
deadline costs the fewest metrics.
"""

from phoenix_exporter.collector import Collector
from phoenix_exporter.collectors import (
    agents,
    consciousness,
    database,
    ingestion,
    jobs,
    outbox,
    personas,
    pipeline,
    replication,
    statements,
    tasks,
)

ALL: tuple[Collector, ...] = (
    database.COLLECTOR,
    consciousness.COLLECTOR,
    agents.COLLECTOR,
    tasks.COLLECTOR,
    pipeline.COLLECTOR,
    replication.COLLECTOR,
    outbox.COLLECTOR,
    jobs.COLLECTOR,
    ingestion.COLLECTOR,
    statements.COLLECTOR,
    personas.COLLECTOR,
)
