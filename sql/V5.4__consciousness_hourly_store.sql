-- Closed hours for the view consciousness_hourly where TimescaleDB's licence has no continuous aggregates (R__55_consciousness_hourly.sql).
CREATE TABLE phoenix.consciousness_hourly_store (
    bucket             timestamptz PRIMARY KEY,
    avg_consciousness  double precision NOT NULL,
    peak_consciousness double precision NOT NULL,
    avg_trust          double precision NOT NULL,
    dopamine_level     double precision,
    total_tasks        bigint
);
