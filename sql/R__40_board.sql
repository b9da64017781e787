-- What agents do beyond their rights on tables, each after checking who calls. Owned by phoenix_board, which row security lets see every
-- task: that is deliberate here and nowhere else. Triggers that count votes are among them: a vote changes a task that is not the voter's.

GRANT SELECT, UPDATE ON phoenix.tasks TO phoenix_board;
GRANT SELECT, UPDATE (last_heartbeat, current_task, idle_since) ON phoenix.agents TO phoenix_board;
GRANT SELECT, INSERT, UPDATE, DELETE ON phoenix.task_votes, phoenix.task_comments, phoenix.task_comment_votes TO phoenix_board;
GRANT SELECT ON phoenix.task_dependencies TO phoenix_board;
GRANT EXECUTE ON FUNCTION phoenix.current_agent_id() TO phoenix_board;
GRANT EXECUTE ON FUNCTION phoenix.hot_score(integer, integer, timestamptz) TO phoenix_board;

SET ROLE phoenix_board;

-- ---------------------------------------------------------------------------------------------------------------- counting votes
-- Once per statement over its transition tables; an upsert fires both the insert and the update trigger, each with its own rows. Adding a
-- difference under the row lock of the UPDATE is right under concurrency. The ids are locked in order, so that two statements that vote on
-- several tasks do not deadlock; only an upsert over several tasks still can, because its updates and its inserts are counted one after
-- the other. Agents vote with vote_task(), one task at a time.
CREATE OR REPLACE FUNCTION phoenix.count_task_votes() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        UPDATE phoenix.tasks SET upvotes = 0, downvotes = 0 WHERE upvotes <> 0 OR downvotes <> 0;
        RETURN NULL;
    END IF;
    IF TG_OP = 'INSERT' THEN
        PERFORM FROM phoenix.tasks WHERE id IN (SELECT task_id FROM new_rows) ORDER BY id FOR NO KEY UPDATE;
        UPDATE phoenix.tasks t SET upvotes = t.upvotes + d.up, downvotes = t.downvotes + d.down
        FROM (SELECT task_id, count(*) FILTER (WHERE vote = 1) AS up, count(*) FILTER (WHERE vote = -1) AS down FROM new_rows GROUP BY task_id) d
        WHERE t.id = d.task_id;
    ELSIF TG_OP = 'DELETE' THEN
        PERFORM FROM phoenix.tasks WHERE id IN (SELECT task_id FROM old_rows) ORDER BY id FOR NO KEY UPDATE;
        UPDATE phoenix.tasks t SET upvotes = t.upvotes - d.up, downvotes = t.downvotes - d.down
        FROM (SELECT task_id, count(*) FILTER (WHERE vote = 1) AS up, count(*) FILTER (WHERE vote = -1) AS down FROM old_rows GROUP BY task_id) d
        WHERE t.id = d.task_id;
    ELSE
        PERFORM FROM phoenix.tasks WHERE id IN (SELECT task_id FROM new_rows UNION SELECT task_id FROM old_rows) ORDER BY id FOR NO KEY UPDATE;
        UPDATE phoenix.tasks t SET upvotes = t.upvotes + d.up, downvotes = t.downvotes + d.down
        FROM (SELECT task_id, sum(up) AS up, sum(down) AS down
              FROM (SELECT task_id, (vote = 1)::integer AS up, (vote = -1)::integer AS down FROM new_rows
                    UNION ALL
                    SELECT task_id, -(vote = 1)::integer, -(vote = -1)::integer FROM old_rows) v
              GROUP BY task_id HAVING sum(up) <> 0 OR sum(down) <> 0) d
        WHERE t.id = d.task_id;
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION phoenix.count_comment_votes() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        UPDATE phoenix.task_comments SET upvotes = 0, downvotes = 0 WHERE upvotes <> 0 OR downvotes <> 0;
        RETURN NULL;
    END IF;
    IF TG_OP = 'INSERT' THEN
        PERFORM FROM phoenix.task_comments WHERE id IN (SELECT comment_id FROM new_rows) ORDER BY id FOR NO KEY UPDATE;
        UPDATE phoenix.task_comments t SET upvotes = t.upvotes + d.up, downvotes = t.downvotes + d.down
        FROM (SELECT comment_id, count(*) FILTER (WHERE vote = 1) AS up, count(*) FILTER (WHERE vote = -1) AS down FROM new_rows GROUP BY comment_id) d
        WHERE t.id = d.comment_id;
    ELSIF TG_OP = 'DELETE' THEN
        PERFORM FROM phoenix.task_comments WHERE id IN (SELECT comment_id FROM old_rows) ORDER BY id FOR NO KEY UPDATE;
        UPDATE phoenix.task_comments t SET upvotes = t.upvotes - d.up, downvotes = t.downvotes - d.down
        FROM (SELECT comment_id, count(*) FILTER (WHERE vote = 1) AS up, count(*) FILTER (WHERE vote = -1) AS down FROM old_rows GROUP BY comment_id) d
        WHERE t.id = d.comment_id;
    ELSE
        PERFORM FROM phoenix.task_comments WHERE id IN (SELECT comment_id FROM new_rows UNION SELECT comment_id FROM old_rows) ORDER BY id FOR NO KEY UPDATE;
        UPDATE phoenix.task_comments t SET upvotes = t.upvotes + d.up, downvotes = t.downvotes + d.down
        FROM (SELECT comment_id, sum(up) AS up, sum(down) AS down
              FROM (SELECT comment_id, (vote = 1)::integer AS up, (vote = -1)::integer AS down FROM new_rows
                    UNION ALL
                    SELECT comment_id, -(vote = 1)::integer, -(vote = -1)::integer FROM old_rows) v
              GROUP BY comment_id HAVING sum(up) <> 0 OR sum(down) <> 0) d
        WHERE t.id = d.comment_id;
    END IF;
    RETURN NULL;
