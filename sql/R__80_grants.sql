-- Who may do what: the spec's table, exactly. Everything is taken away and given anew in one block per owner, so that a grant made by hand
-- is gone afterwards and nobody is without rights in between.
--   architect      ALL PRIVILEGES      as member of phoenix_owner
--   samurai_agent  SELECT, INSERT, UPDATE on tasks; SELECT on personas; INSERT on consciousness_timeline; the functions of R__40_board.sql;
--                  cascade_hormone() of R__41_outbox.sql, once the agent has proven who it is
--   monitor        SELECT on all tables, also later ones
--   public_api     SELECT on the views public_*
--   stream         the two functions of R__43_stream.sql

SET ROLE phoenix_board;
DO $$
DECLARE
    object text;
BEGIN
    FOR object IN SELECT format('FUNCTION %s', oid::regprocedure) FROM pg_proc WHERE pronamespace = 'phoenix'::regnamespace AND proowner = current_user::regrole
                  UNION ALL
                  SELECT format('TABLE %s', oid::regclass) FROM pg_class WHERE relnamespace = 'phoenix'::regnamespace AND relowner = current_user::regrole AND relkind = 'v' LOOP
        EXECUTE format('REVOKE ALL ON %s FROM PUBLIC, architect, samurai_agent, monitor, public_api, stream', object);
    END LOOP;
    GRANT EXECUTE ON FUNCTION phoenix.heartbeat(), phoenix.open_tasks(integer), phoenix.claim_task(uuid), phoenix.release_task(uuid),
        phoenix.vote_task(uuid, integer, text), phoenix.retract_vote(uuid), phoenix.comment_on_task(uuid, text, uuid, jsonb),
        phoenix.edit_comment(uuid, text), phoenix.vote_comment(uuid, integer), phoenix.comments_on(uuid) TO samurai_agent, phoenix_owner;
    GRANT EXECUTE ON FUNCTION phoenix.apply_heartbeats(uuid[], timestamptz[], uuid[], timestamptz[]) TO stream, phoenix_owner;
    GRANT EXECUTE ON FUNCTION phoenix.count_task_votes(), phoenix.count_comment_votes() TO phoenix_owner;
    GRANT SELECT ON phoenix.public_task_board TO public_api, monitor, phoenix_owner;
    GRANT SELECT ON phoenix.graph_elements TO monitor;
END
$$;
SET ROLE phoenix_owner;

DO $$
DECLARE
    object text;
BEGIN
    -- Routines and types of extensions are not ours, and neither is what another role owns. Partitions and chunks are reached through their parents.
    FOR object IN SELECT format('FUNCTION %s', oid::regprocedure) FROM pg_proc WHERE pronamespace = 'phoenix'::regnamespace AND proowner = current_user::regrole
                  UNION ALL
                  SELECT format('TABLE %s', oid::regclass) FROM pg_class
                  WHERE relnamespace = 'phoenix'::regnamespace AND relowner = current_user::regrole AND relkind IN ('r', 'p', 'v', 'm') LOOP
        EXECUTE format('REVOKE ALL ON %s FROM PUBLIC, architect, samurai_agent, monitor, public_api, stream', object);
    END LOOP;

    -- monitor: every table and view there is, and every one to come. Not the credentials: nothing but current_agent_id() has a use for them.
    FOR object IN SELECT oid::regclass FROM pg_class
                  WHERE relnamespace = 'phoenix'::regnamespace AND relowner = current_user::regrole AND relkind IN ('r', 'p', 'v', 'm')
                    AND oid <> 'phoenix.agent_credentials'::regclass LOOP
        EXECUTE format('GRANT SELECT ON %s TO monitor', object);
    END LOOP;
    ALTER DEFAULT PRIVILEGES IN SCHEMA phoenix GRANT SELECT ON TABLES TO monitor;
    GRANT EXECUTE ON FUNCTION phoenix.applied_migrations() TO monitor;
    -- Whoever asks a view calls its functions: those of graph_elements.
    FOR object IN SELECT oid::regprocedure FROM pg_proc
                  WHERE pronamespace = 'phoenix'::regnamespace AND (proname ~ '^graph_' OR proname IN ('rfc3339', 'finite')) LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO monitor', object);
    END LOOP;
    -- The comparison of Redis with PostgreSQL asks for levels as they are told to Redis.
    GRANT EXECUTE ON FUNCTION phoenix.hormones(jsonb), phoenix.hormone_or_rest(jsonb, jsonb) TO monitor;

    -- samurai_agent. Of personas everything but the e-mail: listed, so that a column added later stays closed until somebody opens it.
    GRANT SELECT, INSERT, UPDATE ON phoenix.tasks TO samurai_agent;
    GRANT SELECT (id, fingerprint, name, company, role, industry, mbti_type, sdi_color, big_five, communication_style, decision_patterns,
                  pain_points, linkedin_url, company_revenue, employee_count, technologies_used, trust_score, last_interaction, interaction_count,
                  conversion_probability, source, created_at, updated_at, consciousness_level) ON phoenix.personas TO samurai_agent;
    IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'phoenix.personas'::regclass AND attname = 'semantic_embedding') THEN
        GRANT SELECT (semantic_embedding, behavioral_embedding) ON phoenix.personas TO samurai_agent;
    END IF;
    GRANT INSERT ON phoenix.consciousness_timeline TO samurai_agent;
    GRANT EXECUTE ON FUNCTION phoenix.act_as(uuid, text), phoenix.current_agent_id(), phoenix.hot_score(integer, integer, timestamptz) TO samurai_agent;
    GRANT EXECUTE ON FUNCTION phoenix.cascade_hormone(text, double precision, phoenix.team) TO samurai_agent;

    GRANT EXECUTE ON FUNCTION phoenix.current_agent_id(), phoenix.hot_score(integer, integer, timestamptz) TO phoenix_board;
    GRANT EXECUTE ON FUNCTION phoenix.apply_consciousness(jsonb) TO stream;

    GRANT SELECT ON phoenix.public_personas, phoenix.public_agents, phoenix.public_pipeline, phoenix.public_consciousness,
        phoenix.public_consciousness_hourly, phoenix.public_dashboard TO public_api;
END
$$;
