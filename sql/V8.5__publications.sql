-- The trade press, and what the workflow publication_monitor takes out of it.
CREATE TABLE phoenix.publications (
    id           uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    source       text        NOT NULL,
    -- What the feed calls it; where it gives no guid, the link.
    guid         text        NOT NULL,
    link         text        NOT NULL,
    title        text        NOT NULL,
    summary      text,
    published_at timestamptz,
    seen_at      timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT publications_guid_key UNIQUE (source, guid),
    -- The same article in two feeds, or with a new guid, is one.
    CONSTRAINT publications_link_key UNIQUE (link)
);
CREATE INDEX idx_publications_published ON phoenix.publications (published_at DESC NULLS LAST);

-- What makes an article a trend or a regulation: data, so that it is changed without a deploy. A pattern is a regular expression without case.
CREATE TABLE phoenix.publication_rules (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind      text NOT NULL,
    topic     text NOT NULL,
    pattern   text NOT NULL,
    authority text,

    CONSTRAINT publication_rules_key UNIQUE (kind, topic),
    CONSTRAINT kind_known CHECK (kind IN ('market_trend', 'regulatory_update')),
    CONSTRAINT pattern_compiles CHECK (('' ~* pattern) IS NOT NULL)
);

CREATE TABLE phoenix.market_trends (
    publication_id uuid NOT NULL REFERENCES phoenix.publications (id) ON DELETE CASCADE,
    topic          text NOT NULL,
    matched        text NOT NULL,
    trend          text,
    noted_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (publication_id, topic),
    CONSTRAINT trend_known CHECK (trend IN ('growing', 'stable', 'declining'))
);
CREATE INDEX idx_market_trends_topic ON phoenix.market_trends (topic, noted_at DESC);

CREATE TABLE phoenix.regulatory_updates (
    publication_id uuid NOT NULL REFERENCES phoenix.publications (id) ON DELETE CASCADE,
    topic          text NOT NULL,
    authority      text,
    matched        text NOT NULL,
    noted_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (publication_id, topic)
);
CREATE INDEX idx_regulatory_updates_topic ON phoenix.regulatory_updates (topic, noted_at DESC);

CREATE TABLE phoenix.company_mentions (
    publication_id uuid NOT NULL REFERENCES phoenix.publications (id) ON DELETE CASCADE,
    company_id     uuid NOT NULL REFERENCES phoenix.food_companies (id) ON DELETE CASCADE,
    matched        text NOT NULL,
    noted_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (publication_id, company_id)
);
CREATE INDEX idx_company_mentions_company ON phoenix.company_mentions (company_id, noted_at DESC);

INSERT INTO phoenix.publication_rules (kind, topic, pattern, authority) VALUES
    ('market_trend', 'plant-based', 'plant[- ]based|vegan|meat alternative', NULL),
    ('market_trend', 'protein', 'high[- ]protein|protein[- ](rich|packed|demand)', NULL),
    ('market_trend', 'sugar reduction', '(reduced|less|no added|low)[- ]sugar|sugar reduction', NULL),
    ('market_trend', 'clean label', 'clean[- ]label', NULL),
    ('market_trend', 'gut health', 'gut health|probiotic|prebiotic', NULL),
    ('market_trend', 'sustainability', 'sustainab|upcycl|carbon footprint', NULL),
    ('market_trend', 'ingredient prices', '(cocoa|wheat|flour|egg|butter|sugar|palm oil) prices?', NULL),
    ('market_trend', 'gluten-free', 'gluten[- ]free', NULL),
    ('regulatory_update', 'recall', '\mrecall(s|ed|ing)?\M', NULL),
    ('regulatory_update', 'FDA', '\mFDA\M|food and drug administration', 'FDA'),
    ('regulatory_update', 'EFSA', '\mEFSA\M|european food safety authority', 'EFSA'),
    ('regulatory_update', 'USDA', '\mUSDA\M', 'USDA'),
    ('regulatory_update', 'labelling', 'label(l)?ing (rule|law|requirement)|front[- ]of[- ]pack', NULL),
    ('regulatory_update', 'allergens', 'allergen (rule|law|label|alert)', NULL),
    ('regulatory_update', 'additives', '(ban|bans|banned|prohibit\w*) .{0,40}(additive|dye|colou?r)', NULL);
