-- Partitions, and what stays unique and referenced across them.
SELECT plan(21);

SELECT is((SELECT relkind::text FROM pg_class WHERE oid = 'phoenix.personas'::regclass), 'p', 'personas is partitioned');
SELECT ok(to_regclass('phoenix.personas_2025_q4') IS NOT NULL, 'the partition of the spec exists');
SELECT ok(to_regclass('phoenix.personas_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY"_q"Q')) IS NOT NULL, 'the partition of this quarter exists');
SELECT ok(to_regclass('phoenix.personas_' || to_char((now() AT TIME ZONE 'UTC') + INTERVAL '12 months', 'YYYY"_q"Q')) IS NOT NULL, 'a year ahead there is one too');

SELECT tap.new_persona('Ada', '2025-10-01 00:00:00+00');
SELECT is((SELECT tableoid::regclass::text FROM phoenix.personas WHERE name = 'Ada' AND company = 'tap'), 'personas_2025_q4', 'midnight UTC of the first day belongs to the quarter');
SELECT matches((SELECT fingerprint FROM phoenix.personas WHERE name = 'Ada' AND company = 'tap'), '^[0-9a-f]{64}$', 'a fingerprint left out is computed');
SELECT is((SELECT fingerprint FROM phoenix.personas WHERE name = 'Ada' AND company = 'tap'), encode(digest(E'ada\x1ftap\x1f\x1f', 'sha256'), 'hex'),
          'it is SHA-256 of the core attributes');

SELECT throws_ok($$ SELECT tap.new_persona(' ADA ', now()) $$, '23505', NULL, 'the same fingerprint in another partition is refused');
SELECT throws_ok($$ INSERT INTO phoenix.personas (id, name, created_at) SELECT id, 'Other', now() FROM phoenix.personas WHERE name = 'Ada' AND company = 'tap' $$,
                 '23505', NULL, 'the same id in another partition is refused');
SELECT lives_ok($$ INSERT INTO phoenix.personas (id, name, company, created_at) SELECT id, name, company, created_at FROM phoenix.personas WHERE name = 'Ada' AND company = 'tap'
                   ON CONFLICT (id, created_at) DO UPDATE SET role = 'analyst' $$, 'an upsert of the same persona goes through');
SELECT is((SELECT role FROM phoenix.personas WHERE name = 'Ada' AND company = 'tap'), 'analyst', 'and updates it');
SELECT throws_ok($$ UPDATE phoenix.personas SET created_at = now() WHERE name = 'Ada' AND company = 'tap' $$, '23000', NULL, 'the creation time never changes');

INSERT INTO phoenix.opportunities (name, value, contact_persona_id) SELECT 'tap', 1, id FROM phoenix.personas WHERE name = 'Ada' AND company = 'tap';
SELECT throws_ok($$ DELETE FROM phoenix.personas WHERE name = 'Ada' AND company = 'tap' $$, '23503', NULL, 'a persona that an opportunity names cannot be deleted');
SELECT throws_ok($$ INSERT INTO phoenix.opportunities (name, value, contact_persona_id) VALUES ('tap', 1, gen_random_uuid()) $$, '23503', NULL,
                 'an opportunity cannot name a persona that is not there');

-- The default partition catches what no quarter expects, and the next run gives it a quarter, registry and references untouched.
SELECT tap.new_persona('Old', '1999-05-05 12:00+00');
SELECT is((SELECT tableoid::regclass::text FROM phoenix.personas WHERE name = 'Old' AND company = 'tap'), 'personas_default', 'an unexpected date lands in the default partition');
INSERT INTO phoenix.opportunities (name, value, contact_persona_id) SELECT 'tap', 1, id FROM phoenix.personas WHERE name = 'Old' AND company = 'tap';
SELECT cmp_ok(phoenix.ensure_persona_partitions(), '>=', 1, 'the next run makes the missing partition');
SELECT is((SELECT tableoid::regclass::text FROM phoenix.personas WHERE name = 'Old' AND company = 'tap'), 'personas_1999_q2', 'and moves the row there');
SELECT ok(EXISTS (SELECT FROM phoenix.opportunities o JOIN phoenix.personas p ON p.id = o.contact_persona_id WHERE p.name = 'Old' AND p.company = 'tap'), 'its opportunity still finds it');
SELECT is(phoenix.ensure_persona_partitions(), 0, 'a further run has nothing to do');
SELECT is((SELECT string_agg(i.relid::regclass::text, ', ') FROM pg_partition_tree('phoenix.personas') i
           WHERE i.isleaf AND (SELECT count(*) FROM pg_index x WHERE x.indrelid = i.relid) <> (SELECT count(*) FROM pg_index x WHERE x.indrelid = 'phoenix.personas'::regclass)), NULL,
          'every partition has all indexes');

UPDATE phoenix.personas SET updated_at = '2001-01-01' WHERE name = 'Ada' AND company = 'tap';
SELECT is((SELECT updated_at FROM phoenix.personas WHERE name = 'Ada' AND company = 'tap'), now(), 'updated_at is the database''s to keep');
SELECT * FROM finish();
