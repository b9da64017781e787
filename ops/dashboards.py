"""Grafana dashboards as data: `python -m ops.dashboards` writes templates/grafana/*.json from what is described here.

Nobody edits the JSON: a panel is a line below, and a test compares the committed files with what this module makes. Every query is
executed by tests/hosts/test_rules_live.py against the lab's Prometheus.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

DIRECTORY = Path(__file__).resolve().parents[1] / "templates" / "grafana"
GRID_COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
HOST = 'host=~"$host"'
DISKS = f'{HOST}, fstype=~"ext[234]|xfs|btrfs|zfs|overlay|f2fs", mountpoint!~"/(run|boot/efi).*"'

Kind = Literal["stat", "timeseries", "table", "bargauge"]


@dataclass(frozen=True)
class Query:
    """One PromQL expression and how its series are named in the legend."""

    expr: str
    legend: str = "{{host}}"


@dataclass(frozen=True)
class Panel:
    """One picture. `unit` is Grafana's name of a unit; it is red from the value `red` on (with `low_is_bad`: down to it)."""

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 7
    description: str = ""
    red: float | None = None
    low_is_bad: bool = False
    minimum: float | None = 0


@dataclass(frozen=True)
class Row:
    """A titled band of panels."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Dashboard:
    """One page. `uid` is its address in Grafana and the name of its file; it never changes."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]


def stat(title: str, expr: str, unit: str = "short", *, red: float | None = None, low_is_bad: bool = False, description: str = "") -> Panel:
    """A number, coloured by its threshold."""
    return Panel(title, [Query(expr)], unit, "stat", 4, 4, description, red, low_is_bad)


OVERVIEW = Dashboard(
    "phoenix-overview",
    "Phoenix: overview",
    "Is the platform well, and is it doing its work?",
    [
        Row(
            "Now",
            [
                stat("Database", f"min by (host) (phoenix_up{{{HOST}}})", red=0, low_is_bad=True, description="1 when it answers."),
                stat("Firing alerts", 'count(ALERTS{alertstate="firing", severity=~"critical|warning"}) or vector(0)', red=1),
                stat("Consciousness", f"phoenix_consciousness_current{{{HOST}}}", red=105.75, low_is_bad=True),
                stat("Personas", f"phoenix_personas_total{{{HOST}}}"),
                stat("Active agents", f"phoenix_agents_active{{{HOST}}}"),
                stat("Pipeline, weighted", f"phoenix_pipeline_value_total{{{HOST}}}", "currencyUSD"),
            ],
        ),
        Row(
            "Tasks",
            [
                Panel(
                    "Created and completed per hour",
                    [
                        Query(f"3600 * rate(phoenix_tasks_created_total{{{HOST}}}[1h])", "{{host}} created"),
                        Query(f"3600 * rate(phoenix_tasks_completed_total{{{HOST}}}[1h])", "{{host}} completed"),
                    ],
                    description="TaskBacklogGrowing compares these two.",
                ),
                Panel("Tasks by status", [Query(f"phoenix_tasks_by_status{{{HOST}}}", "{{status}}")]),
                Panel(
                    "Share of the last day's tasks that are complete",
                    [Query(f"phoenix_tasks_completion_rate{{{HOST}}}")],
                    "percentunit",
                ),
            ],
        ),
        Row(
            "Consciousness and pipeline",
            [
                Panel(
                    "Consciousness",
                    [
                        Query(f"phoenix_consciousness_current{{{HOST}}}", "{{host}} global"),
                        Query(f"phoenix_consciousness_team_current{{{HOST}}}", "{{team}}"),
                    ],
                    red=105.75,
                    low_is_bad=True,
                    minimum=None,
                ),
                Panel(
                    "Age of the newest measurement",
                    [Query(f"time() - phoenix_consciousness_timestamp_seconds{{{HOST}}}")],
                    "s",
                    red=3600,
                ),
                Panel(
                    "Weighted value by stage",
                    [Query(f"phoenix_pipeline_stage_weighted_value{{{HOST}}}", "{{stage}}")],
                    "currencyUSD",
                ),
            ],
        ),
        Row(
            "Database",
            [
                Panel(
                    "Transactions per second",
                    [Query(f"phoenix_db_transactions_per_second{{{HOST}}}")],
                    "ops",
                ),
                Panel(
                    "Connections",
                    [
                        Query(f"phoenix_db_connections_active{{{HOST}}}", "{{host}} open"),
                        Query(f"phoenix_db_connections_max{{{HOST}}}", "{{host}} max_connections"),
                    ],
                ),
                Panel(
                    "Time of a statement",
                    [
                        Query(
                            f"rate(phoenix_db_query_duration_seconds_sum{{{HOST}}}[$__rate_interval])"
                            f" / rate(phoenix_db_query_duration_seconds_count{{{HOST}}}[$__rate_interval])",
                            "{{host}} average",
                        ),
                        Query(
                            "histogram_quantile(0.95, sum by (host, le)"
                            f" (rate(phoenix_db_query_duration_seconds_bucket{{{HOST}}}[$__rate_interval])))",
                            "{{host}} p95",
                        ),
                    ],
                    "s",
                ),
            ],
        ),
    ],
)

