-- Personas, partitioned by quarter of creation.

-- The spec hangs a partition on a table that was never partitioned. A partitioned table cannot keep a column unique, or be referenced by
-- that column, unless the column contains the partition key. This registry is what is unique over all partitions (id, fingerprint) and what
-- other tables reference; triggers on personas keep it (R__10_integrity.sql, docs/decisions/0100-personas-partitions.md).
CREATE TABLE phoenix.persona_registry (
    id          uuid        PRIMARY KEY,
    fingerprint text        NOT NULL,
    created_at  timestamptz NOT NULL,
    CONSTRAINT persona_registry_fingerprint_key UNIQUE (fingerprint),
    CONSTRAINT fingerprint_is_sha256 CHECK (fingerprint ~ '^[0-9a-f]{64}$')
);
COMMENT ON TABLE phoenix.persona_registry IS 'One row per persona in any partition; foreign keys to personas point here.';

CREATE TABLE phoenix.personas (
    id                     uuid        NOT NULL DEFAULT gen_random_uuid(),
    -- SHA-256 in hex of the core attributes; computed by phoenix.persona_fingerprint() when left out.
    fingerprint            text        NOT NULL,

    name                   text        NOT NULL,
    company                text,
    role                   text,
    industry               text,

    mbti_type              varchar(4),
    sdi_color              varchar(10),
    big_five               jsonb,

    communication_style    jsonb,
    decision_patterns      jsonb,
    pain_points            text[],

    linkedin_url           text,
    -- Money is numeric (it is added up and must not drift); measured levels and scores are double precision (they are only averaged).
    company_revenue        numeric(18, 2),
    employee_count         integer,
    technologies_used      text[],

    trust_score            double precision NOT NULL DEFAULT 0.5,
    last_interaction       timestamptz,
    interaction_count      integer     NOT NULL DEFAULT 0,
    conversion_probability double precision,

    source                 text,
    created_at             timestamptz NOT NULL DEFAULT now(),
    updated_at             timestamptz NOT NULL DEFAULT now(),
    consciousness_level    double precision NOT NULL DEFAULT 100.0,

    -- The spec's PRIMARY KEY (id) without the partition key is refused; the registry keeps id unique by itself.
    PRIMARY KEY (id, created_at),
    CONSTRAINT personas_registered FOREIGN KEY (id) REFERENCES phoenix.persona_registry (id),
    CONSTRAINT fingerprint_is_sha256 CHECK (fingerprint ~ '^[0-9a-f]{64}$'),
    CONSTRAINT created_at_finite CHECK (isfinite(created_at)),
    CONSTRAINT mbti_known CHECK (mbti_type ~ '^[EI][NS][FT][JP]$'),
    CONSTRAINT sdi_known CHECK (sdi_color ~ '^(Hub|(Blue|Green|Red)([-/](Blue|Green|Red))?)$'),
    CONSTRAINT big_five_complete CHECK (jsonb_typeof(big_five) = 'object' AND big_five ?& ARRAY['O', 'C', 'E', 'A', 'N']),
    CONSTRAINT trust_range CHECK (trust_score BETWEEN 0 AND 1),
    CONSTRAINT conversion_range CHECK (conversion_probability BETWEEN 0 AND 1),
    CONSTRAINT counts_not_negative CHECK (interaction_count >= 0 AND employee_count >= 0 AND company_revenue >= 0),
    -- NaN sorts above every number, so "> 0" alone would let it in.
    CONSTRAINT consciousness_positive CHECK (consciousness_level > 0 AND consciousness_level < 'Infinity')
) PARTITION BY RANGE (created_at);
COMMENT ON COLUMN phoenix.personas.big_five IS 'Openness, conscientiousness, extraversion, agreeableness, neuroticism: {"O": 0.7, "C": …}, each 0 to 1';
COMMENT ON COLUMN phoenix.personas.source IS 'linkedin, hubspot, manual or scraped';

CREATE INDEX idx_personas_trust ON phoenix.personas (trust_score DESC);
-- Also what lets a similarity search inside one industry go exact instead of losing recall (docs/decisions/0104-vector-indexes.md).
CREATE INDEX idx_personas_industry ON phoenix.personas (industry);

-- Bounds in UTC: a bare date would mean midnight of whoever applies this.
CREATE TABLE phoenix.personas_2025_q4 PARTITION OF phoenix.personas
    FOR VALUES FROM ('2025-10-01 00:00:00+00') TO ('2026-01-01 00:00:00+00');
-- Further quarters are made ahead by phoenix.ensure_persona_partitions(); the default only catches what no quarter expects
-- (an import of old rows) until the next run moves it into a partition of its own.
CREATE TABLE phoenix.personas_default PARTITION OF phoenix.personas DEFAULT;
