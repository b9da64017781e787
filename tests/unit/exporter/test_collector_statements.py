from phoenix_exporter.collectors.statements import COLLECTOR

NAME = "phoenix_db_query_duration_seconds"


def rows(*statements: tuple[int, int, float]) -> list[dict[str, object]]:
    """One row of arrays for statements given as (query, calls, seconds)."""
    queries, calls, seconds = map(list, zip(*statements, strict=True)) if statements else (None, None, None)
    return [{"userid": queries and [10] * len(queries), "queryid": queries, "calls": calls, "seconds": seconds}]


def bucket(samples: dict[str, float], le: str) -> float:
    return samples[f'{NAME}_bucket{{le="{le}"}}']


def test_first_look_counts_nothing(feed):
    samples = feed(COLLECTOR)(rows((1, 10**6, 5000.0)), 0.0)
    assert samples[f"{NAME}_count"] == samples[f"{NAME}_sum"] == bucket(samples, "+Inf") == 0


def test_calls_land_in_the_bucket_of_their_mean_and_sum_and_count_are_exact(feed):
    scrape = feed(COLLECTOR)
    scrape(rows((1, 100, 1.0), (2, 7, 70.0)), 0.0)
    samples = scrape(rows((1, 300, 1.6), (2, 8, 77.0), (3, 4, 0.0002)), 15.0)
    assert samples[f"{NAME}_count"] == 200 + 1 + 4
    assert samples[f"{NAME}_sum"] == 0.6000000000000001 + 7.0 + 0.0002
    assert bucket(samples, "0.0001") == 4  # 50 µs each, new since the last look
    assert bucket(samples, "0.0025") == 4
    assert bucket(samples, "0.005") == 204  # 3 ms each
    assert bucket(samples, "5.0") == 204
    assert bucket(samples, "10.0") == bucket(samples, "+Inf") == 205  # the one of 7 s


def test_slower_than_the_last_bound_still_counts(feed):
    scrape = feed(COLLECTOR)
    scrape(rows(), 0.0)
    samples = scrape(rows((1, 1, 600.0)), 15.0)
    assert bucket(samples, "60.0") == 0
    assert bucket(samples, "+Inf") == 1


def test_evicted_statement_takes_nothing_away_and_counts_from_zero_when_it_returns(feed):
    scrape = feed(COLLECTOR)
    scrape(rows((1, 1000, 10.0), (2, 5, 5.0)), 0.0)
    gone = scrape(rows((2, 6, 6.0)), 15.0)
    assert gone[f"{NAME}_count"] == 1
    back = scrape(rows((1, 3, 0.03), (2, 6, 6.0)), 30.0)
    assert back[f"{NAME}_count"] == 4
    assert abs(back[f"{NAME}_sum"] - 1.03) < 1e-9


def test_reset_of_all_statistics_neither_falls_nor_leaps(feed):
    scrape = feed(COLLECTOR)
    scrape(rows((1, 1000, 10.0)), 0.0)
    before = scrape(rows((1, 1100, 11.0)), 15.0)
    after = scrape(rows((1, 2, 0.02)), 30.0)
    assert before[f"{NAME}_count"] == 100
    assert after[f"{NAME}_count"] == 102
    assert abs(after[f"{NAME}_sum"] - 1.02) < 1e-9