POSTGRESQL = Dashboard(
    "phoenix-postgresql",
    "Phoenix: PostgreSQL",
    "The server: who leads, who waits, what it costs.",
    [
        Row(
            "Cluster",
            [
                stat("Leader", f"patroni_primary{{{HOST}}}", description="1 on the member that takes writes."),
                stat("Patroni has a leader", f"1 - max by (scope) (patroni_cluster_unlocked{{{HOST}}})", red=0, low_is_bad=True),
                stat("etcd has a leader", f"min by (host) (etcd_server_has_leader{{{HOST}}})", red=0, low_is_bad=True),
                stat("Streaming standbys", f"sum(patroni_postgres_streaming{{{HOST}}})"),
                stat("Timeline", f"max(patroni_postgres_timeline{{{HOST}}})"),
                stat("Running for", f"time() - pg_postmaster_start_time_seconds{{{HOST}}}", "s"),
            ],
        ),
        Row(
            "Connections and transactions",
            [
                Panel(
                    "Connections by role and state",
                    [Query(f"phoenix_db_connections{{{HOST}}}", "{{role}} {{state}}")],
                ),
                Panel(
                    "Share of max_connections",
                    [Query(f"phoenix_db_connections_active{{{HOST}}} / phoenix_db_connections_max{{{HOST}}}")],
                    "percentunit",
                    red=0.8,
                ),
                Panel(
                    "Longest transaction",
                    [
                        Query(
                            "max by (host, usename, state)"
                            f' (pg_stat_activity_max_tx_duration{{{HOST}, backend_type="client backend", state!="idle"}})',
                            "{{usename}} {{state}}",
                        )
                    ],
                    "s",
                ),
                Panel(
                    "Commits and rollbacks",
                    [Query(f"rate(phoenix_db_transactions_total{{{HOST}}}[$__rate_interval])", "{{host}} {{result}}")],
                    "ops",
                ),
                Panel(
                    "Deadlocks",
                    [Query(f"increase(pg_stat_database_deadlocks{{{HOST}}}[15m])", "{{datname}}")],
                ),
                Panel(
                    "Locks held",
                    [Query(f"sum by (host, mode) (pg_locks_count{{{HOST}}})", "{{mode}}")],
                ),
            ],
        ),
        Row(
            "Reading, writing, vacuum",
            [
                Panel(
                    "Reads served from memory",
                    [
                        Query(
                            f"sum by (host) (rate(pg_stat_database_blks_hit{{{HOST}}}[$__rate_interval]))"
                            f" / (sum by (host) (rate(pg_stat_database_blks_hit{{{HOST}}}[$__rate_interval]))"
                            f" + sum by (host) (rate(pg_stat_database_blks_read{{{HOST}}}[$__rate_interval])))"
                        )
                    ],
                    "percentunit",
                ),
                Panel(
                    "Rows written",
                    [
                        Query(
                            f'sum by (host) (rate(pg_stat_database_tup_{what}{{{HOST}, datname="phoenix"}}[$__rate_interval]))',
                            f"{{{{host}}}} {what}",
                        )
                        for what in ("inserted", "updated", "deleted")
                    ],
                    "ops",
                ),
                Panel(
                    "Temporary files",
                    [Query(f"sum by (host, datname) (rate(pg_stat_database_temp_bytes{{{HOST}}}[$__rate_interval]))", "{{datname}}")],
                    "Bps",
                ),
                Panel("Size of the databases", [Query(f"pg_database_size_bytes{{{HOST}}}", "{{datname}}")], "bytes"),
                Panel(
                    "Dead rows: the ten worst tables",
                    [Query(f"topk(10, pg_stat_user_tables_n_dead_tup{{{HOST}}})", "{{schemaname}}.{{relname}}")],
                ),
                Panel(
                    "Transactions since the oldest unfrozen one",
                    [Query(f"pg_database_wraparound_age_datfrozenxid_seconds{{{HOST}}}", "{{datname}}")],
                    red=500e6,
                ),
            ],
        ),
        Row(
            "Replication and archive",
            [
                Panel("Behind the leader", [Query(f"pg_replication_lag_seconds{{{HOST}}}")], "s", red=60),
                Panel(
                    "WAL kept for slots",
                    [Query(f"pg_replication_slots_pg_wal_lsn_diff{{{HOST}}}", "{{slot_name}}")],
                    "bytes",
                ),
                Panel("WAL on disk", [Query(f"pg_wal_size_bytes{{{HOST}}}")], "bytes"),
                Panel("Age of the newest archived segment", [Query(f"pg_stat_archiver_last_archive_age{{{HOST}}}")], "s", red=900),
                Panel(
                    "Archiving",
                    [
                        Query(f"increase(pg_stat_archiver_archived_count{{{HOST}}}[15m])", "{{host}} archived"),
                        Query(f"increase(pg_stat_archiver_failed_count{{{HOST}}}[15m])", "{{host}} failed"),
                    ],
                ),
                Panel(
                    "etcd: slowest percent of writes to disk",
                    [
                        Query(
                            "histogram_quantile(0.99, sum by (host, le)"
                            f" (rate(etcd_disk_wal_fsync_duration_seconds_bucket{{{HOST}}}[$__rate_interval])))"
                        )
                    ],
                    "s",
                    red=0.5,
                ),
            ],
        ),
    ],
)

