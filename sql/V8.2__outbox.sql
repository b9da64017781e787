-- The outbox: what happened, written by the transaction in which it happened, and from here on Kafka (docs/change-events.md).

-- Rows are only ever added. Debezium reads them from the WAL and never from the table, so no reader holds up a writer; they stay some days
-- so that a connector that lost its place can send them again, and are then purged by age (R__41_outbox.sql).
CREATE TABLE phoenix.outbox (
    -- Grows with each change of one aggregate, because it is taken under the lock of the aggregate's row: what consumers compare. Over all
    -- aggregates it is no order: transactions take numbers before they commit.
    seq           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id            uuid        NOT NULL,
    -- What the event is about: its kind, and its key; the key decides the partition, so events of one aggregate stay in order.
    aggregatetype text        NOT NULL,
    aggregateid   text        NOT NULL,
    -- The topic.
    type          text        NOT NULL,
    -- The envelope as Kafka gets it.
    payload       jsonb       NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Where the WAL was: together with what the connector has confirmed it tells which rows are still to be delivered.
    lsn           pg_lsn      NOT NULL DEFAULT pg_current_wal_insert_lsn(),
    CONSTRAINT topic_named CHECK (type ~ '^[a-z]+\.[a-z]+$'),
    CONSTRAINT key_not_empty CHECK (aggregateid <> '')
);
COMMENT ON TABLE phoenix.outbox IS 'Change events on their way to Kafka; written by phoenix.emit() only';
COMMENT ON COLUMN phoenix.outbox.payload IS 'event, version, id, seq, occurred_at, data: schemas/<event>/<version>.json';

-- For the purge and for what is undelivered: both grow with the table, so block ranges find them, and cost an insert nothing.
CREATE INDEX idx_outbox_age ON phoenix.outbox USING brin (created_at, lsn) WITH (pages_per_range = 32, autosummarize = on);
-- Rows come and go by the hundred thousand and are never updated.
ALTER TABLE phoenix.outbox SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.05);
