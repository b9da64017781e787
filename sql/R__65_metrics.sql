-- What the exporter reads, as role monitor and with its rights (security_invoker). Every view answers also on an empty database.
CREATE OR REPLACE VIEW phoenix.metrics_personas WITH (security_invoker = true) AS
    -- Exact: the registry has one narrow row per persona. 4 ms at 100,000; it grows with the number, so ask it less often than the others.
    SELECT count(*) AS personas FROM phoenix.persona_registry;

CREATE OR REPLACE VIEW phoenix.metrics_agents_by_team WITH (security_invoker = true) AS
    SELECT t.team::text AS team,
           count(a.id) AS registered,
           count(a.id) FILTER (WHERE a.last_heartbeat > now() - INTERVAL '5 minutes') AS active
    FROM unnest(enum_range(NULL::phoenix.team)) AS t (team)
    LEFT JOIN phoenix.agents a ON a.team = t.team AND a.decommissioned_at IS NULL
    GROUP BY t.team;
COMMENT ON VIEW phoenix.metrics_agents_by_team IS 'active: not decommissioned and heard of within 5 minutes';

CREATE OR REPLACE VIEW phoenix.metrics_agents WITH (security_invoker = true) AS
    SELECT sum(registered)::bigint AS registered, sum(active)::bigint AS active FROM phoenix.metrics_agents_by_team;

CREATE OR REPLACE VIEW phoenix.metrics_task_counters WITH (security_invoker = true) AS
    SELECT coalesce(sum(created), 0)::bigint AS created, coalesce(sum(completed), 0)::bigint AS completed, coalesce(sum(failed), 0)::bigint AS failed
    FROM phoenix.task_ledger;
COMMENT ON VIEW phoenix.metrics_task_counters IS 'Since installation; deleting tasks does not lower them';

CREATE OR REPLACE VIEW phoenix.metrics_task_status WITH (security_invoker = true) AS
    SELECT s.status::text AS status, s.tasks
    FROM (SELECT coalesce(sum(now_open), 0)::bigint AS o, coalesce(sum(now_claimed), 0)::bigint AS c, coalesce(sum(now_in_progress), 0)::bigint AS p,
                 coalesce(sum(now_review), 0)::bigint AS r, coalesce(sum(now_complete), 0)::bigint AS d, coalesce(sum(now_failed), 0)::bigint AS f
          FROM phoenix.task_ledger) l,
         LATERAL (VALUES ('open'::phoenix.task_status, l.o), ('claimed', l.c), ('in_progress', l.p), ('review', l.r), ('complete', l.d), ('failed', l.f)) AS s (status, tasks);

CREATE OR REPLACE VIEW phoenix.metrics_pipeline WITH (security_invoker = true) AS
    SELECT s.stage::text AS stage, coalesce(o.opportunities, 0) AS opportunities, coalesce(o.value, 0) AS value, coalesce(o.weighted_value, 0) AS weighted_value
    FROM unnest(enum_range(NULL::phoenix.opportunity_stage)) AS s (stage)
    LEFT JOIN (SELECT stage, count(*) AS opportunities, sum(value) AS value, sum(weighted_value) AS weighted_value
               FROM phoenix.opportunities GROUP BY stage) o USING (stage);

CREATE OR REPLACE VIEW phoenix.metrics_consciousness WITH (security_invoker = true) AS
    -- Every row carries the global figures; at the same moment the federation's own row wins.
    SELECT "time", global_consciousness, global_trust FROM phoenix.consciousness_timeline ORDER BY "time" DESC, team NULLS FIRST LIMIT 1;

CREATE OR REPLACE VIEW phoenix.metrics_overview WITH (security_invoker = true) AS
    SELECT p.personas,
           a.registered AS agents_registered, a.active AS agents_active,
           t.created AS tasks_created, t.completed AS tasks_completed, t.failed AS tasks_failed,
           o.not_lost AS pipeline_value, o.open AS pipeline_open_value, o.won AS pipeline_won_value,
           c.global_consciousness AS consciousness, c."time" AS consciousness_time
    FROM phoenix.metrics_personas p, phoenix.metrics_agents a, phoenix.metrics_task_counters t,
         (SELECT coalesce(sum(weighted_value) FILTER (WHERE stage <> 'closed_lost'), 0) AS not_lost,
                 coalesce(sum(weighted_value) FILTER (WHERE stage NOT IN ('closed_won', 'closed_lost')), 0) AS open,
                 coalesce(sum(weighted_value) FILTER (WHERE stage = 'closed_won'), 0) AS won
          FROM phoenix.metrics_pipeline) o
         LEFT JOIN phoenix.metrics_consciousness c ON true;
COMMENT ON VIEW phoenix.metrics_overview IS 'All of the above in one row and one statement';
