-- Change events: which changes write which event, in the transaction of the change, and who may write one.
SELECT plan(38);
SELECT tap.new_agent('maker', 'iota'), tap.new_agent('other', 'alpha_delta');
-- Events of this test's transaction only, without those that only the graph is told (they have tests of their own), in the order in which they were written.
CREATE TABLE tap.begin_seq AS SELECT last_value AS seq FROM phoenix.outbox_seq_seq;
CREATE VIEW tap.events AS
    SELECT o.seq, o.id, o.aggregatetype, o.aggregateid, o.type, o.payload, o.payload -> 'data' AS data
    FROM phoenix.outbox o WHERE o.seq > (SELECT b.seq FROM tap.begin_seq b) AND o.type <> 'graph.changed';
CREATE FUNCTION tap.seen(topic text, key uuid) RETURNS integer LANGUAGE sql AS $$ SELECT count(*)::integer FROM tap.events WHERE type = topic AND aggregateid = key::text $$;
CREATE FUNCTION tap.last_data(topic text, key uuid) RETURNS jsonb LANGUAGE sql AS $$ SELECT data FROM tap.events WHERE type = topic AND aggregateid = key::text ORDER BY seq DESC LIMIT 1 $$;

-- Tasks.
CREATE TABLE tap.t AS SELECT tap.new_task('tap outbox', tap.id('maker')) AS id;
SELECT is((SELECT (type, aggregatetype, aggregateid)::text FROM tap.events), format('(task.created,task,%s)', (SELECT id FROM tap.t)), 'a new task is one event, keyed by its id');
SELECT is((SELECT (payload ->> 'event', payload ->> 'version', payload ->> 'id', payload ->> 'seq')::text FROM tap.events), (SELECT (type, '1', id, seq)::text FROM tap.events),
          'the envelope repeats topic, id and seq');
SELECT matches((SELECT payload ->> 'occurred_at' FROM tap.events), '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$', 'occurred_at is UTC by RFC 3339');
SELECT is((SELECT data ->> 'created_by' FROM tap.events), tap.id('maker')::text, 'with who created it');
SELECT is((SELECT data ? 'description' FROM tap.events), false, 'and without its description');
UPDATE phoenix.tasks SET assigned_to = tap.id('maker'), status = 'in_progress' WHERE id = (SELECT id FROM tap.t);
SELECT is(tap.seen('task.completed', (SELECT id FROM tap.t)), 0, 'work on a task is no event');
UPDATE phoenix.tasks SET status = 'complete', quality_score = 0.9, value_delivered = 12.50 WHERE id = (SELECT id FROM tap.t);
SELECT is(tap.seen('task.completed', (SELECT id FROM tap.t)), 1, 'its completion is one');
SELECT is((SELECT (d ->> 'assigned_to', d ->> 'quality_score', d ->> 'value_delivered')::text FROM tap.last_data('task.completed', (SELECT id FROM tap.t)) d),
          format('(%s,0.9,12.50)', tap.id('maker')), 'with who did it, how well, and what it was worth');
UPDATE phoenix.tasks SET title = 'tap outbox renamed' WHERE id = (SELECT id FROM tap.t);
SELECT is(tap.seen('task.completed', (SELECT id FROM tap.t)), 1, 'a later change of a complete task is none');
SELECT ok((SELECT max(seq) FILTER (WHERE type = 'task.completed') > max(seq) FILTER (WHERE type = 'task.created') FROM tap.events), 'seq grows with each change of a task');
INSERT INTO phoenix.tasks (title, deadline, dopamine_reward) VALUES (repeat('x', 5000), 'infinity', 'NaN');
SELECT is((SELECT (length(data ->> 'title'), data ->> 'deadline', data ->> 'dopamine_reward')::text FROM tap.events WHERE data ->> 'title' LIKE 'xxx%'), '(500,,)',
          'what JSON or a message has no room for is cut or null');
SELECT is((SELECT count(*)::integer FROM phoenix.tasks WHERE title = 'tap many'), 0, 'nothing of that title yet');
INSERT INTO phoenix.tasks (title, status) SELECT 'tap many', CASE WHEN i <= 3 THEN 'complete' ELSE 'open' END::phoenix.task_status FROM generate_series(1, 10) i;
SELECT is((SELECT string_agg(type || ' ' || n, ', ' ORDER BY type) FROM (SELECT type, count(*) AS n FROM tap.events WHERE data ->> 'title' = 'tap many' GROUP BY type) e),
          'task.completed 3, task.created 10', 'a statement that adds many tasks is an event for each');

-- Row security and rights: agents write events by what they do, and in no other way.
SELECT is(tap.as_agent('other', format($$ INSERT INTO phoenix.tasks (title, created_by) VALUES ('tap by agent', %L) $$, tap.id('other'))), NULL, 'an agent creates a task');
SELECT is((SELECT data ->> 'created_by' FROM tap.events WHERE data ->> 'title' = 'tap by agent'), tap.id('other')::text, 'which is an event as well');
SELECT is(tap.as_agent('other', $$ INSERT INTO phoenix.outbox (id, aggregatetype, aggregateid, type, payload) VALUES (gen_random_uuid(), 'a', 'b', 'task.created', '{}') $$), 'ERROR 42501', 'an agent writes no event of its own making');
SELECT is(tap.as_agent('other', $$ SELECT phoenix.emit('task.created', 'task', 'x', '{}') $$), 'ERROR 42501', 'nor calls emit');
SELECT is(tap.as_agent('other', 'SELECT count(*) FROM phoenix.outbox'), 'ERROR 42501', 'nor reads the outbox');
SELECT is((SELECT string_agg(who, ', ') FROM unnest(ARRAY['samurai_agent', 'monitor', 'public_api']) who, unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) p
           WHERE has_table_privilege(who, 'phoenix.outbox', p)), NULL, 'nobody but the owner changes the outbox');
