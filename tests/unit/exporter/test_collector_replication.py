from decimal import Decimal

from phoenix_exporter.collectors.replication import COLLECTOR

COLUMNS = ("slot", "ready", "subscription", "up", "last_message", "state", "tables", "kind", "errors", "conflict", "conflicts")
BLANK = dict.fromkeys(COLUMNS)


def test_a_standby_says_of_each_slot_whether_it_would_serve(feed):
    rows = [BLANK | {"slot": "region2", "ready": 1}, BLANK | {"slot": "late", "ready": 0}]
    assert feed(COLLECTOR)(rows, 0.0) == {
        'phoenix_replication_slot_ready{slot="region2"}': 1,
        'phoenix_replication_slot_ready{slot="late"}': 0,
    }


def test_a_copy_says_whether_its_subscription_works_and_what_went_wrong(feed):
    of = BLANK | {"subscription": "region2"}
    rows = [
        of | {"up": 1, "last_message": Decimal("1.7e9")},
        of | {"state": "ready", "tables": 21},
        of | {"state": "copying", "tables": 2},
        of | {"kind": "apply", "errors": 7},
        of | {"kind": "sync", "errors": 0},
        of | {"conflict": "insert_exists", "conflicts": 3},
    ]
    assert feed(COLLECTOR)(rows, 0.0) == {
        'phoenix_subscription_up{subscription="region2"}': 1,
        'phoenix_subscription_last_message_timestamp_seconds{subscription="region2"}': 1.7e9,
        'phoenix_subscription_tables{state="ready",subscription="region2"}': 21,
        'phoenix_subscription_tables{state="copying",subscription="region2"}': 2,
        'phoenix_subscription_errors_total{kind="apply",subscription="region2"}': 7,
        'phoenix_subscription_errors_total{kind="sync",subscription="region2"}': 0,
        'phoenix_subscription_conflicts_total{conflict="insert_exists",subscription="region2"}': 3,
    }


def test_a_subscription_that_never_received_anything_has_no_time(feed):
    assert feed(COLLECTOR)([BLANK | {"subscription": "region2", "up": 0}], 0.0) == {'phoenix_subscription_up{subscription="region2"}': 0}
