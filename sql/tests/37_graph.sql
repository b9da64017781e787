-- The knowledge graph: which changes write which graph.changed, that the view of all elements is what the events add up to, and who may read it.
SELECT plan(61);
-- What was told since the last question, in the order of seq, with the last two digits of an id in its place: "+Agent a1 {…}", "-TRUSTS a1>a2".
CREATE TABLE tap.asked AS SELECT phoenix.newest_event() AS seq, phoenix.newest_event() AS start;
CREATE TABLE tap.before AS SELECT phoenix.graph_key(element) AS key, element FROM phoenix.graph_elements;
CREATE FUNCTION tap.shown(data jsonb) RETURNS text LANGUAGE sql AS $$
    SELECT concat(CASE data ->> 'op' WHEN 'upsert' THEN '+' ELSE '-' END, coalesce(data ->> 'node', data ->> 'edge'), ' ',
                  coalesce(right(data ->> 'id', 2), right(data ->> 'from', 2) || '>' || right(data ->> 'to', 2)), '/' || (data ->> 'distinct'), ' ' || (data ->> 'properties'))
$$;
CREATE FUNCTION tap.told() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    answer text;
BEGIN
    SELECT string_agg(tap.shown(o.payload -> 'data'), ', ' ORDER BY o.seq) INTO answer
    FROM phoenix.outbox o WHERE o.type = 'graph.changed' AND o.seq > (SELECT a.seq FROM tap.asked a);
    UPDATE tap.asked SET seq = phoenix.newest_event();
    RETURN answer;
END
$$;
-- What there has to be by the events alone: what was there before this test, and the newest event of each key.
CREATE VIEW tap.by_events AS
    SELECT coalesce(e.element, b.element) AS element
    FROM tap.before b FULL JOIN (
        SELECT DISTINCT ON (aggregateid) aggregateid AS key, payload -> 'data' ->> 'op' AS op, (payload -> 'data') - 'op' AS element
        FROM phoenix.outbox WHERE type = 'graph.changed' AND seq > (SELECT start FROM tap.asked) ORDER BY aggregateid, seq DESC) e USING (key)
    WHERE e.op IS DISTINCT FROM 'delete';
CREATE FUNCTION tap.no(what text) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$ SELECT ('00000000-0000-4000-8000-0000000000' || what)::uuid $$;

-- Agents.
INSERT INTO phoenix.agents (id, codename, team, role, consciousness_vector) VALUES (tap.no('a1'), 'tap-1', 'iota', 'scout', '{}'), (tap.no('a2'), 'tap-2', 'iota', repeat('x', 600), '{}');
SELECT is(tap.told(), '+Agent a1 {"role": "scout", "team": "iota", "codename": "tap-1", "decommissioned": false}, +Agent a2 {"role": "' || repeat('x', 500)
          || '", "team": "iota", "codename": "tap-2", "decommissioned": false}', 'a new agent is a node; texts are cut');
SELECT is((SELECT string_agg(concat_ws(' ', aggregatetype, right(aggregateid, 2)), ', ' ORDER BY seq) FROM phoenix.outbox WHERE type = 'graph.changed' AND seq > (SELECT start FROM tap.asked)),
          'graph a1, graph a2', 'its events are keyed by its id');
UPDATE phoenix.agents SET last_heartbeat = clock_timestamp(), idle_since = now() WHERE id = tap.no('a1');
SELECT is(tap.told(), NULL, 'a heartbeat tells nothing');
UPDATE phoenix.agents SET hormone_levels = '{"dopamine": 2}', trust_coefficient = 1, fibonacci_level = 5 WHERE id = tap.no('a1');
SELECT is(tap.told(), NULL, 'nor do hormones and figures');
UPDATE phoenix.agents SET role = role, codename = codename, supervisor_agent = supervisor_agent WHERE id = tap.no('a1');
SELECT is(tap.told(), NULL, 'nor the same value again');
UPDATE phoenix.agents SET role = 'lead', decommissioned_at = now() WHERE id = tap.no('a1');
SELECT is(tap.told(), '+Agent a1 {"role": "lead", "team": "iota", "codename": "tap-1", "decommissioned": true}', 'another property is told with all of them');
UPDATE phoenix.agents SET decommissioned_at = decommissioned_at + INTERVAL '1 day' WHERE id = tap.no('a1');
SELECT is(tap.told(), NULL, 'what makes no difference to the node is not');
UPDATE phoenix.agents SET supervisor_agent = tap.no('a1') WHERE id = tap.no('a2');
SELECT is(tap.told(), '+DELEGATES_TO a1>a2 {}', 'a supervisor is an edge from it, and the node stays as it is');
INSERT INTO phoenix.agents (id, codename, team, role, consciousness_vector, supervisor_agent) VALUES (tap.no('a3'), 'tap-3', 'iota', 'scout', '{}', tap.no('a1'));
SELECT is(tap.told(), '+Agent a3 {"role": "scout", "team": "iota", "codename": "tap-3", "decommissioned": false}, +DELEGATES_TO a1>a3 {}', 'an agent comes in with its edges');
UPDATE phoenix.agents SET supervisor_agent = tap.no('a3') WHERE id = tap.no('a2');
SELECT is(tap.told(), '-DELEGATES_TO a1>a2, +DELEGATES_TO a3>a2 {}', 'another supervisor is one edge less and one more');
UPDATE phoenix.agents SET supervisor_agent = NULL WHERE id = tap.no('a2');
SELECT is(tap.told(), '-DELEGATES_TO a3>a2', 'none is one less');

