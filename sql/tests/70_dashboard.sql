-- The dashboard means what its columns say.
SELECT plan(10);
SELECT tap.new_agent('busy'), tap.new_agent('idle'), tap.new_agent('gone');
UPDATE phoenix.agents SET decommissioned_at = now() WHERE id = tap.id('gone');
UPDATE phoenix.agents SET last_heartbeat = now() - INTERVAL '6 minutes' WHERE id = tap.id('idle');
-- More than ten of one agent, one of yesterday's yesterday.
INSERT INTO phoenix.tasks (title, assigned_to, status) SELECT 'tap ' || n, tap.id('busy'), 'complete' FROM generate_series(1, 15) n;
INSERT INTO phoenix.tasks (title, assigned_to, status, completed_at) VALUES ('tap old', tap.id('busy'), 'complete', now() - INTERVAL '25 hours');
INSERT INTO phoenix.opportunities (name, value, probability, stage) VALUES ('tap', 1000, 0.5, 'proposal'), ('tap', 300, 0.5, 'closed_won'), ('tap', 7000, 0.5, 'closed_lost');
INSERT INTO phoenix.consciousness_timeline ("time", global_consciousness, global_trust) VALUES (now() + INTERVAL '1 year', 123, 0.9);
REFRESH MATERIALIZED VIEW phoenix.federation_dashboard;

SELECT is((SELECT count(*)::integer FROM phoenix.federation_dashboard), 1, 'one row');
SELECT is((SELECT total_agents FROM phoenix.federation_dashboard), (SELECT count(*) FROM phoenix.agents WHERE decommissioned_at IS NULL), 'total agents');
SELECT is((SELECT round(avg_trust::numeric, 9) FROM phoenix.federation_dashboard),
          (SELECT round((sum(trust_coefficient) / count(*))::numeric, 9) FROM phoenix.agents WHERE decommissioned_at IS NULL), 'average trust, each agent once');
SELECT is((SELECT tasks_24h FROM phoenix.federation_dashboard),
          (SELECT count(*) FROM phoenix.tasks WHERE status = 'complete' AND completed_at > now() - INTERVAL '24 hours'), 'every task of the last 24 hours, not ten of each agent');
SELECT is((SELECT pipeline_value FROM phoenix.federation_dashboard),
          (SELECT sum(CASE stage WHEN 'closed_won' THEN value WHEN 'closed_lost' THEN 0 ELSE value * probability END) FROM phoenix.opportunities), 'each opportunity once, lost ones not');
SELECT is((SELECT current_consciousness FROM phoenix.federation_dashboard), 123::double precision, 'the newest consciousness');
SELECT is((SELECT count(*)::integer FROM pg_index WHERE indrelid = 'phoenix.federation_dashboard'::regclass AND indisunique AND indpred IS NULL AND indexprs IS NULL), 1,
          'a unique index, without which it could not be refreshed concurrently');

SELECT set_eq('SELECT personas, agents_registered, tasks_created >= 16, pipeline_value, consciousness FROM phoenix.metrics_overview',
              $$ SELECT (SELECT count(*) FROM phoenix.personas) AS p, (SELECT count(*) FROM phoenix.agents WHERE decommissioned_at IS NULL) AS a, true,
                        (SELECT sum(weighted_value) FROM phoenix.opportunities WHERE stage <> 'closed_lost'), 123::double precision $$, 'the exporter''s overview agrees with the tables');
SELECT is((SELECT active FROM phoenix.metrics_agents), (SELECT count(*) FROM phoenix.agents WHERE decommissioned_at IS NULL AND last_heartbeat > now() - INTERVAL '5 minutes'),
          'active agents were heard of within five minutes');
SELECT set_eq('SELECT stage, opportunities, value FROM phoenix.metrics_pipeline',
              'SELECT s::text, count(o.id), coalesce(sum(o.value), 0) FROM unnest(enum_range(NULL::phoenix.opportunity_stage)) s LEFT JOIN phoenix.opportunities o ON o.stage = s GROUP BY s',
              'the pipeline by stage, empty ones included');
SELECT * FROM finish();
