-- What the knowledge graph needs beyond V8.1: since when an agent works on its task, and which migrations the graph itself has had.

-- (:Agent)-[:WORKING_ON {started}]->(:Task). The time belongs to the agent's row and not to the task's: an edge has to be told of under one row
-- lock, or two transactions could tell of it in the wrong order. Kept by a trigger (R__42_graph.sql).
ALTER TABLE phoenix.agents ADD COLUMN current_task_since timestamptz;
COMMENT ON COLUMN phoenix.agents.current_task_since IS 'When current_task became what it is; null without a task';
UPDATE phoenix.agents a SET current_task_since = coalesce(t.claimed_at, now()) FROM phoenix.tasks t WHERE t.id = a.current_task;

-- Migrations of Neo4j (sql/cypher/) that the deploy has applied; part of the view schema_version like those of this database.
CREATE TABLE phoenix.graph_migrations (
    version     text        PRIMARY KEY,
    description text        NOT NULL,
    checksum    text        NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT version_is_numbers CHECK (version ~ '^\d+(\.\d+)*$')
);
COMMENT ON TABLE phoenix.graph_migrations IS 'Applied files of sql/cypher/, by phoenix.record_graph_migration()';
