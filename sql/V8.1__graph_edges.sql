-- The edges of the knowledge graph that no other table holds. PostgreSQL is the truth, the graph is built from it: every edge of the spec's
-- graph must be a row somewhere. The others already are:
--   DELEGATES_TO agents.supervisor_agent, ENTANGLED_WITH agent_pairs, WORKING_ON agents.current_task, DEPENDS_ON task_dependencies,
--   DECIDES_FOR company_decision_makers, SUPPLIES company_supplies, COMPETES_WITH company_competitors, SUBSTITUTES product_substitutes.
CREATE TABLE phoenix.agent_trust (
    agent_from uuid NOT NULL REFERENCES phoenix.agents (id) ON DELETE CASCADE,
    agent_to   uuid NOT NULL REFERENCES phoenix.agents (id) ON DELETE CASCADE,
    score      double precision NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (agent_from, agent_to),
    CONSTRAINT not_in_itself CHECK (agent_from <> agent_to),
    CONSTRAINT score_range CHECK (score BETWEEN 0 AND 1)
);
COMMENT ON TABLE phoenix.agent_trust IS '(:Agent)-[:TRUSTS {score}]->(:Agent)';
CREATE INDEX idx_agent_trust_to ON phoenix.agent_trust (agent_to);

CREATE TABLE phoenix.persona_employments (
    persona_id uuid NOT NULL REFERENCES phoenix.persona_registry (id) ON DELETE CASCADE,
    company_id uuid NOT NULL REFERENCES phoenix.food_companies (id) ON DELETE CASCADE,
    PRIMARY KEY (persona_id, company_id)
);
COMMENT ON TABLE phoenix.persona_employments IS '(:Persona)-[:WORKS_AT]->(:Company); personas.company is the name as it was found';
CREATE INDEX idx_persona_employments_company ON phoenix.persona_employments (company_id);

CREATE TABLE phoenix.persona_influences (
    persona_from uuid NOT NULL REFERENCES phoenix.persona_registry (id) ON DELETE CASCADE,
    persona_to   uuid NOT NULL REFERENCES phoenix.persona_registry (id) ON DELETE CASCADE,
    PRIMARY KEY (persona_from, persona_to),
    CONSTRAINT not_itself CHECK (persona_from <> persona_to)
);
COMMENT ON TABLE phoenix.persona_influences IS '(:Persona)-[:INFLUENCES]->(:Persona)';
CREATE INDEX idx_persona_influences_to ON phoenix.persona_influences (persona_to);

CREATE TABLE phoenix.task_company_values (
    task_id    uuid NOT NULL REFERENCES phoenix.tasks (id) ON DELETE CASCADE,
    company_id uuid NOT NULL REFERENCES phoenix.food_companies (id) ON DELETE CASCADE,
    amount     numeric(18, 2) NOT NULL,
    PRIMARY KEY (task_id, company_id)
);
COMMENT ON TABLE phoenix.task_company_values IS '(:Task)-[:GENERATES_VALUE {amount}]->(:Company), US dollars';
CREATE INDEX idx_task_company_values_company ON phoenix.task_company_values (company_id);