HOSTS = Dashboard(
    "phoenix-hosts",
    "Phoenix: hosts",
    "Disks, memory, processors, network, clocks, units, certificates.",
    [
        Row(
            "Now",
            [
                stat("Up", f"max by (host) (up{{{HOST}}})", red=0, low_is_bad=True),
                stat("Running for", f"time() - node_boot_time_seconds{{{HOST}}}", "s"),
                stat("Failed units", f'sum by (host) (node_systemd_unit_state{{{HOST}, state="failed"}})', red=1),
                stat("Certificate valid for", f"min by (host) (phoenix_tls_not_after_timestamp_seconds{{{HOST}}} - time())", "s"),
                stat("Clock", f"node_time_seconds{{{HOST}}} - timestamp(node_time_seconds{{{HOST}}})", "s"),
                stat("Killed for memory, last day", f"increase(node_vmstat_oom_kill{{{HOST}}}[1d])", red=1),
            ],
        ),
        Row(
            "Processors and memory",
            [
                Panel(
                    "Processors busy",
                    [Query(f'1 - avg by (host) (rate(node_cpu_seconds_total{{{HOST}, mode="idle"}}[$__rate_interval]))')],
                    "percentunit",
                ),
                Panel(
                    "Load for each processor",
                    [Query(f'node_load5{{{HOST}}} / on (host) count by (host) (node_cpu_seconds_total{{{HOST}, mode="idle"}})')],
                ),
                Panel(
                    "Memory available",
                    [Query(f"node_memory_MemAvailable_bytes{{{HOST}}} / node_memory_MemTotal_bytes{{{HOST}}}")],
                    "percentunit",
                    red=0.1,
                    low_is_bad=True,
                ),
            ],
        ),
        Row(
            "Disks and network",
            [
                Panel(
                    "Free space",
                    [Query(f"node_filesystem_avail_bytes{{{DISKS}}} / node_filesystem_size_bytes{{{DISKS}}}", "{{host}} {{mountpoint}}")],
                    "percentunit",
                    red=0.15,
                    low_is_bad=True,
                ),
                Panel(
                    "Free inodes",
                    [Query(f"node_filesystem_files_free{{{DISKS}}} / node_filesystem_files{{{DISKS}}}", "{{host}} {{mountpoint}}")],
                    "percentunit",
                    red=0.1,
                    low_is_bad=True,
                ),
                Panel(
                    "Disk busy",
                    [Query(f"rate(node_disk_io_time_seconds_total{{{HOST}}}[$__rate_interval])", "{{host}} {{device}}")],
                    "percentunit",
                ),
                Panel(
                    "Disk read and written",
                    [
                        Query(f"sum by (host) (rate(node_disk_read_bytes_total{{{HOST}}}[$__rate_interval]))", "{{host}} read"),
                        Query(f"sum by (host) (rate(node_disk_written_bytes_total{{{HOST}}}[$__rate_interval]))", "{{host}} written"),
                    ],
                    "Bps",
                ),
                Panel(
                    "Network",
                    [
                        Query(
                            f'sum by (host) (rate(node_network_receive_bytes_total{{{HOST}, device!="lo"}}[$__rate_interval]))',
                            "{{host}} received",
                        ),
                        Query(
                            f'sum by (host) (rate(node_network_transmit_bytes_total{{{HOST}, device!="lo"}}[$__rate_interval]))',
                            "{{host}} sent",
                        ),
                    ],
                    "Bps",
                ),
                Panel("Open files", [Query(f"node_filefd_allocated{{{HOST}}}")]),
            ],
        ),
    ],
)

