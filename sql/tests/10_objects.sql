-- Everything that the spec names is there, with the relations that replace its arrays.
SELECT plan(19);

SELECT tables_are_there FROM (
    SELECT is(array_agg(name ORDER BY name) FILTER (WHERE to_regclass('phoenix.' || name) IS NULL), NULL, 'every table and view of the spec exists') AS tables_are_there
    FROM unnest(ARRAY['personas', 'agents', 'agent_interactions', 'food_companies', 'food_products', 'tasks', 'task_votes', 'task_comments',
                      'consciousness_timeline', 'consciousness_hourly', 'opportunities', 'revenue_forecast', 'federation_dashboard', 'schema_version']) AS name) t;
SELECT enum_has_labels('phoenix', 'team', ARRAY['alpha_delta', 'epsilon_zeta', 'iota']);
SELECT enum_has_labels('phoenix', 'task_status', ARRAY['open', 'claimed', 'in_progress', 'review', 'complete', 'failed']);
SELECT enum_has_labels('phoenix', 'opportunity_stage', ARRAY['prospecting', 'qualification', 'proposal', 'negotiation', 'closed_won', 'closed_lost']);

SELECT is((SELECT count(*)::integer FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
           WHERE c.relnamespace = 'phoenix'::regnamespace AND c.relkind IN ('r', 'p') AND a.atttypid = 'uuid[]'::regtype AND NOT a.attisdropped), 0,
          'no table keeps references in an array');

SELECT fk_ok('phoenix', 'opportunities', 'contact_persona_id', 'phoenix', 'persona_registry', 'id');
SELECT fk_ok('phoenix', 'opportunities', 'company_id', 'phoenix', 'food_companies', 'id');
SELECT fk_ok('phoenix', 'opportunities', 'owner_agent', 'phoenix', 'agents', 'id');
SELECT fk_ok('phoenix', 'agents', 'supervisor_agent', 'phoenix', 'agents', 'id');
SELECT fk_ok('phoenix', 'agents', 'current_task', 'phoenix', 'tasks', 'id');
SELECT fk_ok('phoenix', 'agent_pairs', 'agent_a', 'phoenix', 'agents', 'id');
SELECT fk_ok('phoenix', 'company_supplies', 'supplier_id', 'phoenix', 'food_companies', 'id');
SELECT fk_ok('phoenix', 'company_decision_makers', 'persona_id', 'phoenix', 'persona_registry', 'id');
SELECT fk_ok('phoenix', 'opportunity_support_agents', 'agent_id', 'phoenix', 'agents', 'id');
SELECT fk_ok('phoenix', 'task_dependencies', 'depends_on', 'phoenix', 'tasks', 'id');

SELECT matches(pg_get_indexdef('phoenix.idx_tasks_hot'::regclass), 'hot_score DESC\) INCLUDE \(title, assigned_to, dopamine_reward\) WHERE .*open.*claimed',
               'idx_tasks_hot covers the board and holds open and claimed tasks only');
SELECT matches(pg_get_indexdef('phoenix.idx_active_agents'::regclass), '\(last_heartbeat\) WHERE \(decommissioned_at IS NULL\)', 'idx_active_agents holds active agents only');
SELECT matches(pg_get_indexdef('phoenix.idx_timeline_time'::regclass), 'USING brin', 'idx_timeline_time is a BRIN index');

-- A definer function without a pinned search_path runs what its caller puts in front.
SELECT is((SELECT string_agg(oid::regprocedure::text, ', ') FROM pg_proc
           WHERE pronamespace = 'phoenix'::regnamespace AND prosecdef AND NOT coalesce(proconfig::text ~ 'search_path=pg_catalog, pg_temp', false)), NULL,
          'every SECURITY DEFINER function pins its search_path');
SELECT * FROM finish();
