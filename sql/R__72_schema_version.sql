-- The spec's schema_version, read from the history that Flyway keeps, and from that of the graph: a second record of the same thing would sooner or later disagree.
CREATE OR REPLACE FUNCTION phoenix.applied_migrations()
    RETURNS TABLE (version text, description text, fibonacci_phase integer, applied_at timestamptz)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Migrations of the knowledge graph, which the deploy applies to Neo4j (sql/cypher/).
    RETURN QUERY
    SELECT g.version, g.description, split_part(g.version, '.', 1)::integer, g.applied_at FROM phoenix.graph_migrations g ORDER BY g.applied_at, g.version;
    -- The history is Flyway's; where the files were applied by hand there is none, and nothing to tell.
    IF to_regclass('phoenix.flyway_schema_history') IS NULL THEN
        RETURN;
    END IF;
    -- Flyway stores the time without its zone; it is run with UTC, whatever the reader's zone is.
    RETURN QUERY
    SELECT h.version::text, h.description::text, split_part(h.version, '.', 1)::integer, h.installed_on AT TIME ZONE 'UTC'
    FROM phoenix.flyway_schema_history h
    WHERE h.version IS NOT NULL AND h.success AND h.type <> 'SCHEMA' AND h.version ~ '^\d+(\.\d+)*$'
    ORDER BY h.installed_rank;
END
$$;

CREATE OR REPLACE VIEW phoenix.schema_version AS
    SELECT version, description, fibonacci_phase, applied_at FROM phoenix.applied_migrations();
COMMENT ON VIEW phoenix.schema_version IS 'Applied versioned migrations; the phase is the first part of the version';
