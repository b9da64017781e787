-- Partitions of personas are made ahead; the job create-persona-partitions calls this daily.
CREATE OR REPLACE FUNCTION phoenix.ensure_persona_partitions(quarters_ahead integer DEFAULT 4, since timestamptz DEFAULT now()) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    -- Rather try again tomorrow than queue every reader of personas behind a wait for the lock.
    SET lock_timeout = '10s' AS $$
DECLARE
    quarter   timestamp;
    lo        timestamptz;
    hi        timestamptz;
    partition text;
    columns   text;
    detached  boolean := false;
    made      integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('phoenix.personas partitions', 0));
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO columns
    FROM pg_attribute WHERE attrelid = 'phoenix.personas'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '';

    FOR quarter IN
        SELECT generate_series(date_trunc('quarter', least(since, now()) AT TIME ZONE 'UTC'),
                               date_trunc('quarter', now() AT TIME ZONE 'UTC') + quarters_ahead * INTERVAL '3 months', INTERVAL '3 months')
        UNION
        -- Whatever the default partition caught gets the partition it should have had.
        SELECT date_trunc('quarter', created_at AT TIME ZONE 'UTC') FROM phoenix.personas_default
        ORDER BY 1
    LOOP
        lo := quarter AT TIME ZONE 'UTC';
        hi := (quarter + INTERVAL '3 months') AT TIME ZONE 'UTC';
        partition := 'personas_' || to_char(quarter, 'YYYY"_q"Q');
        CONTINUE WHEN to_regclass(format('phoenix.%I', partition)) IS NOT NULL;

        IF NOT EXISTS (SELECT FROM phoenix.personas_default WHERE created_at >= lo AND created_at < hi) THEN
            -- Detached, the default would not be checked; attached, it must be free of these rows, which it is.
            EXECUTE format('CREATE TABLE phoenix.%I PARTITION OF phoenix.personas FOR VALUES FROM (%L) TO (%L) WITH (fillfactor = 85)', partition, lo, hi);
        ELSE
            -- Detached it has no triggers: the move must not look like a deletion to the registry.
            IF NOT detached THEN
                ALTER TABLE phoenix.personas DETACH PARTITION phoenix.personas_default;
                detached := true;
            END IF;
            EXECUTE format('CREATE TABLE phoenix.%I (LIKE phoenix.personas INCLUDING ALL) WITH (fillfactor = 85)', partition);
            EXECUTE format('INSERT INTO phoenix.%1$I (%2$s) SELECT %2$s FROM phoenix.personas_default WHERE created_at >= %3$L AND created_at < %4$L',
                           partition, columns, lo, hi);
            DELETE FROM phoenix.personas_default WHERE created_at >= lo AND created_at < hi;
            EXECUTE format('ALTER TABLE phoenix.personas ATTACH PARTITION phoenix.%I FOR VALUES FROM (%L) TO (%L)', partition, lo, hi);
        END IF;
        made := made + 1;
    END LOOP;

    IF detached THEN
        ALTER TABLE phoenix.personas ATTACH PARTITION phoenix.personas_default DEFAULT;
    END IF;
    RETURN made;
END
$$;
COMMENT ON FUNCTION phoenix.ensure_persona_partitions IS 'Makes the partitions from the quarter of since to some quarters ahead of now, moves stray rows out of the default partition; returns how many were made';

SELECT phoenix.ensure_persona_partitions();
