-- Hot score, states, counters, dependencies.
SELECT plan(27);
CREATE TABLE tap.before AS SELECT * FROM phoenix.metrics_task_counters;
CREATE TABLE tap.status_before AS SELECT * FROM phoenix.metrics_task_status;
SELECT tap.new_agent('worker'), tap.new_agent('other');

-- Hot score.
SELECT volatility_is('phoenix', 'hot_score', ARRAY['integer', 'integer', 'timestamp with time zone'], 'immutable', 'the hot score needs no clock');
SELECT is(phoenix.hot_score(5, 5, '2025-11-20 12:00+00'), phoenix.hot_score(0, 0, '2025-11-20 12:00+00'), 'equal votes cancel out');
SELECT cmp_ok(phoenix.hot_score(0, 0, '2025-11-20 13:00+00'), '>', phoenix.hot_score(0, 0, '2025-11-20 12:00+00'), 'of equal votes the newer task is hotter');
SELECT is(round((phoenix.hot_score(10, 0, '2025-11-20 00:00+00') - phoenix.hot_score(0, 0, '2025-11-20 12:30+00'))::numeric, 9), 0::numeric, 'ten votes are worth 12.5 hours');
SELECT cmp_ok(phoenix.hot_score(0, 9, '2025-11-20 12:00+00'), '<', phoenix.hot_score(0, 0, '2025-11-20 12:00+00'), 'downvotes sink a task');
-- The order of a score that decays with the clock, asked at two moments, is the stored order.
SELECT is((SELECT count(*)::integer FROM
             (SELECT row_number() OVER (ORDER BY phoenix.hot_score(u, d, c)) AS stored,
                     row_number() OVER (ORDER BY sign(u - d) * log(greatest(abs(u - d), 1)) - extract(epoch FROM at - c) / 45000) AS decayed
              FROM (SELECT (random() * 50)::integer AS u, (random() * 50)::integer AS d, timestamptz '2025-11-01' + random() * INTERVAL '30 days' AS c FROM generate_series(1, 500)) v,
                   (VALUES (timestamptz '2025-12-01'), ('2026-06-01')) AS m (at) WHERE at = '2026-06-01') o
           WHERE stored <> decayed), 0, 'the stored score gives the order of a decaying one');

-- States keep their times.
SELECT tap.new_task('tap one', tap.id('worker'), tap.id('worker'));
UPDATE phoenix.tasks SET status = 'in_progress' WHERE title = 'tap one';
SELECT ok((SELECT claimed_at IS NOT NULL AND started_at IS NOT NULL AND completed_at IS NULL FROM phoenix.tasks WHERE title = 'tap one'), 'starting a task stamps it');
UPDATE phoenix.tasks SET status = 'complete' WHERE title = 'tap one';
SELECT is((SELECT completed_at FROM phoenix.tasks WHERE title = 'tap one'), now(), 'completing a task stamps it');
SELECT is((SELECT tasks_completed FROM phoenix.agents WHERE id = tap.id('worker')), 1, 'and counts for the agent');
UPDATE phoenix.tasks SET status = 'review' WHERE title = 'tap one';
SELECT is((SELECT completed_at FROM phoenix.tasks WHERE title = 'tap one'), NULL, 'a task that is not complete has no completion time');

-- Counters.
SELECT tap.new_task('tap bulk', tap.id('worker'), NULL, s) FROM unnest(ARRAY['open', 'open', 'complete', 'failed']::phoenix.task_status[]) AS s;
SELECT is((SELECT n.created - b.created FROM phoenix.metrics_task_counters n, tap.before b), 5::bigint, 'five tasks were created');
SELECT is((SELECT n.completed - b.completed FROM phoenix.metrics_task_counters n, tap.before b), 2::bigint, 'two were completed');
SELECT is((SELECT n.failed - b.failed FROM phoenix.metrics_task_counters n, tap.before b), 1::bigint, 'one failed');
SELECT set_eq('SELECT status, tasks FROM phoenix.metrics_task_status',
              'SELECT s::text, count(t.id) FROM unnest(enum_range(NULL::phoenix.task_status)) s LEFT JOIN phoenix.tasks t ON t.status = s GROUP BY s',
              'the status figures are those of a count over the table');
