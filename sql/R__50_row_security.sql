-- Who sees which rows of tasks, votes and comments (docs/decisions/0102-agent-identity.md).
-- One DO block: other sessions see all policies before or all after it, and a policy that somebody added by hand is gone afterwards.
--
-- * An agent sees and changes only what it created or is assigned to. The spec casts current_setting('phoenix.agent_id')::uuid, which fails
--   when unset or malformed and believes whatever an agent sets; current_agent_id() checks the token and is null, never an error.
-- * phoenix_owner is held to the same (FORCE), so that a function or view of the owner shows an agent no more than its own rows. Only a
--   session that logged in as an administrator has the whole table: what counts is session_user, which SET ROLE and SECURITY DEFINER leave alone.
-- * phoenix_board sees everything, on purpose; monitor reads everything.
DO $$
DECLARE
    relation   text;
    old_policy text;
    me         CONSTANT text := '(SELECT phoenix.current_agent_id())';
    visible    CONSTANT text := format('(created_by = %1$s OR assigned_to = %1$s)', me);
    of_visible CONSTANT text := 'EXISTS (SELECT FROM phoenix.tasks t WHERE t.id = task_id)';
BEGIN
    FOREACH relation IN ARRAY ARRAY['tasks', 'task_votes', 'task_comments', 'task_comment_votes'] LOOP
        EXECUTE format('ALTER TABLE phoenix.%I ENABLE ROW LEVEL SECURITY', relation);
        EXECUTE format('ALTER TABLE phoenix.%I FORCE ROW LEVEL SECURITY', relation);
        FOR old_policy IN SELECT polname FROM pg_policy WHERE polrelid = format('phoenix.%I', relation)::regclass LOOP
            EXECUTE format('DROP POLICY %I ON phoenix.%I', old_policy, relation);
        END LOOP;
        EXECUTE format('CREATE POLICY administrator_access ON phoenix.%I TO phoenix_owner USING ((SELECT pg_has_role(session_user, ''phoenix_owner'', ''MEMBER'')))', relation);
        EXECUTE format('CREATE POLICY board_access ON phoenix.%I TO phoenix_board USING (true)', relation);
        EXECUTE format('CREATE POLICY monitor_access ON phoenix.%I FOR SELECT TO monitor USING (true)', relation);
    END LOOP;

    -- INSERT: only in its own name. UPDATE: may hand a task of its own creation to others, may not give away what it is merely assigned to.
    EXECUTE format('CREATE POLICY agent_task_access ON phoenix.tasks FOR SELECT TO samurai_agent, phoenix_owner USING (%s)', visible);
    EXECUTE format('CREATE POLICY agent_task_insert ON phoenix.tasks FOR INSERT TO samurai_agent, phoenix_owner WITH CHECK (created_by = %s)', me);
    EXECUTE format('CREATE POLICY agent_task_update ON phoenix.tasks FOR UPDATE TO samurai_agent, phoenix_owner USING (%1$s) WITH CHECK (%1$s)', visible);

    EXECUTE format('CREATE POLICY agent_vote_read ON phoenix.task_votes FOR SELECT TO samurai_agent, phoenix_owner USING (agent_id = %s OR %s)', me, of_visible);
    EXECUTE format('CREATE POLICY agent_vote_insert ON phoenix.task_votes FOR INSERT TO samurai_agent, phoenix_owner WITH CHECK (agent_id = %s)', me);
    EXECUTE format('CREATE POLICY agent_vote_update ON phoenix.task_votes FOR UPDATE TO samurai_agent, phoenix_owner USING (agent_id = %1$s) WITH CHECK (agent_id = %1$s)', me);
    EXECUTE format('CREATE POLICY agent_vote_delete ON phoenix.task_votes FOR DELETE TO samurai_agent, phoenix_owner USING (agent_id = %s)', me);

    EXECUTE format('CREATE POLICY agent_comment_read ON phoenix.task_comments FOR SELECT TO samurai_agent, phoenix_owner USING (agent_id = %s OR %s)', me, of_visible);
    EXECUTE format('CREATE POLICY agent_comment_insert ON phoenix.task_comments FOR INSERT TO samurai_agent, phoenix_owner WITH CHECK (agent_id = %s AND %s)', me, of_visible);
    EXECUTE format('CREATE POLICY agent_comment_update ON phoenix.task_comments FOR UPDATE TO samurai_agent, phoenix_owner USING (agent_id = %1$s) WITH CHECK (agent_id = %1$s AND %2$s)', me, of_visible);

    EXECUTE format('CREATE POLICY agent_comment_vote_all ON phoenix.task_comment_votes TO samurai_agent, phoenix_owner USING (agent_id = %1$s)
                    WITH CHECK (agent_id = %1$s AND EXISTS (SELECT FROM phoenix.task_comments c WHERE c.id = comment_id))', me);
END
$$;
