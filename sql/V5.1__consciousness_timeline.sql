-- Consciousness over time: rows of the federation (team is null) and rows of one team.
CREATE TABLE phoenix.consciousness_timeline (
    "time"               timestamptz NOT NULL,

    global_consciousness double precision NOT NULL,
    global_trust         double precision NOT NULL,

    team                 phoenix.team,
    team_consciousness   double precision,
    team_coherence       double precision,

    avg_dopamine         double precision,
    avg_oxytocin         double precision,
    avg_adrenaline       double precision,
    avg_cortisol         double precision,

    active_agents        integer,
    tasks_per_hour       integer,
    decisions_per_second double precision,

    entanglement_pairs   integer,
    coherence_average    interval,

    -- The spec's PRIMARY KEY (time, team) forbids the rows without a team, which are the federation's own. This keeps one row per moment
    -- and team, the missing team being one value too; it also serves ON CONFLICT (time, team).
    CONSTRAINT consciousness_timeline_time_team_key UNIQUE NULLS NOT DISTINCT ("time", team),
    CONSTRAINT consciousness_positive CHECK (global_consciousness > 0 AND global_consciousness < 'Infinity'),
    CONSTRAINT trust_range CHECK (global_trust BETWEEN 0 AND 1),
    CONSTRAINT team_figures_need_team CHECK (team IS NOT NULL OR num_nonnulls(team_consciousness, team_coherence) = 0),
    CONSTRAINT counts_not_negative CHECK (active_agents >= 0 AND tasks_per_hour >= 0 AND entanglement_pairs >= 0)
);
