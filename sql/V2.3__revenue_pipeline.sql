-- Opportunities and forecasts. The spec names no phase for them: they need companies and personas (phases 1 and 2) and nothing later,
-- and the dashboard and the pipeline metric need them from the first day.
CREATE TYPE phoenix.opportunity_stage AS ENUM ('prospecting', 'qualification', 'proposal', 'negotiation', 'closed_won', 'closed_lost');

CREATE TABLE phoenix.opportunities (
    id                  uuid        PRIMARY KEY DEFAULT gen_random_uuid(),

    name                text        NOT NULL,
    company_id          uuid        REFERENCES phoenix.food_companies (id),
    -- personas is partitioned and cannot be referenced by id alone; its registry can, and a persona in use cannot be deleted.
    contact_persona_id  uuid        REFERENCES phoenix.persona_registry (id),

    stage               phoenix.opportunity_stage NOT NULL DEFAULT 'prospecting',
    -- Replaces the spec's stored days_in_stage, which would be wrong the day after; view opportunity_board computes it.
    stage_entered_at    timestamptz NOT NULL DEFAULT now(),

    value               numeric(18, 2) NOT NULL,
    -- A closed opportunity is certain: the database sets 1 when it is won and 0 when it is lost (R__10_integrity.sql).
    probability         numeric(5, 4)  NOT NULL DEFAULT 0.1,
    weighted_value      numeric GENERATED ALWAYS AS (value * probability) STORED,

    created_date        date        NOT NULL DEFAULT CURRENT_DATE,
    close_date          date,
    velocity_score      double precision,

    owner_agent         uuid        REFERENCES phoenix.agents (id),

    competitor_analysis jsonb,
    decision_criteria   jsonb,
    blockers            text[],
    next_steps          text,

    source              text,
    campaign            text,

    updated_at          timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT value_not_negative CHECK (value >= 0),
    CONSTRAINT probability_range CHECK (probability BETWEEN 0 AND 1)
);
COMMENT ON COLUMN phoenix.opportunities.source IS 'inbound, outbound, referral or specter';
CREATE INDEX idx_opportunities_stage ON phoenix.opportunities (stage) INCLUDE (value, weighted_value);
CREATE INDEX idx_opportunities_company ON phoenix.opportunities (company_id);
CREATE INDEX idx_opportunities_contact ON phoenix.opportunities (contact_persona_id);
CREATE INDEX idx_opportunities_owner ON phoenix.opportunities (owner_agent);

-- The spec's support_agents UUID[] as a relation.
CREATE TABLE phoenix.opportunity_support_agents (
    opportunity_id uuid NOT NULL REFERENCES phoenix.opportunities (id) ON DELETE CASCADE,
    agent_id       uuid NOT NULL REFERENCES phoenix.agents (id) ON DELETE CASCADE,
    PRIMARY KEY (opportunity_id, agent_id)
);
CREATE INDEX idx_opportunity_support_agent ON phoenix.opportunity_support_agents (agent_id);

CREATE TABLE phoenix.revenue_forecast (
    id                  uuid        PRIMARY KEY DEFAULT gen_random_uuid(),

    period_start        date        NOT NULL,
    period_end          date        NOT NULL,

    base_case           numeric(18, 2),
    best_case           numeric(18, 2),
    worst_case          numeric(18, 2),
    ml_prediction       numeric(18, 2),

    actual_revenue      numeric(18, 2),

    confidence_interval jsonb,
    model_accuracy      double precision,

    created_at          timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT period_forward CHECK (period_end > period_start),
    CONSTRAINT cases_ordered CHECK (worst_case <= base_case AND base_case <= best_case),
    CONSTRAINT accuracy_range CHECK (model_accuracy BETWEEN 0 AND 1)
);
CREATE INDEX idx_forecast_period ON phoenix.revenue_forecast (period_start, period_end, created_at DESC);
