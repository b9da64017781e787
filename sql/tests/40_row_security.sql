-- An agent sees and changes only what it created or is assigned to, whatever it claims to be.
SELECT plan(42);
SELECT tap.new_agent('ann'), tap.new_agent('bob'), tap.new_agent('cyd', 'alpha_delta');
SELECT tap.new_task('tap ann''s', tap.id('ann')), tap.new_task('tap bob''s', tap.id('bob')), tap.new_task('tap for ann', tap.id('bob'), tap.id('ann'));

SELECT is((SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'phoenix'::regnamespace AND relrowsecurity AND relforcerowsecurity),
          'task_comment_votes task_comments task_votes tasks', 'row security is on, and forced upon the owner');

-- Reading.
SELECT is(tap.as_agent('ann', $$ SELECT string_agg(title, ', ' ORDER BY title) FROM phoenix.tasks $$), 'tap ann''s, tap for ann', 'an agent sees what it created or is assigned to');
SELECT is(tap.as_agent('cyd', 'SELECT count(*) FROM phoenix.tasks'), '0', 'an agent without tasks sees none');
SELECT is(tap.run_as('samurai_agent', 'SELECT count(*) FROM phoenix.tasks'), '0', 'nobody sees nothing, without an error');
SELECT is(tap.run_as('samurai_agent', format($$ WITH claim AS MATERIALIZED (SELECT set_config('phoenix.agent_id', %L, true)) SELECT (SELECT count(*) FROM phoenix.tasks) FROM claim $$, tap.id('bob'))),
          '0', 'setting another''s id shows nothing');
