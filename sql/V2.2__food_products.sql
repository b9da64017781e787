-- Products and ingredients.
CREATE TABLE phoenix.food_products (
    id                uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    company_id        uuid        NOT NULL REFERENCES phoenix.food_companies (id) ON DELETE CASCADE,

    name              text        NOT NULL,
    category          text,
    subcategory       text,

    ingredients       jsonb,
    nutritional_info  jsonb,
    allergens         text[],

    price_per_unit    numeric(18, 4),
    unit_type         text,
    market_share      double precision,

    fda_approved      boolean,
    health_claims     text[],
    regulatory_issues jsonb,

    demand_trend      text,

    created_at        timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT price_not_negative CHECK (price_per_unit >= 0),
    CONSTRAINT share_range CHECK (market_share BETWEEN 0 AND 1),
    CONSTRAINT trend_known CHECK (demand_trend IN ('growing', 'stable', 'declining'))
);
CREATE INDEX idx_products_company ON phoenix.food_products (company_id);
CREATE INDEX idx_products_category ON phoenix.food_products (category, subcategory);
CREATE INDEX idx_products_allergens ON phoenix.food_products USING gin (allergens);

-- Relations in place of the spec's arrays competitor_products (mutual) and substitutes (one way: butter for margarine need not hold back).
CREATE TABLE phoenix.product_competitors (
    product_a uuid NOT NULL REFERENCES phoenix.food_products (id) ON DELETE CASCADE,
    product_b uuid NOT NULL REFERENCES phoenix.food_products (id) ON DELETE CASCADE,
    PRIMARY KEY (product_a, product_b),
    CONSTRAINT one_row_per_pair CHECK (product_a < product_b)
);
CREATE INDEX idx_product_competitors_b ON phoenix.product_competitors (product_b);

CREATE TABLE phoenix.product_substitutes (
    product_id    uuid NOT NULL REFERENCES phoenix.food_products (id) ON DELETE CASCADE,
    substitute_id uuid NOT NULL REFERENCES phoenix.food_products (id) ON DELETE CASCADE,
    PRIMARY KEY (product_id, substitute_id),
    CONSTRAINT not_for_itself CHECK (product_id <> substitute_id)
);
CREATE INDEX idx_product_substitutes_back ON phoenix.product_substitutes (substitute_id);
