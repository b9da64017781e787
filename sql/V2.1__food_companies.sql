-- Companies of the food industry and how they hang together.
CREATE TABLE phoenix.food_companies (
    id                    uuid        PRIMARY KEY DEFAULT gen_random_uuid(),

    name                  text        NOT NULL,
    website               text,
    -- The spec says "PostGIS", which is not among its extensions; its type is PostgreSQL's own point: (longitude, latitude) in degrees.
    headquarters_location point,

    sector                text[],
    product_categories    text[],
    certifications        text[],

    annual_revenue        numeric(18, 2),
    employee_count        integer,
    market_cap            numeric(18, 2),
    growth_rate           double precision,

    pain_points           jsonb,
    technology_stack      text[],
    procurement_cycle     text,
    budget_season         text,

    approach_vector       jsonb,
    priority_score        double precision,
    pipeline_value        numeric(18, 2),
    close_probability     numeric(5, 4),

    last_enriched         timestamptz,
    data_quality_score    double precision,
    source_reliability    text,

    created_at            timestamptz NOT NULL DEFAULT now(),
    updated_at            timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT location_on_earth CHECK (headquarters_location[0] BETWEEN -180 AND 180 AND headquarters_location[1] BETWEEN -90 AND 90),
    CONSTRAINT counts_not_negative CHECK (annual_revenue >= 0 AND employee_count >= 0 AND market_cap >= 0 AND pipeline_value >= 0),
    CONSTRAINT priority_range CHECK (priority_score BETWEEN 0 AND 100),
    CONSTRAINT close_range CHECK (close_probability BETWEEN 0 AND 1),
    CONSTRAINT quality_range CHECK (data_quality_score BETWEEN 0 AND 1)
);
COMMENT ON COLUMN phoenix.food_companies.growth_rate IS 'Year on year, in percent; negative when shrinking';
COMMENT ON COLUMN phoenix.food_companies.data_quality_score IS '0 to 1';
CREATE INDEX idx_companies_name ON phoenix.food_companies (lower(name));
CREATE INDEX idx_companies_priority ON phoenix.food_companies (priority_score DESC NULLS LAST);
CREATE INDEX idx_companies_location ON phoenix.food_companies USING gist (headquarters_location);
CREATE INDEX idx_companies_sector ON phoenix.food_companies USING gin (sector);

-- The spec's suppliers and customers are one relation told twice in arrays; competitors are mutual. No array can be a foreign key.
CREATE TABLE phoenix.company_supplies (
    supplier_id uuid NOT NULL REFERENCES phoenix.food_companies (id) ON DELETE CASCADE,
    customer_id uuid NOT NULL REFERENCES phoenix.food_companies (id) ON DELETE CASCADE,
    goods       text[],
    PRIMARY KEY (supplier_id, customer_id),
    CONSTRAINT not_to_itself CHECK (supplier_id <> customer_id)
);
CREATE INDEX idx_company_supplies_customer ON phoenix.company_supplies (customer_id);

CREATE TABLE phoenix.company_competitors (
    company_a uuid NOT NULL REFERENCES phoenix.food_companies (id) ON DELETE CASCADE,
    company_b uuid NOT NULL REFERENCES phoenix.food_companies (id) ON DELETE CASCADE,
    PRIMARY KEY (company_a, company_b),
    CONSTRAINT one_row_per_pair CHECK (company_a < company_b)
);
CREATE INDEX idx_company_competitors_b ON phoenix.company_competitors (company_b);

-- The spec's decision_makers JSONB[] "links to personas" without being able to hold the link.
CREATE TABLE phoenix.company_decision_makers (
    company_id uuid NOT NULL REFERENCES phoenix.food_companies (id) ON DELETE CASCADE,
    persona_id uuid NOT NULL REFERENCES phoenix.persona_registry (id) ON DELETE CASCADE,
    authority  text NOT NULL,
    details    jsonb,
    PRIMARY KEY (company_id, persona_id, authority)
);
COMMENT ON COLUMN phoenix.company_decision_makers.authority IS 'What the persona decides: budget, technical, legal, …';
CREATE INDEX idx_decision_makers_persona ON phoenix.company_decision_makers (persona_id);