MONITORING = Dashboard(
    "phoenix-monitoring",
    "Phoenix: alerts and exporters",
    "What is wrong, and can the watchers see?",
    [
        Row(
            "Alerts",
            [
                Panel("Firing", [Query('ALERTS{alertstate="firing", severity!="watchdog"}', "{{alertname}}")], "none", "table", 16, 9),
                Panel(
                    "Alerts by severity",
                    [Query('count by (severity) (ALERTS{alertstate="firing"})', "{{severity}}")],
                    height=9,
                ),
                Panel(
                    "Sent to Alertmanager",
                    [
                        Query("sum by (host) (rate(prometheus_notifications_sent_total[$__rate_interval]))", "sent"),
                        Query("sum by (host) (rate(prometheus_notifications_errors_total[$__rate_interval]))", "failed"),
                        Query("sum by (host) (rate(prometheus_notifications_dropped_total[$__rate_interval]))", "dropped"),
                    ],
                    "ops",
                ),
                Panel(
                    "Told to people",
                    [
                        Query("sum by (integration) (increase(alertmanager_notifications_total[1h])) > 0", "{{integration}}"),
                        Query("sum by (integration) (increase(alertmanager_notifications_failed_total[1h])) > 0", "{{integration}} failed"),
                    ],
                ),
                Panel("Silences", [Query("alertmanager_silences", "{{state}}")]),
            ],
        ),
        Row(
            "Targets",
            [
                Panel("Up", [Query(f"up{{{HOST}}}", "{{job}} {{host}}")], red=0, low_is_bad=True),
                Panel("Time of a scrape", [Query(f"scrape_duration_seconds{{{HOST}}}", "{{job}} {{host}}")], "s"),
                Panel("Series of a scrape", [Query(f"scrape_samples_scraped{{{HOST}}}", "{{job}} {{host}}")]),
            ],
        ),
        Row(
            "Phoenix exporter",
            [
                Panel(
                    "Collectors",
                    [Query(f"phoenix_exporter_collector_success{{{HOST}}}", "{{collector}}")],
                    red=0,
                    low_is_bad=True,
                ),
                Panel("Time of each collector", [Query(f"phoenix_exporter_collector_duration_seconds{{{HOST}}}", "{{collector}}")], "s"),
                Panel("Age of what is served", [Query(f"phoenix_exporter_collector_data_age_seconds{{{HOST}}}", "{{collector}}")], "s"),
                Panel(
                    "Scrapes and executions",
                    [
                        Query(f"rate(phoenix_exporter_scrapes_total{{{HOST}}}[$__rate_interval])", "scrapes"),
                        Query(f"rate(phoenix_exporter_executions_total{{{HOST}}}[$__rate_interval])", "executions"),
                        Query(f"rate(phoenix_exporter_executions_aborted_total{{{HOST}}}[$__rate_interval])", "aborted: {{reason}}"),
                    ],
                    "ops",
                    description="Scrapes at the same time share one execution.",
                ),
                Panel("Time of an execution", [Query(f"phoenix_exporter_execution_duration_seconds{{{HOST}}}")], "s"),
                Panel(
                    "Memory of the exporters",
                    [Query(f'process_resident_memory_bytes{{{HOST}, job=~"phoenix|postgres|node"}}', "{{job}} {{host}}")],
                    "bytes",
                ),
            ],
        ),
        Row(
            "Prometheus",
            [
                Panel("Series", [Query("prometheus_tsdb_head_series")]),
                Panel(
                    "Time of a rule group",
                    [Query("max by (rule_group) (prometheus_rule_group_last_duration_seconds)", "{{rule_group}}")],
                    "s",
                ),
                Panel("Data on disk", [Query("prometheus_tsdb_storage_blocks_bytes + prometheus_tsdb_wal_storage_size_bytes")], "bytes"),
            ],
        ),
    ],
)

