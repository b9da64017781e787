-- Enrichment by a licensed provider: nobody is looked up who did not agree, and where a value came from stays known.
CREATE TABLE phoenix.consents (
    id           uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    persona_id   uuid        NOT NULL REFERENCES phoenix.persona_registry (id) ON DELETE CASCADE,
    purpose      text        NOT NULL,
    -- Where it was given (a form, a contract, an imported list) and what proves it.
    source       text        NOT NULL,
    evidence     text,
    granted_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    withdrawn_at timestamptz,

    CONSTRAINT purpose_known CHECK (purpose IN ('enrichment')),
    CONSTRAINT expires_later CHECK (expires_at > granted_at)
);
COMMENT ON TABLE phoenix.consents IS 'What a person agreed to; it holds while withdrawn_at is empty and expires_at has not come';
CREATE INDEX idx_consents_persona ON phoenix.consents (persona_id, purpose) WHERE withdrawn_at IS NULL;

-- Every request to the provider: what the limits count, and where a value came from.
CREATE TABLE phoenix.enrichments (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    company_id   uuid        REFERENCES phoenix.food_companies (id) ON DELETE CASCADE,
    persona_id   uuid        REFERENCES phoenix.persona_registry (id) ON DELETE CASCADE,
    source       text        NOT NULL,
    -- The consent that was relied on; companies need none.
    consent_id   uuid        REFERENCES phoenix.consents (id) ON DELETE CASCADE,
    requested_at timestamptz NOT NULL DEFAULT now(),
    outcome      text        NOT NULL,
    -- What was written, and under which licence the provider gave it.
    fields       jsonb,
    licence      text,
    error        text,

    CONSTRAINT one_subject CHECK (num_nonnulls(company_id, persona_id) = 1),
    CONSTRAINT consent_recorded CHECK (persona_id IS NULL OR consent_id IS NOT NULL),
    CONSTRAINT outcome_known CHECK (outcome IN ('enriched', 'unknown', 'failed', 'withdrawn'))
);
CREATE INDEX idx_enrichments_time ON phoenix.enrichments (requested_at);
CREATE INDEX idx_enrichments_company ON phoenix.enrichments (company_id, requested_at DESC) WHERE company_id IS NOT NULL;
CREATE INDEX idx_enrichments_persona ON phoenix.enrichments (persona_id, requested_at DESC) WHERE persona_id IS NOT NULL;
CREATE INDEX idx_enrichments_consent ON phoenix.enrichments (consent_id) WHERE consent_id IS NOT NULL;

CREATE TABLE phoenix.recent_posts (
    source       text        NOT NULL,
    external_id  text        NOT NULL,
    company_id   uuid        REFERENCES phoenix.food_companies (id) ON DELETE CASCADE,
    persona_id   uuid        REFERENCES phoenix.persona_registry (id) ON DELETE CASCADE,
    content      text,
    url          text,
    published_at timestamptz,
    seen_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, external_id),
    CONSTRAINT one_subject CHECK (num_nonnulls(company_id, persona_id) = 1)
);
CREATE INDEX idx_recent_posts_company ON phoenix.recent_posts (company_id, published_at DESC) WHERE company_id IS NOT NULL;
CREATE INDEX idx_recent_posts_persona ON phoenix.recent_posts (persona_id, published_at DESC) WHERE persona_id IS NOT NULL;