-- Tasks, and who works on them.
INSERT INTO phoenix.tasks (id, title, category, priority, team_assignment, created_by) VALUES (tap.no('e1'), 'a title', 'lead_gen', 3, 'iota', tap.no('a2')), (tap.no('e2'), 'another', NULL, 5, NULL, NULL);
SELECT is(tap.told(), '+Task e1 {"team": "iota", "status": "open", "category": "lead_gen", "priority": 3}, +Task e2 {"status": "open", "priority": 5}', 'a task is a node, without its title; what is null is absent');
UPDATE phoenix.tasks SET title = 'renamed', description = 'words', output = '{}' WHERE id = tap.no('e1');
SELECT is(tap.told(), NULL, 'its words tell nothing');
INSERT INTO phoenix.task_votes (task_id, agent_id, vote) VALUES (tap.no('e1'), tap.no('a2'), 1);
SELECT is((SELECT upvotes FROM phoenix.tasks WHERE id = tap.no('e1')), 1, 'a vote counts');
SELECT is(tap.told(), NULL, 'and tells nothing');
UPDATE phoenix.tasks SET status = 'claimed', priority = 9 WHERE id = tap.no('e1');
SELECT is(tap.told(), '+Task e1 {"team": "iota", "status": "claimed", "category": "lead_gen", "priority": 9}', 'its status and priority do');
UPDATE phoenix.agents SET current_task = tap.no('e1') WHERE id = tap.no('a2');
SELECT matches(tap.told(), '^\+WORKING_ON a2>e1 \{"started": "\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"\}$', 'an agent works on a task since then');
CREATE TABLE tap.since AS SELECT current_task_since AS at FROM phoenix.agents WHERE id = tap.no('a2');
UPDATE phoenix.agents SET current_task = tap.no('e1'), last_heartbeat = clock_timestamp() WHERE id = tap.no('a2');
SELECT is(tap.told(), NULL, 'a heartbeat that names the same task tells nothing');
UPDATE phoenix.agents SET current_task = tap.no('e2') WHERE id = tap.no('a2');
SELECT matches(tap.told(), '^-WORKING_ON a2>e1, \+WORKING_ON a2>e2 \{"started": "[^"]+"\}$', 'another task is another edge');
SELECT ok((SELECT current_task_since > (SELECT at FROM tap.since) FROM phoenix.agents WHERE id = tap.no('a2')), 'that began later');
INSERT INTO phoenix.agents (id, codename, team, role, consciousness_vector, current_task, current_task_since)
    VALUES (tap.no('a4'), 'tap-4', 'alpha_delta', 'scout', '{}', tap.no('e1'), '2026-01-02 03:04:05+00');
SELECT is(tap.told(), '+Agent a4 {"role": "scout", "team": "alpha_delta", "codename": "tap-4", "decommissioned": false}, +WORKING_ON a4>e1 {"started": "2026-01-02T03:04:05.000000Z"}',
          'an agent that comes in with a time keeps it');
INSERT INTO phoenix.task_dependencies (task_id, depends_on) VALUES (tap.no('e1'), tap.no('e2'));
SELECT is(tap.told(), '+DEPENDS_ON e1>e2 {}', 'a task depends on another');
DELETE FROM phoenix.tasks WHERE id = tap.no('e2');
SELECT is((SELECT string_agg(t, ', ' ORDER BY t COLLATE "C") FROM unnest(string_to_array(tap.told(), ', ')) t), '-DEPENDS_ON e1>e2, -Task e2, -WORKING_ON a2>e2', 'a task goes with its edges');

