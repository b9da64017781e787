-- The dashboard: one row, refreshed every minute by the job refresh-dashboard. A new definition is a migration that drops it first.
--
-- The spec joins every agent with its last ten tasks, with every opportunity and with one consciousness row, and adds up the product: the
-- pipeline is multiplied by the number of tasks, an agent without a task drops out, an eleventh task of the day is not counted. Each figure
-- is its own question here.
--
-- pipeline_value keeps the spec's "stage <> closed_lost": open opportunities at their weight plus what is won at its full value (a won one
-- has probability 1). metrics_pipeline tells the stages apart.
CREATE MATERIALIZED VIEW IF NOT EXISTS phoenix.federation_dashboard AS
SELECT 1::smallint AS dashboard,
       (SELECT count(*) FROM phoenix.agents WHERE decommissioned_at IS NULL) AS total_agents,
       (SELECT avg(trust_coefficient) FROM phoenix.agents WHERE decommissioned_at IS NULL) AS avg_trust,
       (SELECT count(*) FROM phoenix.tasks WHERE status = 'complete' AND completed_at > now() - INTERVAL '24 hours') AS tasks_24h,
       (SELECT coalesce(sum(weighted_value), 0) FROM phoenix.opportunities WHERE stage <> 'closed_lost') AS pipeline_value,
       (SELECT global_consciousness FROM phoenix.consciousness_timeline ORDER BY "time" DESC, team NULLS FIRST LIMIT 1) AS current_consciousness,
       now() AS refreshed_at;
-- REFRESH … CONCURRENTLY, which does not lock out readers, needs a unique index.
CREATE UNIQUE INDEX IF NOT EXISTS federation_dashboard_one_row ON phoenix.federation_dashboard (dashboard);
