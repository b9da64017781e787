from phoenix_exporter.collectors.database import COLLECTOR

BLANK = dict.fromkeys(("role", "state", "connections", "open", "maximum", "reserved", "in_recovery", "result", "transactions"))


def rows(commits: int, rollbacks: int) -> list[dict[str, object]]:
    return [
        BLANK | {"role": "samurai_agent", "state": "idle", "connections": 40},
        BLANK | {"role": "monitor", "state": "active", "connections": 1},
        BLANK | {"open": 41, "maximum": 100, "reserved": 3, "in_recovery": 0},
        BLANK | {"result": "commit", "transactions": commits},
        BLANK | {"result": "rollback", "transactions": rollbacks},
    ]


def test_total_has_no_labels_so_that_the_alert_of_the_spec_works_as_written(feed):
    samples = feed(COLLECTOR)(rows(1, 0), 0.0)
    assert samples["phoenix_db_connections_active"] == 41
    assert samples["phoenix_db_connections_max"] == 100
    assert samples["phoenix_db_connections_reserved"] == 3
    assert samples["phoenix_db_in_recovery"] == 0
    assert samples['phoenix_db_connections{role="samurai_agent",state="idle"}'] == 40


def test_rate_is_commits_and_rollbacks_over_the_time_between(feed):
    scrape = feed(COLLECTOR)
    first = scrape(rows(1000, 10), 100.0)
    assert first['phoenix_db_transactions_total{result="commit"}'] == 1000
    assert first['phoenix_db_transactions_total{result="rollback"}'] == 10
    assert "phoenix_db_transactions_per_second" not in first
    assert scrape(rows(1290, 20), 110.0)["phoenix_db_transactions_per_second"] == 30.0


def test_rate_is_absent_after_a_reset_and_comes_back(feed):
    scrape = feed(COLLECTOR)
    scrape(rows(1000, 0), 0.0)
    assert "phoenix_db_transactions_per_second" not in scrape(rows(5, 0), 10.0)
    assert scrape(rows(105, 0), 20.0)["phoenix_db_transactions_per_second"] == 10.0


def test_rate_forgets_what_is_older_than_a_minute(feed):
    scrape = feed(COLLECTOR)
    total = 0
    for second in range(0, 300, 15):
        total += 15 * (100 if second < 150 else 2)
        samples = scrape(rows(total, 0), float(second))
    assert samples["phoenix_db_transactions_per_second"] == 2.0


def test_rate_over_slow_scrapes_is_that_of_the_last_interval(feed):
    scrape = feed(COLLECTOR)
    for now, total in ((0.0, 0), (300.0, 3000), (600.0, 3600)):
        samples = scrape(rows(total, 0), now)
    assert samples["phoenix_db_transactions_per_second"] == 2.0
