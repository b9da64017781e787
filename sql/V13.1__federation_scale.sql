-- Storage for the scale targets: 1,000 agents beating every few seconds, 10,000 tasks a day.

-- Rows that are updated all day find room on their own page (heartbeats touch an indexed column, votes and states do not all).
ALTER TABLE phoenix.agents SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
ALTER TABLE phoenix.tasks SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
-- Emptied and refilled every minute: vacuum by count, for a share of so few rows means nothing.
ALTER TABLE phoenix.task_ledger SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
-- Planner: the agents of one team are few, a persona's industry and role go together.
CREATE STATISTICS phoenix.personas_who (dependencies, ndistinct) ON industry, role FROM phoenix.personas;
