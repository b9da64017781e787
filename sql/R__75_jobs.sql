-- requires: pg_cron
-- Everything that runs by the clock. This list is the whole truth: a job of architect that is not on it is removed.
--
-- Jobs belong to architect, because PostgreSQL 16 starts no background worker for a role without LOGIN. The spec refreshes the dashboard
-- inside a function; REFRESH … CONCURRENTLY and refresh_continuous_aggregate() are commands of their own here.
SET ROLE architect;

DO $do$
DECLARE
    timescale CONSTANT boolean := current_setting('timescaledb.license', true) IS NOT DISTINCT FROM 'timescale';
    job       record;
    gone      text;
    declared  text[] := '{}';
BEGIN
    FOR job IN
        SELECT * FROM (VALUES
            ('refresh-dashboard', '* * * * *', 'REFRESH MATERIALIZED VIEW CONCURRENTLY phoenix.federation_dashboard'),
            ('fold-task-ledger', '* * * * *', 'SELECT phoenix.fold_task_ledger()'),
            ('create-persona-partitions', '17 3 * * *', 'SELECT phoenix.ensure_persona_partitions()'),
            ('refresh-consciousness-hourly', '3,13,23,33,43,53 * * * *', CASE WHEN timescale
                THEN $c$CALL public.refresh_continuous_aggregate('phoenix.consciousness_hourly', now() - INTERVAL '3 days', date_trunc('hour', now(), 'UTC'))$c$
                ELSE 'SELECT phoenix.refresh_consciousness_hourly()' END),
            ('compress-consciousness', '37 3 * * *', CASE WHEN timescale THEN 'SELECT phoenix.compress_consciousness()' END),
            ('retain-consciousness', '47 3 * * *', 'SELECT phoenix.retain_consciousness()'),
            ('purge-outbox', '27 * * * *', 'SELECT phoenix.purge_outbox()'),
            ('purge-job-history', '57 3 * * *', $c$DELETE FROM cron.job_run_details WHERE end_time < now() - INTERVAL '7 days'$c$)
        ) AS v (name, schedule, command)
        WHERE command IS NOT NULL
    LOOP
        declared := declared || job.name;
        -- Scheduling a job again keeps its id; not touching one that is right keeps its last change telling something.
        IF NOT EXISTS (SELECT FROM cron.job j WHERE j.jobname = job.name AND j.schedule = job.schedule AND j.command = job.command
                       AND j.active AND j.database = current_database() AND j.username = current_user) THEN
            PERFORM cron.unschedule(j.jobname) FROM cron.job j WHERE j.jobname = job.name AND j.username = current_user;
            PERFORM cron.schedule(job.name, job.schedule, job.command);
        END IF;
    END LOOP;
    FOR gone IN SELECT jobname FROM cron.job WHERE username = current_user AND database = current_database()
                AND jobname IS NOT NULL AND jobname <> ALL (declared) LOOP
        PERFORM cron.unschedule(gone);
    END LOOP;
END
$do$;

-- pg_cron shows a role its own jobs only; a definer function of their owner shows them to the exporter.
CREATE OR REPLACE FUNCTION phoenix.job_runs()
    RETURNS TABLE (jobname text, schedule text, active boolean, last_status text, last_start timestamptz, last_end timestamptz,
                   last_success timestamptz, failures_24h bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT j.jobname, j.schedule, j.active, l.status, l.start_time, l.end_time,
           (SELECT max(d.end_time) FROM cron.job_run_details d WHERE d.jobid = j.jobid AND d.status = 'succeeded'),
           (SELECT count(*) FROM cron.job_run_details d WHERE d.jobid = j.jobid AND d.status = 'failed' AND d.start_time > now() - INTERVAL '24 hours')
    FROM cron.job j
    LEFT JOIN LATERAL (SELECT d.status, d.start_time, d.end_time FROM cron.job_run_details d
                       WHERE d.jobid = j.jobid AND d.end_time IS NOT NULL ORDER BY d.runid DESC LIMIT 1) l ON true
    WHERE j.username = current_user
$$;
COMMENT ON FUNCTION phoenix.job_runs IS 'The jobs of the platform and how their last finished run went';
REVOKE ALL ON FUNCTION phoenix.job_runs() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION phoenix.job_runs() TO phoenix_owner, monitor;

SET ROLE phoenix_owner;

CREATE OR REPLACE VIEW phoenix.metrics_jobs WITH (security_invoker = true) AS SELECT * FROM phoenix.job_runs();