RECOVERY = Dashboard(
    "phoenix-recovery",
    "Phoenix: recovery",
    "What would be lost, how long it would take, and since when that is proven.",
    [
        Row(
            "Proven by the last successful drill",
            [
                stat(
                    "Last drill", f"phoenix_drill_success{{{HOST}}}", red=0, low_is_bad=True, description="1 when the last drill succeeded."
                ),
                stat("Age of the last success", f"time() - phoenix_drill_last_success_timestamp_seconds{{{HOST}}}", "s", red=93600),
                stat("RPO", f"phoenix_drill_rpo_seconds{{{HOST}}}", "s", red=120, description="From a commit until the repository had it."),
                stat("RTO", f"phoenix_drill_rto_seconds{{{HOST}}}", "s", red=1800, description="Restore, recover, promote, first write."),
                stat("Lost rows", f"phoenix_drill_lost_rows{{{HOST}}}", red=1),
                stat("Rows compared", f"phoenix_drill_rows_compared{{{HOST}}}"),
            ],
        ),
        Row(
            "Drills",
            [
                Panel(
                    "RPO and RTO",
                    [
                        Query(f"phoenix_drill_rpo_seconds{{{HOST}}}", "{{host}} RPO"),
                        Query(f"phoenix_drill_rto_seconds{{{HOST}}}", "{{host}} RTO"),
                    ],
                    "s",
                ),
                Panel("Time of each step", [Query(f"phoenix_drill_step_seconds{{{HOST}}}", "{{step}}")], "s"),
                Panel("Restored", [Query(f"phoenix_drill_restored_bytes{{{HOST}}}")], "bytes"),
            ],
        ),
        Row(
            "Backups and archive",
            [
                Panel(
                    "Age of the newest backup",
                    [Query(f"time() - phoenix_backup_last_success_timestamp_seconds{{{HOST}}}", "{{host}} {{type}}")],
                    "s",
                ),
                Panel("Size of the database", [Query(f"phoenix_backup_size_bytes{{{HOST}}}", "{{host}} {{type}}")], "bytes"),
                Panel("Sent to the repository", [Query(f"phoenix_backup_sent_bytes{{{HOST}}}", "{{host}} {{type}}")], "bytes"),
                Panel("Time of a backup", [Query(f"phoenix_backup_duration_seconds{{{HOST}}}", "{{host}} {{type}}")], "s"),
                Panel("Age of the newest archived segment", [Query(f"pg_stat_archiver_last_archive_age{{{HOST}}}")], "s", red=900),
                Panel("Backups in the repository", [Query(f"phoenix_backup_count{{{HOST}}}", "{{host}} {{type}}")]),
                Panel("Repository reachable", [Query(f"phoenix_backup_repository_reachable{{{HOST}}}")], description="1 when it is."),
                Panel("WAL that waits to be archived", [Query(f"phoenix_backup_archive_waiting_segments{{{HOST}}}")]),
            ],
        ),
        Row(
            "Replication and failover",
            [
                Panel("Behind the leader", [Query(f"pg_replication_lag_seconds{{{HOST}}}")], "s", red=60),
                Panel(
                    "Who leads",
                    [Query(f"patroni_primary{{{HOST}}}", "{{scope}} {{host}}")],
                    description="1 on the member that takes writes.",
                ),
                Panel(
                    "Failovers",
                    [Query(f"changes(max by (scope) (patroni_postgres_timeline{{{HOST}}})[1h:1m])", "{{scope}}")],
                    description="Each promotion begins a new timeline. Counted over an hour.",
                ),
            ],
        ),
    ],
)

