import math

from phoenix_exporter.collectors.tasks import COLLECTOR

BLANK = dict.fromkeys(("created", "completed", "failed", "completion_rate", "status", "tasks"))


def test_counters_stand_under_the_names_of_the_convention_and_of_the_spec(feed):
    rows = [
        BLANK | {"created": 40, "completed": 10, "failed": 3, "completion_rate": 0.25},
        BLANK | {"status": "open", "tasks": 27},
        BLANK | {"status": "review", "tasks": 0},
    ]
    assert feed(COLLECTOR)(rows, 0.0) == {
        "phoenix_tasks_created_total": 40,
        "phoenix_tasks_created": 40,
        "phoenix_tasks_completed_total": 10,
        "phoenix_tasks_completed": 10,
        "phoenix_tasks_failed_total": 3,
        "phoenix_tasks_completion_rate": 0.25,
        'phoenix_tasks_by_status{status="open"}': 27,
        'phoenix_tasks_by_status{status="review"}': 0,
    }


def test_board_that_never_had_a_task_shows_zeros_and_no_rate(feed):
    rows = [BLANK | {"created": 0, "completed": 0, "failed": 0, "completion_rate": math.nan}]
    samples = feed(COLLECTOR)(rows, 0.0)
    assert samples["phoenix_tasks_created"] == samples["phoenix_tasks_completed"] == 0
    assert math.isnan(samples["phoenix_tasks_completion_rate"])
