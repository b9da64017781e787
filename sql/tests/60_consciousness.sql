-- The timeline and its hourly figures: the same on every edition.
SELECT plan(13);
DELETE FROM phoenix.consciousness_timeline WHERE "time" < '1992-01-01';
INSERT INTO phoenix.consciousness_timeline ("time", global_consciousness, global_trust, avg_dopamine, tasks_per_hour)
SELECT timestamptz '1991-03-05 10:00+00' + n * INTERVAL '1 minute', 100 + n, 0.5, 1.5, 120 FROM generate_series(0, 59) n;
INSERT INTO phoenix.consciousness_timeline ("time", global_consciousness, global_trust, team, team_consciousness, tasks_per_hour)
SELECT timestamptz '1991-03-05 10:00+00' + n * INTERVAL '1 minute', 100 + n, 0.5, 'iota', 90, 40 FROM generate_series(0, 59) n;

SELECT throws_ok($$ INSERT INTO phoenix.consciousness_timeline ("time", global_consciousness, global_trust) VALUES ('1991-03-05 10:00+00', 1, 0.5) $$, '23505', NULL, 'one federation row per moment');
SELECT throws_ok($$ INSERT INTO phoenix.consciousness_timeline ("time", global_consciousness, global_trust, team) VALUES ('1991-03-05 10:00+00', 1, 0.5, 'iota') $$, '23505', NULL, 'one row per moment and team');
SELECT lives_ok($$ INSERT INTO phoenix.consciousness_timeline ("time", global_consciousness, global_trust) VALUES ('1991-03-05 10:00+00', 100, 0.6)
                   ON CONFLICT ("time", team) DO UPDATE SET global_trust = 0.5 $$, 'an upsert of a federation row goes through');
SELECT throws_ok($$ INSERT INTO phoenix.consciousness_timeline ("time", global_consciousness, global_trust) VALUES ('1991-01-01', 'NaN', 0.5) $$, '23514', NULL, 'not a number is no consciousness');
SELECT throws_ok($$ INSERT INTO phoenix.consciousness_timeline ("time", global_consciousness, global_trust, team_coherence) VALUES ('1991-01-01', 100, 0.5, 1) $$, '23514', NULL, 'team figures need a team');

SELECT is((SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'phoenix.consciousness_hourly'::regclass AND attnum > 0 AND NOT attisdropped),
          'bucket avg_consciousness peak_consciousness avg_trust dopamine_level total_tasks', 'the columns of the spec');
SELECT is((SELECT string_agg(format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'phoenix.consciousness_hourly'::regclass AND attnum > 0 AND NOT attisdropped),
          'timestamp with time zone, double precision, double precision, double precision, double precision, bigint', 'of the same types');
SELECT set_eq($$ SELECT avg_consciousness, peak_consciousness, avg_trust, dopamine_level, total_tasks FROM phoenix.consciousness_hourly WHERE bucket = '1991-03-05 10:00+00' $$,
              $$ VALUES (129.5::double precision, 159::double precision, 0.5::double precision, 1.5::double precision, 120::bigint) $$,
              'an hour not yet stored is shown live, of the federation''s rows alone');
SELECT is(tap.run_as('monitor', $$ SELECT total_tasks FROM phoenix.consciousness_hourly WHERE bucket = '1991-03-05 10:00+00' $$), '120', 'monitor reads it');
SELECT is(tap.run_as('public_api', $$ SELECT total_tasks FROM phoenix.public_consciousness_hourly WHERE bucket = '1991-03-05 10:00+00' $$), '120', 'public_api reads its view');

INSERT INTO phoenix.consciousness_timeline ("time", global_consciousness, global_trust) VALUES (now() + INTERVAL '1 year', 117, 0.9);
SELECT is((SELECT global_consciousness FROM phoenix.metrics_consciousness), 117::double precision, 'the newest row is the current consciousness');
SELECT is((SELECT global_consciousness FROM phoenix.public_consciousness), 117::double precision, 'also for public_api');
SELECT throws_ok($$ SELECT phoenix.retain_consciousness('1 day') $$, '22023', NULL, 'retention refuses what the roll-up still needs');
SELECT * FROM finish();
