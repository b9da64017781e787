-- Runs of n8n's workflows, and what the synchronisation with HubSpot knows of both sides.
CREATE TABLE phoenix.ingestion_runs (
    workflow    text        NOT NULL,
    -- n8n's id of the execution.
    execution   text        NOT NULL,
    state       text        NOT NULL DEFAULT 'running',
    started_at  timestamptz NOT NULL DEFAULT now(),
    touched_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    -- What is still to do, and the request whose answer is awaited.
    plan        jsonb       NOT NULL DEFAULT '{}',
    requests    integer     NOT NULL DEFAULT 0,
    retries     integer     NOT NULL DEFAULT 0,
    error       text,
    PRIMARY KEY (workflow, execution),
    CONSTRAINT state_known CHECK (state IN ('running', 'done', 'failed', 'abandoned')),
    CONSTRAINT finished_when_over CHECK ((state = 'running') = (finished_at IS NULL))
);
-- One at a time: two would apply each other's pages.
CREATE UNIQUE INDEX ingestion_runs_one ON phoenix.ingestion_runs (workflow) WHERE state = 'running';
CREATE INDEX idx_ingestion_runs_finished ON phoenix.ingestion_runs (workflow, finished_at DESC);

CREATE TABLE phoenix.hubspot_cursors (
    entity        text PRIMARY KEY,
    -- When the property that holds our id was there, and when all records had been read once.
    prepared_at   timestamptz,
    listed_at     timestamptz,
    -- Changes there from this moment on are still to be read.
    changed_since timestamptz,
    CONSTRAINT entity_known CHECK (entity IN ('contacts', 'companies', 'deals'))
);
INSERT INTO phoenix.hubspot_cursors (entity) VALUES ('contacts'), ('companies'), ('deals');

-- A record there and the row here. No foreign key: the link outlives the row, so that its deletion is told there and does not come back.
CREATE TABLE phoenix.hubspot_links (
    entity           text        NOT NULL,
    hubspot_id       text        NOT NULL,
    local_id         uuid        NOT NULL,
    state            text        NOT NULL DEFAULT 'linked',
    -- The fields as both sides last had them: whoever differs from it has changed.
    synced           jsonb       NOT NULL,
    -- Versions of both sides when they were last looked at.
    hubspot_modified timestamptz,
    local_modified   timestamptz,
    synced_at        timestamptz NOT NULL DEFAULT now(),
    checked_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (entity, hubspot_id),
    CONSTRAINT entity_known CHECK (entity IN ('contacts', 'companies', 'deals')),
    CONSTRAINT state_known CHECK (state IN ('linked', 'archived_there', 'gone_there', 'archived_here', 'duplicate'))
);
CREATE UNIQUE INDEX hubspot_links_local ON phoenix.hubspot_links (entity, local_id) WHERE state <> 'duplicate';
CREATE INDEX idx_hubspot_links_checked ON phoenix.hubspot_links (entity, checked_at) WHERE state = 'linked';
COMMENT ON COLUMN phoenix.hubspot_links.state IS
    'linked; archived_there, gone_there: archived or removed in HubSpot; archived_here: deleted here, archived there; duplicate: another record is the same';

CREATE TABLE phoenix.hubspot_conflicts (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entity         text        NOT NULL,
    hubspot_id     text        NOT NULL,
    local_id       uuid        NOT NULL,
    fields         text[]      NOT NULL,
    base           jsonb,
    here           jsonb       NOT NULL,
    there          jsonb       NOT NULL,
    here_modified  timestamptz,
    there_modified timestamptz,
    winner         text        NOT NULL,
    at             timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT winner_known CHECK (winner IN ('here', 'there'))
);
COMMENT ON TABLE phoenix.hubspot_conflicts IS 'Fields that changed on both sides between two runs; the newer change won, the other is kept here';
CREATE INDEX idx_hubspot_conflicts_time ON phoenix.hubspot_conflicts (at DESC);

-- What HubSpot did not take: not offered again until it changes, or a day has passed.
CREATE TABLE phoenix.hubspot_refused (
    entity   text        NOT NULL,
    local_id uuid        NOT NULL,
    sent     jsonb       NOT NULL,
    error    text        NOT NULL,
    at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (entity, local_id)
);

-- Stages of HubSpot's deal pipeline. Of several that mean the same here, `preferred` is the one that is written.
CREATE TABLE phoenix.hubspot_stages (
    dealstage text PRIMARY KEY,
    stage     phoenix.opportunity_stage NOT NULL,
    preferred boolean NOT NULL DEFAULT true
);
CREATE UNIQUE INDEX hubspot_stages_preferred ON phoenix.hubspot_stages (stage) WHERE preferred;
INSERT INTO phoenix.hubspot_stages (dealstage, stage, preferred) VALUES
    ('appointmentscheduled', 'prospecting', true),
    ('qualifiedtobuy', 'qualification', true),
    ('presentationscheduled', 'proposal', true),
    ('decisionmakerboughtin', 'negotiation', true),
    ('contractsent', 'negotiation', false),
    ('closedwon', 'closed_won', true),
    ('closedlost', 'closed_lost', true);