END
$$;

-- ---------------------------------------------------------------------------------------------------------------- what agents call
CREATE OR REPLACE FUNCTION phoenix.require_agent() RETURNS uuid
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me uuid := phoenix.current_agent_id();
BEGIN
    IF me IS NULL THEN
        RAISE insufficient_privilege USING
            MESSAGE = 'no agent is acting in this transaction', HINT = 'Call phoenix.act_as(agent, token) first, in the same transaction.';
    END IF;
    RETURN me;
END
$$;

CREATE OR REPLACE FUNCTION phoenix.heartbeat() RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE phoenix.agents SET last_heartbeat = now() WHERE id = phoenix.require_agent()
$$;

-- What an agent may know of a task that nobody has taken yet. Row security shows it only its own, and a board from which nobody
-- can choose would be none.
CREATE OR REPLACE FUNCTION phoenix.open_tasks(max_rows integer DEFAULT 50)
    RETURNS TABLE (id uuid, title text, category text, priority integer, team_assignment phoenix.team, upvotes integer, downvotes integer,
                   hot_score double precision, dopamine_reward double precision, fibonacci_size integer, deadline timestamptz)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me      uuid := phoenix.require_agent();
    my_team phoenix.team := (SELECT a.team FROM phoenix.agents a WHERE a.id = me);
BEGIN
    RETURN QUERY
    SELECT t.id, t.title, t.category, t.priority, t.team_assignment, t.upvotes, t.downvotes, t.hot_score, t.dopamine_reward, t.fibonacci_size, t.deadline
    FROM phoenix.tasks t
    WHERE t.status = 'open' AND t.assigned_to IS NULL
      AND (t.team_assignment IS NULL OR t.team_assignment = my_team)
      AND NOT EXISTS (SELECT FROM phoenix.task_dependencies d JOIN phoenix.tasks n ON n.id = d.depends_on
                      WHERE d.task_id = t.id AND n.status <> 'complete')
    ORDER BY t.hot_score DESC
    LIMIT least(greatest(max_rows, 0), 500);
END
$$;
COMMENT ON FUNCTION phoenix.open_tasks IS 'The hottest tasks the calling agent could claim: unassigned, of its team or of none, with everything they depend on complete';

CREATE OR REPLACE FUNCTION phoenix.claim_task(task uuid) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me uuid := phoenix.require_agent();
BEGIN
    -- The row lock decides between two agents; the second one's condition no longer holds.
    UPDATE phoenix.tasks t SET status = 'claimed', assigned_to = me
    WHERE t.id = task AND t.status = 'open' AND (t.assigned_to IS NULL OR t.assigned_to = me)
      AND (t.team_assignment IS NULL OR t.team_assignment = (SELECT a.team FROM phoenix.agents a WHERE a.id = me))
      AND NOT EXISTS (SELECT FROM phoenix.task_dependencies d JOIN phoenix.tasks n ON n.id = d.depends_on
                      WHERE d.task_id = t.id AND n.status <> 'complete');
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- A sign of life too: a heartbeat sent before this moment and applied after it does not undo it (R__43_stream.sql).
    UPDATE phoenix.agents SET current_task = task, idle_since = NULL, last_heartbeat = greatest(last_heartbeat, clock_timestamp()) WHERE id = me;
    RETURN true;
END
$$;
COMMENT ON FUNCTION phoenix.claim_task IS 'True when the task is now the calling agent''s; false when it is taken, of another team, waiting for others, or unknown';

CREATE OR REPLACE FUNCTION phoenix.release_task(task uuid) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me       uuid := phoenix.require_agent();
    released boolean;
