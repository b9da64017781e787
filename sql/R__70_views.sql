-- Views for people and programs: what the spec kept in arrays and stored columns, read from the relations, and what public_api may see.

CREATE OR REPLACE VIEW phoenix.agent_network WITH (security_invoker = true) AS
    SELECT a.id, a.codename, a.team, a.supervisor_agent,
           ARRAY(SELECT s.id FROM phoenix.agents s WHERE s.supervisor_agent = a.id ORDER BY s.id) AS subordinate_agents,
           ARRAY(SELECT CASE WHEN p.agent_a = a.id THEN p.agent_b ELSE p.agent_a END FROM phoenix.agent_pairs p
                 WHERE a.id IN (p.agent_a, p.agent_b) ORDER BY 1) AS paired_agents
    FROM phoenix.agents a;

CREATE OR REPLACE VIEW phoenix.opportunity_board WITH (security_invoker = true) AS
    SELECT o.*, extract(day FROM now() - o.stage_entered_at)::integer AS days_in_stage,
           ARRAY(SELECT s.agent_id FROM phoenix.opportunity_support_agents s WHERE s.opportunity_id = o.id ORDER BY 1) AS support_agents
    FROM phoenix.opportunities o;

-- public_api: no names, addresses, texts or results; security_barrier, so that a function in the reader's WHERE meets only rows of the view.
CREATE OR REPLACE VIEW phoenix.public_personas WITH (security_barrier = true) AS
    SELECT id, role, industry, mbti_type, sdi_color, trust_score, created_at FROM phoenix.personas;

CREATE OR REPLACE VIEW phoenix.public_agents WITH (security_barrier = true) AS
    SELECT codename, team, role, specialization, trust_coefficient, tasks_completed, fibonacci_level,
           last_heartbeat > now() - INTERVAL '5 minutes' AS active
    FROM phoenix.agents WHERE decommissioned_at IS NULL;

CREATE OR REPLACE VIEW phoenix.public_pipeline WITH (security_barrier = true) AS
    SELECT s.stage, count(o.id) AS opportunities, coalesce(sum(o.value), 0) AS value, coalesce(sum(o.weighted_value), 0) AS weighted_value
    FROM unnest(enum_range(NULL::phoenix.opportunity_stage)) AS s (stage)
    LEFT JOIN phoenix.opportunities o ON o.stage = s.stage
    GROUP BY s.stage;

CREATE OR REPLACE VIEW phoenix.public_consciousness WITH (security_barrier = true) AS
    SELECT "time", global_consciousness, global_trust, active_agents, tasks_per_hour
    FROM phoenix.consciousness_timeline WHERE team IS NULL ORDER BY "time" DESC LIMIT 1;

CREATE OR REPLACE VIEW phoenix.public_consciousness_hourly WITH (security_barrier = true) AS
    SELECT bucket, avg_consciousness, peak_consciousness, avg_trust, dopamine_level, total_tasks FROM phoenix.consciousness_hourly;

CREATE OR REPLACE VIEW phoenix.public_dashboard WITH (security_barrier = true) AS
    SELECT total_agents, avg_trust, tasks_24h, pipeline_value, current_consciousness, refreshed_at FROM phoenix.federation_dashboard;

-- Row security asks the owner of a view; as phoenix_owner this one would be empty for everybody but administrators.
SET ROLE phoenix_board;
CREATE OR REPLACE VIEW phoenix.public_task_board WITH (security_barrier = true) AS
    SELECT id, title, category, priority, team_assignment, status, upvotes, downvotes, hot_score, dopamine_reward, fibonacci_size, created_at, deadline
    FROM phoenix.tasks;
SET ROLE phoenix_owner;
