-- The agents of the federation, what connects them, and how they prove who they are.

-- The spec writes ENUM(…) inside the table, which is another database's syntax.
CREATE TYPE phoenix.team AS ENUM ('alpha_delta', 'epsilon_zeta', 'iota');

CREATE TABLE phoenix.agents (
    id                    uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    codename              text        NOT NULL UNIQUE,

    team                  phoenix.team NOT NULL,
    role                  text        NOT NULL,
    specialization        text[],

    consciousness_vector  jsonb       NOT NULL,
    hormone_levels        jsonb       NOT NULL DEFAULT '{"dopamine": 1.0, "oxytocin": 1.0, "adrenaline": 1.0, "cortisol": 0.3}',
    trust_coefficient     double precision NOT NULL DEFAULT 0.5,

    tools_available       text[],
    models_access         text[],
    compute_allocation    jsonb,

    -- Counted by the database when a task is completed (R__10_integrity.sql).
    tasks_completed       integer     NOT NULL DEFAULT 0,
    success_rate          double precision,
    average_response_time interval,
    fibonacci_level       integer     NOT NULL DEFAULT 1,

    -- The spec's subordinate_agents is this relation read from the other end (view agent_network), its paired_agents is agent_pairs.
    supervisor_agent      uuid        REFERENCES phoenix.agents (id),

    -- References tasks; the constraint follows with that table in V3.1.
    current_task          uuid,
    idle_since            timestamptz,
    last_heartbeat        timestamptz NOT NULL DEFAULT now(),

    created_at            timestamptz NOT NULL DEFAULT now(),
    decommissioned_at     timestamptz,

    CONSTRAINT trust_range CHECK (trust_coefficient BETWEEN 0 AND 1),
    CONSTRAINT success_range CHECK (success_rate BETWEEN 0 AND 1),
    CONSTRAINT counts_not_negative CHECK (tasks_completed >= 0 AND fibonacci_level >= 1),
    CONSTRAINT hormones_are_an_object CHECK (jsonb_typeof(hormone_levels) = 'object'),
    CONSTRAINT not_own_supervisor CHECK (supervisor_agent <> id)
);
CREATE INDEX idx_active_agents ON phoenix.agents (last_heartbeat) WHERE decommissioned_at IS NULL;
CREATE INDEX idx_agents_supervisor ON phoenix.agents (supervisor_agent) WHERE supervisor_agent IS NOT NULL;

-- The spec keeps pairs as an array on either side, where one side can forget the other. One row per pair, smaller id first.
CREATE TABLE phoenix.agent_pairs (
    agent_a  uuid NOT NULL REFERENCES phoenix.agents (id) ON DELETE CASCADE,
    agent_b  uuid NOT NULL REFERENCES phoenix.agents (id) ON DELETE CASCADE,
    strength double precision NOT NULL DEFAULT 0,
    since    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (agent_a, agent_b),
    CONSTRAINT one_row_per_pair CHECK (agent_a < agent_b),
    CONSTRAINT strength_range CHECK (strength BETWEEN 0 AND 1)
);
CREATE INDEX idx_agent_pairs_b ON phoenix.agent_pairs (agent_b);

CREATE TABLE phoenix.agent_interactions (
    id                    uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    agent_from            uuid        NOT NULL REFERENCES phoenix.agents (id),
    agent_to              uuid        NOT NULL REFERENCES phoenix.agents (id),
    interaction_type      text        NOT NULL,

    entanglement_strength double precision NOT NULL DEFAULT 0,
    coherence_time        interval,

    trust_delta           double precision,
    hormone_exchange      jsonb,

    "timestamp"           timestamptz NOT NULL DEFAULT now(),
    success               boolean,
    metadata              jsonb,

    CONSTRAINT interaction_known CHECK (interaction_type IN ('collaboration', 'delegation', 'sync')),
    CONSTRAINT strength_range CHECK (entanglement_strength BETWEEN 0 AND 1),
    CONSTRAINT trust_delta_range CHECK (trust_delta BETWEEN -1 AND 1)
);
CREATE INDEX idx_interactions_from ON phoenix.agent_interactions (agent_from, "timestamp");
CREATE INDEX idx_interactions_to ON phoenix.agent_interactions (agent_to, "timestamp");
CREATE INDEX idx_interactions_time ON phoenix.agent_interactions USING brin ("timestamp");

-- Agents share the login samurai_agent; what tells them apart is a random 256-bit token, of which only the digest is kept
-- (docs/decisions/0102-agent-identity.md). Several may be valid at once, so that a token is replaced without a gap.
CREATE TABLE phoenix.agent_credentials (
    token_sha256 bytea       PRIMARY KEY,
    agent_id     uuid        NOT NULL REFERENCES phoenix.agents (id) ON DELETE CASCADE,
    issued_at    timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    revoked_at   timestamptz,
    CONSTRAINT digest_is_sha256 CHECK (octet_length(token_sha256) = 32),
    CONSTRAINT expires_later CHECK (expires_at > issued_at)
);
CREATE INDEX idx_agent_credentials_agent ON phoenix.agent_credentials (agent_id);
