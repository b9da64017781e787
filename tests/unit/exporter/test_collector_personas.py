from phoenix_exporter.collectors.personas import COLLECTOR


def test_count_is_exact(feed):
    assert feed(COLLECTOR)([{"personas": 100_000}], 0.0) == {"phoenix_personas_total": 100_000}


def test_dear_statement_is_not_asked_at_every_scrape():
    assert COLLECTOR.ttl_s >= 30
