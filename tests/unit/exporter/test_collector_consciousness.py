from phoenix_exporter.collectors.consciousness import COLLECTOR


def test_newest_value_comes_with_the_time_at_which_it_was_measured(feed):
    rows = [{"global_consciousness": 108.5, "global_trust": 0.75, "measured_at": 1.7e9}]
    assert feed(COLLECTOR)(rows, 0.0) == {
        "phoenix_consciousness_current": 108.5,
        "phoenix_trust_current": 0.75,
        "phoenix_consciousness_timestamp_seconds": 1.7e9,
    }


def test_never_measured_is_absent_and_not_zero(feed):
    assert feed(COLLECTOR)([], 0.0) == {}