-- By agents themselves, through the board and row security.
SELECT tap.new_agent('hand', 'iota'), tap.told();
SELECT is(tap.as_agent('hand', format($$ INSERT INTO phoenix.tasks (id, title, created_by) VALUES (tap.no('e3'), 'own', %L) $$, tap.id('hand'))), NULL, 'an agent creates a task');
SELECT is(tap.told(), '+Task e3 {"status": "open", "priority": 5}', 'which is a node');
SELECT is(tap.as_agent('hand', $$ SELECT phoenix.claim_task(tap.no('e3')) $$), 'true', 'and claims it');
SELECT matches(tap.told(), '^\+Task e3 \{"status": "claimed", "priority": 5\}, \+WORKING_ON \w\w>e3 \{"started": "[^"]+"\}$', 'which is an edge');
SELECT is(tap.as_agent('hand', $$ SELECT phoenix.release_task(tap.no('e3')) $$), 'true', 'and lets go of it');
SELECT matches(tap.told(), '\+Task e3 \{"status": "open", "priority": 5\}', 'which opens the task');
SELECT is((SELECT count(*)::integer FROM phoenix.graph_elements WHERE element ->> 'to' = tap.no('e3')::text), 0, 'and is no edge any more');

-- Personas, companies, products.
INSERT INTO phoenix.personas (id, name, role, industry, linkedin_url) VALUES (tap.no('b1'), 'Ann Example', 'buyer', 'bakery', 'https://example.com/in/tap37'), (tap.no('b2'), 'Bob Example', NULL, NULL, NULL);
SELECT is(tap.told(), '+Persona b1 {"role": "buyer", "industry": "bakery"}, +Persona b2 {}', 'a persona is a node without anything personal');
UPDATE phoenix.personas SET name = 'Ann Other', trust_score = 0.9, mbti_type = 'INTJ', pain_points = ARRAY['costs'], interaction_count = 4 WHERE id = tap.no('b1');
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'phoenix.personas'::regclass AND attname = 'semantic_embedding') THEN
        EXECUTE format('UPDATE phoenix.personas SET semantic_embedding = %L::public.vector WHERE id = tap.no(%L)', '[' || repeat('1,', 1535) || '1]', 'b1');
    END IF;
END
$$;
SELECT is(tap.told(), NULL, 'its name, scores and embeddings tell nothing');
UPDATE phoenix.personas SET role = NULL WHERE id = tap.no('b1');
SELECT is(tap.told(), '+Persona b1 {"industry": "bakery"}', 'what is not known any more is absent');
INSERT INTO phoenix.food_companies (id, name, sector) VALUES (tap.no('c1'), 'Mill', ARRAY['flour', NULL, 'bran']), (tap.no('c2'), 'Bakery', NULL);
SELECT is(tap.told(), '+Company c1 {"name": "Mill", "sector": ["flour", "bran"]}, +Company c2 {"name": "Bakery"}', 'a company is a node');
UPDATE phoenix.food_companies SET employee_count = 5, priority_score = 1 WHERE id = tap.no('c1');
SELECT is(tap.told(), NULL, 'its figures tell nothing');
INSERT INTO phoenix.food_products (id, company_id, name, category) VALUES (tap.no('d1'), tap.no('c1'), 'butter', 'fat'), (tap.no('d2'), tap.no('c1'), 'margarine', 'fat');
SELECT is(tap.told(), '+Product d1 {"name": "butter", "category": "fat"}, +Product d2 {"name": "margarine", "category": "fat"}', 'a product is a node');
UPDATE phoenix.food_products SET price_per_unit = 3 WHERE id = tap.no('d1');
SELECT is(tap.told(), NULL, 'its price tells nothing');

