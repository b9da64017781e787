-- Hourly roll-up of the federation's own rows (docs/decisions/0106-timescale-editions.md).
-- Columns: bucket, avg_consciousness, peak_consciousness, avg_trust, dopamine_level, total_tasks.
--
-- Two sketches of the spec are not taken over. It averages and adds over all rows, so that an hour with three teams reporting counts the
-- federation's tasks several times: rolled up are the rows without a team. And it adds up tasks_per_hour, a rate: sixty readings of
-- "100 per hour" are 100 tasks in that hour and not 6,000, so total_tasks is the mean of the rate.
--
-- Where the TimescaleDB licence allows it this is a continuous aggregate; otherwise a view with the same columns over hours stored by a job.
-- Both give closed hours from storage and the current hour live, and both keep the hours whose raw rows have been dropped.
DO $do$
DECLARE
    rollup     CONSTANT text := $q$
        avg(global_consciousness) AS avg_consciousness,
        max(global_consciousness) AS peak_consciousness,
        avg(global_trust) AS avg_trust,
        avg(avg_dopamine) AS dopamine_level,
        round(avg(tasks_per_hour))::bigint AS total_tasks
        FROM phoenix.consciousness_timeline WHERE team IS NULL $q$;
    timescale  CONSTANT boolean := EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')
                                   AND current_setting('timescaledb.license', true) = 'timescale';
    -- Only a continuous aggregate has its internal view; a plain one is over the store of V5.4.
    continuous boolean := false;
BEGIN
    IF timescale THEN
        SELECT EXISTS (SELECT FROM timescaledb_information.continuous_aggregates WHERE view_schema = 'phoenix' AND view_name = 'consciousness_hourly')
            INTO continuous;
        IF NOT continuous THEN
            -- The edition was changed under a running installation: hours whose raw rows are gone stay in consciousness_hourly_store.
            DROP VIEW IF EXISTS phoenix.consciousness_hourly CASCADE;
            -- WITH NO DATA, because a migration is a transaction; the job fills it.
            EXECUTE 'CREATE MATERIALIZED VIEW phoenix.consciousness_hourly WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
                     SELECT public.time_bucket(INTERVAL ''1 hour'', "time") AS bucket,' || rollup || 'GROUP BY 1 WITH NO DATA';
        END IF;
        IF NOT (SELECT compression_enabled FROM timescaledb_information.hypertables
                WHERE hypertable_schema = 'phoenix' AND hypertable_name = 'consciousness_timeline') THEN
            ALTER TABLE phoenix.consciousness_timeline SET (timescaledb.compress, timescaledb.compress_segmentby = 'team', timescaledb.compress_orderby = '"time" DESC');
        END IF;
    ELSE
        EXECUTE 'CREATE OR REPLACE VIEW phoenix.consciousness_hourly AS
                 SELECT bucket, avg_consciousness, peak_consciousness, avg_trust, dopamine_level, total_tasks FROM phoenix.consciousness_hourly_store
                 UNION ALL
                 SELECT date_trunc(''hour'', "time", ''UTC'') AS bucket,' || rollup || '
                    AND "time" >= coalesce((SELECT max(bucket) + INTERVAL ''1 hour'' FROM phoenix.consciousness_hourly_store), ''-infinity'')
                 GROUP BY 1';
    END IF;
END
$do$;

-- Stores the closed hours of the window, as a continuous aggregate's refresh does; rows that come later than the window are not seen by
-- either. The first run starts at the oldest row.
CREATE OR REPLACE FUNCTION phoenix.refresh_consciousness_hourly(back interval DEFAULT '3 days') RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    closed  CONSTANT timestamptz := date_trunc('hour', now(), 'UTC');
    first   timestamptz := date_trunc('hour', closed - back, 'UTC');
    changed integer;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('phoenix.consciousness_hourly_store', 0));
    -- After a pause of the job longer than the window, go on where it stopped.
    first := least(first, coalesce((SELECT max(bucket) FROM phoenix.consciousness_hourly_store), '-infinity'));
    INSERT INTO phoenix.consciousness_hourly_store AS s (bucket, avg_consciousness, peak_consciousness, avg_trust, dopamine_level, total_tasks)
    SELECT date_trunc('hour', "time", 'UTC'), avg(global_consciousness), max(global_consciousness), avg(global_trust), avg(avg_dopamine), round(avg(tasks_per_hour))::bigint
    FROM phoenix.consciousness_timeline
    WHERE team IS NULL AND "time" >= first AND "time" < closed
    GROUP BY 1
    ON CONFLICT (bucket) DO UPDATE SET avg_consciousness = excluded.avg_consciousness, peak_consciousness = excluded.peak_consciousness,
        avg_trust = excluded.avg_trust, dopamine_level = excluded.dopamine_level, total_tasks = excluded.total_tasks
    -- An hour that is as it was is not written again.
    WHERE (s.avg_consciousness, s.peak_consciousness, s.avg_trust, s.dopamine_level, s.total_tasks)
          IS DISTINCT FROM (excluded.avg_consciousness, excluded.peak_consciousness, excluded.avg_trust, excluded.dopamine_level, excluded.total_tasks);
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END
$$;
COMMENT ON FUNCTION phoenix.refresh_consciousness_hourly IS 'Stores the closed hours of the last days; returns how many changed. Used where TimescaleDB''s licence has no continuous aggregates';

-- drop_chunks is part of both editions, so retention is one function and one job in both; only the policy around it is not.
CREATE OR REPLACE FUNCTION phoenix.retain_consciousness(keep interval DEFAULT '90 days') RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    dropped integer;
BEGIN
    IF keep < INTERVAL '7 days' THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('consciousness_timeline: keeping %s is less than the week that the hourly roll-up may still need', keep), HINT = 'Keep at least 7 days.';
    END IF;
    SELECT count(*) INTO dropped FROM public.drop_chunks('phoenix.consciousness_timeline', older_than => keep);
    RETURN dropped;
END
$$;
COMMENT ON FUNCTION phoenix.retain_consciousness IS 'Drops raw rows by whole weekly chunks once all of a chunk is older than this; returns how many chunks';

CREATE OR REPLACE FUNCTION phoenix.compress_consciousness(older_than interval DEFAULT '7 days') RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    compressed integer;
BEGIN
    -- The open-source edition has no compression; there a chunk stays as it is until retention drops it.
    IF current_setting('timescaledb.license', true) IS DISTINCT FROM 'timescale' THEN
        RETURN 0;
    END IF;
    SELECT count(public.compress_chunk(format('%I.%I', c.chunk_schema, c.chunk_name)::regclass)) INTO compressed
    FROM timescaledb_information.chunks c
    WHERE c.hypertable_schema = 'phoenix' AND c.hypertable_name = 'consciousness_timeline' AND NOT c.is_compressed
      AND c.range_end < now() - older_than;
    RETURN compressed;
END
$$;
COMMENT ON FUNCTION phoenix.compress_consciousness IS 'Compresses chunks older than this where the licence allows it; returns how many';