SELECT throws_ok($$ SELECT phoenix.emit('task.created', 'task', 'x', jsonb_build_object('t', (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 20000) i))) $$, '54000', NULL, 'an event too large for Kafka is refused where it is written');
SELECT throws_ok($$ SELECT phoenix.emit('nonsense', 'task', 'x', '{}') $$, '23514', NULL, 'and so is one for a topic that is not there');
SELECT throws_ok($$ SELECT phoenix.emit(NULL, 'task', 'x', '{}') $$, '23514', NULL, 'or for none');
SELECT throws_ok($$ SELECT phoenix.emit('task.created', 'task', '', '{}') $$, '23514', NULL, 'or with an empty key');

-- Personas.
CREATE TABLE tap.p AS SELECT tap.new_persona('tap plain') AS id;
SELECT is(tap.seen('persona.enriched', (SELECT id FROM tap.p)), 0, 'a persona that nothing is known of is no event');
UPDATE phoenix.personas SET trust_score = 0.7, linkedin_url = 'https://example.com/in/tap' WHERE id = (SELECT id FROM tap.p);
SELECT is(tap.seen('persona.enriched', (SELECT id FROM tap.p)), 0, 'nor is a change of its trust');
UPDATE phoenix.personas SET employee_count = 12, technologies_used = ARRAY['SAP'], big_five = NULL WHERE id = (SELECT id FROM tap.p);
SELECT is((SELECT data -> 'changed' FROM tap.events WHERE type = 'persona.enriched'), '["employee_count", "technologies_used"]'::jsonb, 'what is learnt of it is one, with the names of what changed');
UPDATE phoenix.personas SET employee_count = 12 WHERE id = (SELECT id FROM tap.p);
SELECT is(tap.seen('persona.enriched', (SELECT id FROM tap.p)), 1, 'the same value again is none');
SELECT is((SELECT string_agg(k, ', ') FROM jsonb_object_keys(tap.last_data('persona.enriched', (SELECT id FROM tap.p))) k WHERE k ~ 'name|mail|url|mbti|sdi|five|style|patterns|pain'), NULL, 'nothing personal is in it');
INSERT INTO phoenix.personas (name, company_revenue) VALUES ('tap rich', 5);
SELECT is((SELECT count(*)::integer FROM tap.events WHERE data -> 'changed' = '["company_revenue"]'), 1, 'a persona that comes in with figures is one');

-- Hormones.
CREATE TABLE tap.before_cascade AS SELECT max(seq) AS seq FROM phoenix.outbox;
SELECT is(phoenix.cascade_hormone('dopamine', 0.25, 'alpha_delta'), (SELECT count(*)::integer FROM phoenix.agents WHERE team = 'alpha_delta' AND decommissioned_at IS NULL), 'a cascade changes every agent of a team');
SELECT is((SELECT (d -> 'levels' ->> 'dopamine', d ->> 'hormone', d ->> 'intensity')::text FROM tap.last_data('hormone.cascade', tap.id('other')) d), '(1.25,dopamine,0.25)', 'and is an event for each, with its levels afterwards');
SELECT is((SELECT count(DISTINCT data ->> 'cascade_id')::integer FROM tap.events WHERE type = 'hormone.cascade' AND seq > (SELECT b.seq FROM tap.before_cascade b)), 1, 'of one cascade');
SELECT is(tap.seen('hormone.cascade', tap.id('maker')), 0, 'other teams have none');
SELECT is((SELECT phoenix.cascade_hormone('dopamine', 2, 'alpha_delta') + phoenix.cascade_hormone('dopamine', 2, 'alpha_delta')),
          (SELECT count(*)::integer FROM phoenix.agents WHERE team = 'alpha_delta' AND decommissioned_at IS NULL), 'a level stays in its bounds, and what does not change is no event');
UPDATE phoenix.agents SET last_heartbeat = now(), trust_coefficient = 0.1 WHERE id = tap.id('maker');
SELECT is(tap.seen('hormone.cascade', tap.id('maker')), 0, 'a heartbeat is no event');
SELECT is(tap.run_as('samurai_agent', $$ SELECT phoenix.cascade_hormone('dopamine', 0.1) $$), 'ERROR 42501', 'nobody cascades without proof of who it is');
SELECT throws_ok($$ SELECT phoenix.cascade_hormone('serotonin', 0.1) $$, '22023', NULL, 'an unknown hormone is refused');

-- What is old goes.
CREATE TABLE tap.young AS SELECT count(*) AS n FROM phoenix.outbox;
INSERT INTO phoenix.outbox (id, aggregatetype, aggregateid, type, payload, created_at) SELECT gen_random_uuid(), 'tap', 'old', 'graph.changed', '{}', now() - INTERVAL '400 days' FROM generate_series(1, 5);
SELECT is(phoenix.purge_outbox('399 days'), 5::bigint, 'the purge takes what is older than it is told to keep');
SELECT * FROM finish();