SELECT lives_ok('SELECT phoenix.fold_task_ledger()', 'the ledger folds');
SELECT is((SELECT count(*)::integer FROM phoenix.task_ledger), 1, 'into one row');
SELECT is((SELECT n.created - b.created FROM phoenix.metrics_task_counters n, tap.before b), 5::bigint, 'and tells the same');
DELETE FROM phoenix.tasks WHERE title = 'tap bulk';
SELECT is((SELECT ROW(n.created - b.created, n.completed - b.completed, n.failed - b.failed)::text FROM phoenix.metrics_task_counters n, tap.before b), '(5,2,1)',
          'deleting tasks lowers no counter');
SELECT set_eq('SELECT status, tasks FROM phoenix.metrics_task_status',
              'SELECT s::text, count(t.id) FROM unnest(enum_range(NULL::phoenix.task_status)) s LEFT JOIN phoenix.tasks t ON t.status = s GROUP BY s',
              'but the status figures follow');
SELECT is((SELECT sum(tasks) FROM phoenix.metrics_task_status), (SELECT count(*)::numeric FROM phoenix.tasks), 'their sum is the number of tasks');

-- Dependencies.
SELECT tap.new_task('tap a'), tap.new_task('tap b'), tap.new_task('tap c');
CREATE TABLE tap.dep AS SELECT title, id FROM phoenix.tasks WHERE title IN ('tap a', 'tap b', 'tap c');
INSERT INTO phoenix.task_dependencies SELECT a.id, b.id FROM tap.dep a, tap.dep b WHERE (a.title, b.title) IN (('tap a', 'tap b'), ('tap b', 'tap c'));
SELECT throws_ok($$ INSERT INTO phoenix.task_dependencies SELECT c.id, a.id FROM tap.dep c, tap.dep a WHERE c.title = 'tap c' AND a.title = 'tap a' $$, '23000', NULL,
                 'a circle of three tasks is refused');
SELECT throws_ok($$ INSERT INTO phoenix.task_dependencies SELECT id, id FROM tap.dep WHERE title = 'tap a' $$, '23514', NULL, 'a task cannot wait for itself');

-- Votes.
INSERT INTO phoenix.task_votes (task_id, agent_id, vote) SELECT d.id, a.id, 1 FROM tap.dep d, tap.cast_of_agents a WHERE d.title = 'tap a';
SELECT is((SELECT ROW(upvotes, downvotes)::text FROM phoenix.tasks WHERE title = 'tap a'), '(2,0)', 'two votes are counted');
INSERT INTO phoenix.task_votes (task_id, agent_id, vote) SELECT d.id, tap.id('other'), -1 FROM tap.dep d WHERE d.title IN ('tap a', 'tap b')
    ON CONFLICT (task_id, agent_id) DO UPDATE SET vote = excluded.vote;
SELECT is((SELECT string_agg(upvotes || ':' || downvotes, ' ' ORDER BY title) FROM phoenix.tasks WHERE title IN ('tap a', 'tap b')), '1:1 0:1',
          'an upsert counts its inserted and its changed row');
DELETE FROM phoenix.task_votes WHERE agent_id = tap.id('worker');
SELECT is((SELECT ROW(upvotes, downvotes)::text FROM phoenix.tasks WHERE title = 'tap a'), '(0,1)', 'a vote taken back is not counted');
SELECT throws_ok($$ INSERT INTO phoenix.task_votes (task_id, agent_id, vote) SELECT id, tap.id('worker'), 2 FROM tap.dep $$, '23514', NULL, 'a double vote is refused');

-- Comments stay in their own discussion.
INSERT INTO phoenix.task_comments (task_id, agent_id, content) SELECT id, tap.id('worker'), 'tap first' FROM tap.dep WHERE title = 'tap a';
SELECT throws_ok($$ INSERT INTO phoenix.task_comments (task_id, agent_id, content, parent_comment_id)
                    SELECT d.id, tap.id('worker'), 'tap answer', c.id FROM tap.dep d, phoenix.task_comments c WHERE d.title = 'tap b' AND c.content = 'tap first' $$,
                 '23503', NULL, 'an answer to a comment of another task is refused');
SELECT * FROM finish();