DASHBOARDS = (OVERVIEW, POSTGRESQL, RECOVERY, HOSTS, MONITORING)


def queries(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    """Title of the panel and expression of each query, with Grafana's variables filled in so that Prometheus can execute it."""
    for row in dashboard.rows:
        for panel in row.panels:
            for query in panel.queries:
                yield panel.title, query.expr.replace("$__rate_interval", "5m").replace("$host", ".*")


def document(dashboard: Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in dashboard.rows:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": {"h": 1, "w": GRID_COLUMNS, "x": 0, "y": y},
                "panels": [],
            }
        )
        y += 1
        x = height = 0
        for panel in row.panels:
            if x + panel.width > GRID_COLUMNS:
                x, y, height = 0, y + height, 0
            panels.append(_panel(panel, len(panels) + 1, x, y))
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["phoenix"],
        "editable": False,
        "schemaVersion": 39,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "utc",
        "graphTooltip": 1,
        "links": [
            {"type": "dashboards", "tags": ["phoenix"], "title": "Phoenix", "asDropdown": True, "keepTime": True, "includeVars": True}
        ],
        "templating": {
            "list": [
                {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
                {
                    "name": "host",
                    "label": "Host",
                    "type": "query",
                    "datasource": DATASOURCE,
                    "query": {"query": "label_values(up, host)", "refId": "host"},
                    "refresh": 2,
                    "sort": 1,
                    "multi": True,
                    "includeAll": True,
                    "allValue": ".*",
                    "current": {"text": "All", "value": "$__all"},
                },
            ]
        },
        "panels": panels,
    }


def _panel(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": _steps(panel)}}
    if panel.minimum is not None and panel.kind == "timeseries":
        defaults["min"] = panel.minimum
    if panel.kind == "timeseries":
        style = "line" if panel.red is not None else "off"
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "thresholdsStyle": {"mode": style}}
    as_table = panel.kind == "table"
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": {"h": panel.height, "w": panel.width, "x": x, "y": y},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel),
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": DATASOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "instant": as_table,
                "range": not as_table,
                "format": "table" if as_table else "time_series",
            }
            for index, query in enumerate(panel.queries)
        ],
    }


def _steps(panel: Panel) -> list[dict[str, Any]]:
    if panel.red is None:
        return [{"color": "blue", "value": None}]
    if panel.low_is_bad:
        # Grafana colours upwards from a value; a hair above the limit is the first that is good.
        return [{"color": "red", "value": None}, {"color": "green", "value": panel.red + 1e-9}]
    return [{"color": "green", "value": None}, {"color": "red", "value": panel.red}]


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        return {"colorMode": "value", "graphMode": "area", "textMode": "auto", "reduceOptions": {"calcs": ["lastNotNull"]}}
    if panel.kind == "table":
        return {"showHeader": True, "sortBy": [{"displayName": "severity", "desc": False}]}
    return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}


def text(dashboard: Dashboard) -> str:
    """The file's content."""
    return json.dumps(document(dashboard), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write every dashboard."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for dashboard in DASHBOARDS:
        (DIRECTORY / f"{dashboard.uid}.json").write_text(text(dashboard), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
