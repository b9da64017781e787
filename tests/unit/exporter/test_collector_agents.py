from phoenix_exporter.collectors.agents import COLLECTOR


def test_totals_have_no_labels_and_teams_have_one(feed):
    rows = [
        {"team": "alpha_delta", "registered_in_team": 3, "active_in_team": 2, "registered": None, "active": None},
        {"team": "iota", "registered_in_team": 1, "active_in_team": 0, "registered": None, "active": None},
        {"team": None, "registered_in_team": 4, "active_in_team": 2, "registered": 4, "active": 2},
    ]
    assert feed(COLLECTOR)(rows, 0.0) == {
        "phoenix_agents_active": 2,
        "phoenix_agents_registered": 4,
        'phoenix_team_agents_active{team="alpha_delta"}': 2,
        'phoenix_team_agents_active{team="iota"}': 0,
        'phoenix_team_agents_registered{team="alpha_delta"}': 3,
        'phoenix_team_agents_registered{team="iota"}': 1,
    }