BEGIN
    UPDATE phoenix.tasks SET status = 'open', assigned_to = NULL
    WHERE id = task AND assigned_to = me AND status IN ('open', 'claimed', 'in_progress');
    released := FOUND;
    UPDATE phoenix.agents SET current_task = NULL, idle_since = now(), last_heartbeat = greatest(last_heartbeat, clock_timestamp())
    WHERE id = me AND current_task = task;
    RETURN released;
END
$$;
COMMENT ON FUNCTION phoenix.release_task IS 'Gives a task of the calling agent back to the board';

CREATE OR REPLACE FUNCTION phoenix.vote_task(task uuid, vote integer, reason text DEFAULT NULL) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO phoenix.task_votes AS v (task_id, agent_id, vote, reason) VALUES (task, phoenix.require_agent(), vote, reason)
    ON CONFLICT (task_id, agent_id) DO UPDATE SET vote = excluded.vote, reason = excluded.reason, "timestamp" = now()
$$;
COMMENT ON FUNCTION phoenix.vote_task IS 'The calling agent''s vote on a task, 1 or -1; a second call changes it';

CREATE OR REPLACE FUNCTION phoenix.retract_vote(task uuid) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM phoenix.task_votes WHERE task_id = task AND agent_id = phoenix.require_agent()
$$;

-- The discussion of a task is for those who see the task: its creator and its assignee.
CREATE OR REPLACE FUNCTION phoenix.require_own_task(task uuid) RETURNS uuid
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me uuid := phoenix.require_agent();
BEGIN
    IF NOT EXISTS (SELECT FROM phoenix.tasks t WHERE t.id = task AND (t.created_by = me OR t.assigned_to = me)) THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('task %s is not one that this agent created or is assigned to', task), HINT = 'phoenix.open_tasks() lists what can be claimed.';
    END IF;
    RETURN me;
END
$$;

CREATE OR REPLACE FUNCTION phoenix.comment_on_task(task uuid, content text, parent uuid DEFAULT NULL, attachments jsonb DEFAULT NULL) RETURNS uuid
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO phoenix.task_comments (task_id, agent_id, parent_comment_id, content, attachments)
    VALUES (task, phoenix.require_own_task(task), parent, content, attachments) RETURNING id
$$;

CREATE OR REPLACE FUNCTION phoenix.edit_comment(comment uuid, content text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE phoenix.task_comments c SET content = edit_comment.content WHERE c.id = comment AND c.agent_id = phoenix.require_agent();
    RETURN FOUND;
END
$$;

CREATE OR REPLACE FUNCTION phoenix.vote_comment(comment uuid, vote integer) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    me uuid := phoenix.require_own_task((SELECT c.task_id FROM phoenix.task_comments c WHERE c.id = comment));
BEGIN
    INSERT INTO phoenix.task_comment_votes (comment_id, agent_id, vote) VALUES (comment, me, vote_comment.vote)
    ON CONFLICT (comment_id, agent_id) DO UPDATE SET vote = excluded.vote, "timestamp" = now();
END
$$;

CREATE OR REPLACE FUNCTION phoenix.comments_on(task uuid) RETURNS SETOF phoenix.task_comments
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM phoenix.require_own_task(task);
    RETURN QUERY SELECT c.* FROM phoenix.task_comments c WHERE c.task_id = task ORDER BY c.created_at, c.id;
END
$$;

-- Creating a trigger takes the right to execute its function. All other rights: R__80_grants.sql.
GRANT EXECUTE ON FUNCTION phoenix.count_task_votes(), phoenix.count_comment_votes() TO phoenix_owner;

SET ROLE phoenix_owner;

DO $$
DECLARE
    counted record;
BEGIN
    FOR counted IN SELECT * FROM (VALUES ('task_votes', 'count_task_votes'), ('task_comment_votes', 'count_comment_votes')) AS v (votes, fn) LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER count_insert AFTER INSERT ON phoenix.%I
            REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION phoenix.%I()', counted.votes, counted.fn);
        EXECUTE format('CREATE OR REPLACE TRIGGER count_update AFTER UPDATE ON phoenix.%I
            REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION phoenix.%I()', counted.votes, counted.fn);
        EXECUTE format('CREATE OR REPLACE TRIGGER count_delete AFTER DELETE ON phoenix.%I
            REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION phoenix.%I()', counted.votes, counted.fn);
        EXECUTE format('CREATE OR REPLACE TRIGGER count_truncate AFTER TRUNCATE ON phoenix.%I
            FOR EACH STATEMENT EXECUTE FUNCTION phoenix.%I()', counted.votes, counted.fn);
    END LOOP;
END
$$;
