-- The spec's rights, exactly.
SELECT plan(25);
-- What a role may do itself (not through PUBLIC or by owning), by table and view.
CREATE VIEW tap.rights AS
    SELECT g.grantee::regrole::text AS role, c.relname::text AS relation, string_agg(DISTINCT g.privilege_type, ' ' ORDER BY g.privilege_type) AS may
    FROM pg_class c, aclexplode(c.relacl) g
    WHERE c.relnamespace = 'phoenix'::regnamespace AND g.grantee <> 0 GROUP BY 1, 2;

SELECT set_eq($$ SELECT relation, may FROM tap.rights WHERE role = 'samurai_agent' $$,
              $$ VALUES ('tasks', 'INSERT SELECT UPDATE'), ('consciousness_timeline', 'INSERT') $$, 'samurai_agent: tasks and consciousness_timeline as in the spec');
SELECT is(tap.run_as('samurai_agent', 'SELECT count(name) >= 0 FROM phoenix.personas'), 'true', 'samurai_agent reads personas');
SELECT is(tap.run_as('samurai_agent', 'SELECT max(email_encrypted::text) FROM phoenix.personas'), 'ERROR 42501', 'but not their e-mail');
SELECT is(tap.run_as('samurai_agent', 'SELECT max(email_hash::text) FROM phoenix.personas'), 'ERROR 42501', 'nor its look-up key');
SELECT is(tap.run_as('samurai_agent', $$ UPDATE phoenix.personas SET trust_score = 1 $$), 'ERROR 42501', 'and writes none');
SELECT is(tap.run_as('samurai_agent', $$ INSERT INTO phoenix.consciousness_timeline ("time", global_consciousness, global_trust) VALUES (now(), 110, 0.5) $$), NULL, 'samurai_agent adds to the timeline');
SELECT is((SELECT string_agg(t || ' ' || tap.run_as('samurai_agent', format($$ INSERT INTO phoenix.consciousness_timeline ("time", global_consciousness, global_trust) VALUES (%L, 110, 0.5) $$, t)), ', ')
           FROM unnest(ARRAY['infinity', '2200-01-01', '1990-01-01']) t), 'infinity ERROR 42501, 2200-01-01 ERROR 42501, 1990-01-01 ERROR 42501',
          'but neither a row that stays the newest for good nor one from long ago');
SELECT is(tap.run_as('samurai_agent', 'SELECT count(*) FROM phoenix.consciousness_timeline'), 'ERROR 42501', 'and does not read it');
SELECT is(tap.run_as('samurai_agent', 'SELECT count(*) FROM phoenix.agents'), 'ERROR 42501', 'samurai_agent does not read agents');
SELECT is(tap.run_as('samurai_agent', format('SELECT phoenix.issue_agent_token(%L)', gen_random_uuid())), 'ERROR 42501', 'nor issue tokens');

SELECT is((SELECT string_agg(c.relname, ', ') FROM pg_class c WHERE c.relnamespace = 'phoenix'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition
           AND pg_get_userbyid(c.relowner) IN ('phoenix_owner', 'phoenix_board')
           AND NOT has_table_privilege('monitor', c.oid, 'SELECT') AND c.relname <> 'agent_credentials'), NULL, 'monitor reads every table and view');
SELECT is((SELECT string_agg(may, ', ') FROM tap.rights WHERE role = 'monitor' AND may <> 'SELECT'), NULL, 'and nothing more');
SELECT is(tap.run_as('monitor', 'SELECT count(*) FROM phoenix.agent_credentials'), 'ERROR 42501', 'monitor does not read credentials');
SET ROLE phoenix_owner;
CREATE TABLE phoenix.tap_later (id integer);
RESET ROLE;
SELECT is(tap.run_as('monitor', 'SELECT count(*) FROM phoenix.tap_later'), '0', 'monitor reads a table made later');

SELECT is((SELECT string_agg(relation || ' ' || may, ', ' ORDER BY relation) FROM tap.rights WHERE role = 'public_api'),
          'public_agents SELECT, public_consciousness SELECT, public_consciousness_hourly SELECT, public_dashboard SELECT, public_personas SELECT, public_pipeline SELECT, public_task_board SELECT',
          'public_api sees its views and nothing else');
SELECT is((SELECT string_agg(c.relname || '.' || a.attname, ', ') FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
           WHERE c.relnamespace = 'phoenix'::regnamespace AND c.relname LIKE 'public\_%' AND a.attname ~ '^(name|email.*|linkedin_url|description|output)$'), NULL,
          'none of them shows a name, an address or a text');
SELECT is((SELECT string_agg(relname, ', ') FROM pg_class WHERE relnamespace = 'phoenix'::regnamespace AND relname LIKE 'public\_%'
           AND NOT coalesce(reloptions::text ~ 'security_barrier=true', false)), NULL, 'all of them are security barriers');
SELECT is((SELECT string_agg(oid::regprocedure::text, ', ') FROM pg_proc p WHERE pronamespace = 'phoenix'::regnamespace AND proname <> 'careless'
           AND (has_function_privilege('public_api', oid, 'EXECUTE') OR EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) g WHERE g.grantee = 0))), NULL,
          'no function is for everybody');

SELECT ok(has_table_privilege('architect', 'phoenix.tasks', 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
          AND has_table_privilege('architect', 'phoenix.agent_credentials', 'DELETE'), 'architect has all privileges');
SELECT is((SELECT string_agg(rolname, ', ') FROM pg_roles WHERE rolname IN ('phoenix_owner', 'phoenix_board', 'architect', 'samurai_agent', 'monitor', 'public_api')
           AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb)), NULL, 'no role of the platform is above its rights');

-- What PostgreSQL gives to everybody.
SELECT is((SELECT string_agg(who || ': ' || what, ', ') FROM unnest(ARRAY['samurai_agent', 'monitor', 'public_api']) who,
           unnest(ARRAY['lo_creat(-1)', 'lo_create(0)', 'lo_from_bytea(0, ''tap'')', 'pg_logical_emit_message(true, ''tap'', ''tap'')']) what
           WHERE tap.run_as(who, 'SELECT ' || what) IS DISTINCT FROM 'ERROR 42501'), NULL, 'who only reads writes no large object and no message either');
SELECT is((SELECT string_agg(who || ': ' || p.oid::regprocedure, ', ') FROM unnest(ARRAY['samurai_agent', 'monitor', 'public_api']) who, pg_proc p
           WHERE p.proname ~ 'advisory.*lock' AND p.proname !~ 'unlock' AND has_function_privilege(who, p.oid, 'EXECUTE')), NULL, 'only the owner takes advisory locks: migrations wait for them');
SELECT is(tap.run_as('samurai_agent', 'SELECT pg_terminate_backend(0)'), 'ERROR 42501', 'an agent does not end the sessions of other agents');
SELECT is(tap.run_as('samurai_agent', 'SELECT pg_cancel_backend(0)'), 'ERROR 42501', 'nor their statements');
SELECT is(tap.run_as('architect', 'SELECT pg_terminate_backend(0)'), 'false', 'architect may end its own');
SELECT * FROM finish();
