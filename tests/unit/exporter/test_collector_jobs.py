from decimal import Decimal

from phoenix_exporter.collectors.jobs import COLLECTOR


def test_job_that_never_ran_has_success_at_zero_and_no_duration(feed):
    rows = [
        {"job": "create-persona-partitions", "active": 1, "last_success": 0, "last_duration": None, "failures": 0, "failing": 0},
        {
            "job": "refresh-dashboard",
            "active": 0,
            "last_success": Decimal("1.7e9"),
            "last_duration": Decimal("0.25"),
            "failures": 2,
            "failing": 1,
        },
    ]
    assert feed(COLLECTOR)(rows, 0.0) == {
        'phoenix_job_active{job="create-persona-partitions"}': 1,
        'phoenix_job_active{job="refresh-dashboard"}': 0,
        'phoenix_job_last_success_timestamp_seconds{job="create-persona-partitions"}': 0,
        'phoenix_job_last_success_timestamp_seconds{job="refresh-dashboard"}': 1.7e9,
        'phoenix_job_last_duration_seconds{job="refresh-dashboard"}': 0.25,
        'phoenix_job_failing{job="create-persona-partitions"}': 0,
        'phoenix_job_failing{job="refresh-dashboard"}': 1,
        'phoenix_job_failures_24h{job="create-persona-partitions"}': 0,
        'phoenix_job_failures_24h{job="refresh-dashboard"}': 2,
    }
