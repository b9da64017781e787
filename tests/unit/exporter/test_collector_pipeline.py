from decimal import Decimal

from phoenix_exporter.collectors.pipeline import COLLECTOR


def test_value_is_one_number_and_stages_are_apart(feed):
    rows = [
        {"stage": "closed_lost", "opportunities": 1, "value": Decimal(500), "weighted_value": Decimal(50), "pipeline": None},
        {"stage": "proposal", "opportunities": 2, "value": Decimal("1000.50"), "weighted_value": Decimal("250.25"), "pipeline": None},
        {
            "stage": None,
            "opportunities": 3,
            "value": Decimal("1500.50"),
            "weighted_value": Decimal("300.25"),
            "pipeline": Decimal("250.25"),
        },
    ]
    samples = feed(COLLECTOR)(rows, 0.0)
    assert samples["phoenix_pipeline_value_total"] == 250.25
    assert samples['phoenix_pipeline_opportunities{stage="proposal"}'] == 2
    assert samples['phoenix_pipeline_stage_value{stage="closed_lost"}'] == 500
    assert samples['phoenix_pipeline_stage_weighted_value{stage="proposal"}'] == 250.25
    assert len(samples) == 7