-- Edges that are tables.
INSERT INTO phoenix.agent_trust (agent_from, agent_to, score) VALUES (tap.no('a1'), tap.no('a2'), 0.25);
INSERT INTO phoenix.agent_pairs (agent_a, agent_b, strength) VALUES (tap.no('a1'), tap.no('a2'), 0.5);
INSERT INTO phoenix.persona_employments VALUES (tap.no('b1'), tap.no('c1'));
INSERT INTO phoenix.company_decision_makers (company_id, persona_id, authority) VALUES (tap.no('c1'), tap.no('b1'), 'budget'), (tap.no('c1'), tap.no('b1'), 'quality');
INSERT INTO phoenix.persona_influences VALUES (tap.no('b1'), tap.no('b2'));
INSERT INTO phoenix.task_company_values VALUES (tap.no('e1'), tap.no('c1'), 1250.5), (tap.no('e1'), tap.no('c2'), 'NaN');
INSERT INTO phoenix.company_supplies (supplier_id, customer_id) VALUES (tap.no('c1'), tap.no('c2'));
INSERT INTO phoenix.company_competitors VALUES (tap.no('c1'), tap.no('c2'));
INSERT INTO phoenix.product_substitutes VALUES (tap.no('d1'), tap.no('d2'));
SELECT is(tap.told(), '+TRUSTS a1>a2 {"score": 0.25}, +ENTANGLED_WITH a1>a2 {"strength": 0.5}, +WORKS_AT b1>c1 {}, '
          '+DECIDES_FOR b1>c1/budget {"authority": "budget"}, +DECIDES_FOR b1>c1/quality {"authority": "quality"}, +INFLUENCES b1>b2 {}, '
          '+GENERATES_VALUE e1>c1 {"amount": 1250.5}, +GENERATES_VALUE e1>c2 {}, +SUPPLIES c1>c2 {}, +COMPETES_WITH c1>c2 {}, +SUBSTITUTES d2>d1 {}',
          'each table of edges tells its edge, in its direction; a number that JSON does not have is absent');
SELECT is((SELECT aggregateid FROM phoenix.outbox WHERE type = 'graph.changed' AND payload -> 'data' ->> 'distinct' = 'quality' AND seq > (SELECT start FROM tap.asked)),
          concat_ws('|', tap.no('b1'), tap.no('c1'), 'DECIDES_FOR', 'quality'), 'keyed by from, to, type and what tells it apart');
UPDATE phoenix.agent_trust SET score = 0.75 WHERE agent_from = tap.no('a1');
UPDATE phoenix.agent_trust SET score = 0.75, updated_at = clock_timestamp() WHERE agent_from = tap.no('a1');
UPDATE phoenix.agent_pairs SET since = now(), strength = 1 WHERE agent_a = tap.no('a1');
UPDATE phoenix.task_company_values SET amount = 2 WHERE company_id = tap.no('c2');
UPDATE phoenix.company_decision_makers SET details = '{}' WHERE authority = 'budget';
UPDATE phoenix.company_supplies SET goods = ARRAY['flour'] WHERE supplier_id = tap.no('c1');
SELECT is(tap.told(), '+TRUSTS a1>a2 {"score": 0.75}, +ENTANGLED_WITH a1>a2 {"strength": 1}, +GENERATES_VALUE e1>c2 {"amount": 2}', 'an update tells what is another, once');
UPDATE phoenix.company_decision_makers SET authority = 'taste' WHERE authority = 'quality' AND company_id = tap.no('c1');
SELECT is(tap.told(), '-DECIDES_FOR b1>c1/quality, +DECIDES_FOR b1>c1/taste {"authority": "taste"}', 'another key is another edge');
DELETE FROM phoenix.product_substitutes WHERE product_id = tap.no('d1');
DELETE FROM phoenix.agent_trust WHERE agent_from = tap.no('a1');
SELECT is(tap.told(), '-SUBSTITUTES d2>d1, -TRUSTS a1>a2', 'a row that goes is an edge less');
SELECT set_eq('SELECT element FROM phoenix.graph_elements', 'SELECT element FROM tap.by_events', 'the view is what the events add up to');
SELECT set_eq($$ SELECT DISTINCT coalesce(element ->> 'node', element ->> 'edge') FROM phoenix.graph_elements $$,
              $$ VALUES ('Agent'), ('Persona'), ('Company'), ('Task'), ('Product'), ('DELEGATES_TO'), ('ENTANGLED_WITH'), ('WORKS_AT'), ('DECIDES_FOR'), ('INFLUENCES'),
                 ('WORKING_ON'), ('GENERATES_VALUE'), ('SUPPLIES'), ('COMPETES_WITH') $$, 'with every kind that has a row now');
SELECT is((SELECT count(*) FROM phoenix.graph_elements), (SELECT count(DISTINCT phoenix.graph_key(element)) FROM phoenix.graph_elements), 'and no key twice');

