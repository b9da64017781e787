-- What keeps the tables of the second region a copy. Applied by a superuser to the copy's database only, and may be repeated:
--   psql -X -v ON_ERROR_STOP=1 -d phoenix -f sql/region2.sql
-- deploys/postgresql/subscription.py hangs the function on every copied table. Rows that arrive by replication do not fire it.
CREATE SCHEMA IF NOT EXISTS region2;

CREATE OR REPLACE FUNCTION region2.keep_copy() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- A migration runs on both sides. What it does to rows it does to the platform's, and they arrive by replication.
    IF current_setting('phoenix.migrating', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE read_only_sql_transaction USING
        MESSAGE = format('%I is a copy: its rows come from the platform''s cluster', TG_TABLE_NAME),
        HINT = 'Write there; the row arrives here by itself.';
END
$$;
