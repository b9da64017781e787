from phoenix_exporter.collectors.ingestion import COLLECTOR


def test_workflow_that_never_succeeded_has_success_at_zero(feed):
    rows = [{"workflow": "hubspot_sync", "last_success": 0, "failures_24h": 3, "requests_24h": 12, "retries_24h": 5}]
    assert feed(COLLECTOR)(rows, 0.0) == {
        'phoenix_ingestion_last_success_timestamp_seconds{workflow="hubspot_sync"}': 0,
        'phoenix_ingestion_failures_24h{workflow="hubspot_sync"}': 3,
        'phoenix_ingestion_requests_24h{workflow="hubspot_sync"}': 12,
        'phoenix_ingestion_retries_24h{workflow="hubspot_sync"}': 5,
    }