SELECT is(tap.run_as('samurai_agent', 'SELECT phoenix.act_as(''' || tap.id('bob') || ''', ''' || tap.token('ann') || ''')'), 'false', 'one''s own token does not open another''s id');
SELECT is(tap.run_as('samurai_agent', 'SELECT count(*) FROM phoenix.tasks', tap.id('bob'), tap.token('ann')), '0', 'and shows nothing');
SELECT is(tap.run_as('samurai_agent', 'SELECT count(*) FROM phoenix.tasks', tap.id('bob'), ''), '0', 'an empty token shows nothing');
SELECT is(tap.run_as('samurai_agent', 'SELECT count(*) FROM phoenix.tasks', tap.id('bob'), encode(sha256(convert_to(tap.token('bob'), 'UTF8')), 'hex')), '0', 'the digest is no token');
SELECT is(tap.as_agent('ann', $$ SELECT phoenix.act_as('00000000-0000-0000-0000-000000000000', 'x') $$), 'false', 'a wrong claim is told');
SELECT is(tap.as_agent('ann', $$ WITH claim AS MATERIALIZED (SELECT set_config('phoenix.agent_id', 'not a uuid', true)) SELECT phoenix.current_agent_id() FROM claim $$), NULL,
          'a malformed id is nobody, and no error');

-- Writing.
SELECT is(tap.as_agent('ann', $$ INSERT INTO phoenix.tasks (title) VALUES ('tap new') RETURNING created_by::text $$), tap.id('ann')::text, 'a new task is its creator''s by itself');
SELECT is(tap.as_agent('ann', format($$ INSERT INTO phoenix.tasks (title, created_by) VALUES ('tap forged', %L) RETURNING 1 $$, tap.id('bob'))), 'ERROR 42501', 'no task in another''s name');
SELECT is(tap.run_as('samurai_agent', $$ INSERT INTO phoenix.tasks (title) VALUES ('tap nobody''s') RETURNING 1 $$), 'ERROR 42501', 'nobody creates nothing');
SELECT is(tap.as_agent('ann', $$ WITH u AS (UPDATE phoenix.tasks SET priority = 1 RETURNING 1) SELECT count(*) FROM u $$), '3', 'an update without condition reaches one''s own tasks only');
SELECT is((SELECT priority FROM phoenix.tasks WHERE title = 'tap bob''s'), 5, 'another''s task is as it was');
SELECT is(tap.as_agent('ann', format($$ UPDATE phoenix.tasks SET assigned_to = %L WHERE title = 'tap ann''s' RETURNING 1 $$, tap.id('bob'))), '1', 'the creator may assign its task');
SELECT is(tap.as_agent('ann', format($$ UPDATE phoenix.tasks SET assigned_to = %L WHERE title = 'tap for ann' RETURNING 1 $$, tap.id('cyd'))), 'ERROR 42501', 'the assignee may not pass it on');
SELECT is(tap.as_agent('ann', format($$ UPDATE phoenix.tasks SET created_by = %L WHERE title = 'tap for ann' RETURNING 1 $$, tap.id('ann'))), 'ERROR 42501', 'nor take it over');
SELECT is(tap.as_agent('ann', $$ UPDATE phoenix.tasks SET upvotes = 1000 WHERE title = 'tap ann''s' RETURNING 1 $$), 'ERROR 42501', 'votes are not written');
SELECT is(tap.as_agent('ann', $$ INSERT INTO phoenix.tasks (title, upvotes) VALUES ('tap liked', 9) RETURNING 1 $$), 'ERROR 42501', 'not with a new task either');
SELECT is(tap.as_agent('ann', $$ INSERT INTO phoenix.tasks (title, created_at) VALUES ('tap tomorrow', now() + INTERVAL '1 day') RETURNING created_at = now() $$), 'true', 'a task cannot be dated into the future');
SELECT is(tap.as_agent('ann', $$ INSERT INTO phoenix.tasks (title, status, claimed_at, completed_at) VALUES ('tap done', 'complete', '1990-01-01', 'infinity') RETURNING claimed_at = now() AND completed_at = now() $$),
          'true', 'nor completed in the future');
SELECT is(tap.as_agent('ann', $$ UPDATE phoenix.tasks SET status = 'complete', completed_at = 'infinity' WHERE title = 'tap ann''s' RETURNING 1 $$), 'ERROR 42501', 'the times of the states are not written');
SELECT is(tap.as_agent('ann', $$ DELETE FROM phoenix.tasks WHERE true RETURNING 1 $$), 'ERROR 42501', 'agents delete nothing');
SELECT is(tap.as_agent('ann', $$ TRUNCATE phoenix.tasks $$), 'ERROR 42501', 'nor truncate');

-- The board.
SELECT is(tap.as_agent('cyd', $$ SELECT count(*) FROM phoenix.open_tasks(500) WHERE title = 'tap bob''s' $$), '1', 'an open task can be found by all');
SELECT is(tap.as_agent('cyd', format($$ SELECT phoenix.vote_task(%L, 1) $$, (SELECT id FROM phoenix.tasks WHERE title = 'tap bob''s'))), NULL, 'and voted on');
SELECT is((SELECT upvotes FROM phoenix.tasks WHERE title = 'tap bob''s'), 1, 'which counts');
SELECT is(tap.as_agent('cyd', format($$ SELECT phoenix.claim_task(%L) $$, (SELECT id FROM phoenix.tasks WHERE title = 'tap bob''s'))), 'true', 'and claimed');
SELECT is(tap.as_agent('ann', format($$ SELECT phoenix.claim_task(%L) $$, (SELECT id FROM phoenix.tasks WHERE title = 'tap bob''s'))), 'false', 'once');
SELECT is(tap.as_agent('cyd', $$ SELECT string_agg(title, ', ') FROM phoenix.tasks $$), 'tap bob''s', 'whoever claimed it sees it');
SELECT is(tap.as_agent('cyd', format($$ SELECT phoenix.comment_on_task(%L, 'tap on it') IS NOT NULL $$, (SELECT id FROM phoenix.tasks WHERE title = 'tap bob''s'))), 'true', 'and may comment');
SELECT is(tap.as_agent('ann', format($$ SELECT phoenix.comment_on_task(%L, 'tap hello') $$, (SELECT id FROM phoenix.tasks WHERE title = 'tap bob''s'))), 'ERROR 42501', 'others may not');
SELECT is(tap.as_agent('bob', format($$ SELECT content FROM phoenix.comments_on(%L) $$, (SELECT id FROM phoenix.tasks WHERE title = 'tap bob''s'))), 'tap on it', 'the creator reads it');
SELECT is(tap.run_as('samurai_agent', $$ SELECT phoenix.heartbeat() $$), 'ERROR 42501', 'nobody has no heartbeat');

-- Votes and comments follow, should an agent ever be given rights on the tables.
GRANT SELECT, INSERT ON phoenix.task_votes, phoenix.task_comments TO samurai_agent;
SELECT is(tap.as_agent('ann', 'SELECT count(*) FROM phoenix.task_votes'), '0', 'votes on others'' tasks are not seen');
SELECT is(tap.as_agent('ann', format($$ INSERT INTO phoenix.task_votes VALUES ((SELECT id FROM phoenix.tasks LIMIT 1), %L, 1) RETURNING 1 $$, tap.id('bob'))), 'ERROR 42501', 'no vote in another''s name');
SELECT is(tap.as_agent('ann', 'SELECT count(*) FROM phoenix.task_comments'), '0', 'comments on others'' tasks are not seen');

-- The owner does not get around it by accident; administrators and the monitor read all.
CREATE FUNCTION phoenix.careless() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'SELECT count(*) FROM phoenix.tasks';
ALTER FUNCTION phoenix.careless() OWNER TO phoenix_owner;
GRANT EXECUTE ON FUNCTION phoenix.careless() TO samurai_agent;
SELECT is(tap.as_agent('ann', 'SELECT phoenix.careless() = (SELECT count(*) FROM phoenix.tasks)'), 'true', 'a function of the owner shows an agent its own tasks only');
SELECT is(tap.run_as('architect', 'SELECT count(*) FROM phoenix.tasks'), (SELECT count(*)::text FROM phoenix.tasks), 'an administrator sees every task');
SELECT is(tap.run_as('monitor', 'SELECT count(*) FROM phoenix.tasks'), (SELECT count(*)::text FROM phoenix.tasks), 'the monitor sees every task');
SELECT * FROM finish();
