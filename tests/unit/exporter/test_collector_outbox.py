from decimal import Decimal

from phoenix_exporter.collectors.outbox import COLLECTOR

ROW = {
    "newest_seq": 12,
    "present": 1,
    "active": 1,
    "lost": 0,
    "safe": 4_000_000,
    "lag": Decimal(512),
    "undelivered": 3,
    "oldest": Decimal("0.5"),
}


def test_a_connector_that_reads(feed):
    assert feed(COLLECTOR)([ROW], 0.0) == {
        "phoenix_outbox_newest_seq": 12,
        "phoenix_outbox_slot_present": 1,
        "phoenix_outbox_slot_active": 1,
        "phoenix_outbox_slot_lost": 0,
        "phoenix_outbox_slot_safe_bytes": 4_000_000,
        "phoenix_outbox_slot_lag_bytes": 512,
        "phoenix_outbox_undelivered": 3,
        "phoenix_outbox_oldest_undelivered_seconds": 0.5,
    }


def test_without_a_slot_nothing_is_said_of_what_is_undelivered(feed):
    nothing = dict.fromkeys(("lost", "safe", "lag", "undelivered", "oldest"))
    assert feed(COLLECTOR)([ROW | nothing | {"present": 0, "active": 0}], 0.0) == {
        "phoenix_outbox_newest_seq": 12,
        "phoenix_outbox_slot_present": 0,
        "phoenix_outbox_slot_active": 0,
    }
