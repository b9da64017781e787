-- requires: pg_cron
-- What runs by the clock.
SELECT plan(6);
SELECT is((SELECT string_agg(jobname, ' ' ORDER BY jobname) FROM cron.job WHERE jobname <> 'compress-consciousness'),
          'create-persona-partitions fold-task-ledger purge-job-history purge-outbox refresh-consciousness-hourly refresh-dashboard retain-consciousness', 'exactly the jobs of the platform');
SELECT is((SELECT count(*)::integer FROM cron.job WHERE jobname = 'compress-consciousness'), (current_setting('timescaledb.license') = 'timescale')::integer, 'compression where the licence allows it');
SELECT is((SELECT string_agg(DISTINCT username, ' ') FROM cron.job), 'architect', 'all are architect''s');
SELECT ok((SELECT rolcanlogin FROM pg_roles WHERE rolname = 'architect'), 'who can log in, as a background worker must');
SELECT matches((SELECT schedule || ' ' || command FROM cron.job WHERE jobname = 'refresh-dashboard'),
               '^\* \* \* \* \* REFRESH MATERIALIZED VIEW CONCURRENTLY', 'the dashboard is refreshed every minute, concurrently, as a command of its own');
SELECT is(tap.run_as('monitor', 'SELECT count(*) FROM phoenix.metrics_jobs'), (SELECT count(*)::text FROM cron.job), 'monitor sees how all of them go');
SELECT * FROM finish();