-- What takes others with it.
DELETE FROM phoenix.food_companies WHERE id = tap.no('c2');
SELECT is((SELECT string_agg(t, ', ' ORDER BY t COLLATE "C") FROM unnest(string_to_array(tap.told(), ', ')) t),
          '-COMPETES_WITH c1>c2, -Company c2, -GENERATES_VALUE e1>c2, -SUPPLIES c1>c2', 'a company goes with its edges');
DELETE FROM phoenix.personas WHERE id = tap.no('b1');
SELECT is((SELECT string_agg(t, ', ' ORDER BY t COLLATE "C") FROM unnest(string_to_array(tap.told(), ', ')) t),
          '-DECIDES_FOR b1>c1/budget, -DECIDES_FOR b1>c1/taste, -INFLUENCES b1>b2, -Persona b1, -WORKS_AT b1>c1', 'a persona goes with its edges');
TRUNCATE phoenix.agent_pairs;
SELECT matches(tap.told(), '(^|, )-ENTANGLED_WITH a1>a2($|,)', 'TRUNCATE tells of each row');
SELECT set_eq('SELECT element FROM phoenix.graph_elements', 'SELECT element FROM tap.by_events', 'the view is what the events add up to');
TRUNCATE phoenix.agents, phoenix.tasks, phoenix.personas, phoenix.food_companies CASCADE;
SELECT is((SELECT count(*)::integer FROM phoenix.graph_elements), 0, 'TRUNCATE … CASCADE leaves nothing');
SELECT is((SELECT count(*)::integer FROM tap.by_events), 0, 'nor do its events');

-- Rights. `graph` compares and rebuilds: it reads this and nothing else.
INSERT INTO phoenix.tasks (id, title) VALUES (tap.no('e4'), 'nobody''s');
SELECT is(tap.run_as('graph', 'SELECT count(*) FROM phoenix.graph_elements'), '1', 'graph reads all elements, also those that row security hides');
SELECT is(tap.run_as('graph', 'SELECT phoenix.newest_event() = max(seq) FROM phoenix.outbox'), 'ERROR 42501', 'but no event');
SELECT is(tap.run_as('graph', 'SELECT phoenix.newest_event()'), (SELECT max(seq)::text FROM phoenix.outbox), 'only the number of the newest');
SELECT is((SELECT string_agg(t, ', ') FROM unnest(ARRAY['agents', 'personas', 'tasks', 'food_companies', 'agent_trust', 'agent_credentials']) t
           WHERE tap.run_as('graph', format('SELECT count(*) FROM phoenix.%I', t)) <> 'ERROR 42501'), NULL, 'and none of the tables');
SELECT is((SELECT string_agg(concat_ws(' ', t, p), ', ') FROM unnest(ARRAY['graph_elements', 'graph_migrations', 'outbox']) t, unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) p
           WHERE has_table_privilege('graph', 'phoenix.' || t, p)), NULL, 'it writes nothing itself');
SELECT is((SELECT string_agg(who || ' ' || tap.run_as(who, 'SELECT count(*) FROM phoenix.graph_elements'), ', ') FROM unnest(ARRAY['monitor', 'samurai_agent', 'public_api', 'stream']) who),
          'monitor 1, samurai_agent ERROR 42501, public_api ERROR 42501, stream ERROR 42501', 'monitor reads them as well, nobody else');
SELECT is((SELECT string_agg(who || ' ' || tap.run_as(who, $$ SELECT phoenix.record_graph_migration('9', 'x', 'x') $$), ', ') FROM unnest(ARRAY['monitor', 'samurai_agent', 'public_api', 'stream']) who),
          'monitor ERROR 42501, samurai_agent ERROR 42501, public_api ERROR 42501, stream ERROR 42501', 'nobody else notes migrations');

-- Migrations of the graph.
SELECT is((SELECT count(*)::integer FROM unnest(ARRAY['one', 'one', 'two']) c WHERE tap.run_as('graph', format($$ SELECT phoenix.record_graph_migration('99.1', 'tap', %L) $$, c)) IS DISTINCT FROM 'ERROR 42501'), 3, 'graph notes one again and again');
SELECT is((SELECT string_agg(checksum, ', ') FROM phoenix.graph_migrations WHERE version = '99.1'), 'two', 'the newest counts');
SELECT is((SELECT count(*)::integer FROM phoenix.schema_version WHERE version = '99.1'), 1, 'and schema_version names it');
SELECT * FROM finish();
