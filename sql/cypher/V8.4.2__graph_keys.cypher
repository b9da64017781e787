// What events and rebuilds find nodes by, also those that are not there yet or any more (services/phoenix_stream/graph.py).
CREATE CONSTRAINT agent_key IF NOT EXISTS FOR (a:AgentId) REQUIRE a.id IS UNIQUE;
CREATE CONSTRAINT persona_key IF NOT EXISTS FOR (p:PersonaId) REQUIRE p.id IS UNIQUE;
CREATE CONSTRAINT company_key IF NOT EXISTS FOR (c:CompanyId) REQUIRE c.id IS UNIQUE;
CREATE CONSTRAINT task_key IF NOT EXISTS FOR (t:TaskId) REQUIRE t.id IS UNIQUE;
CREATE CONSTRAINT product_key IF NOT EXISTS FOR (p:ProductId) REQUIRE p.id IS UNIQUE;
// Edges that are gone, and by age what may be forgotten.
CREATE CONSTRAINT gone_key IF NOT EXISTS FOR (g:Gone) REQUIRE g.key IS UNIQUE;
CREATE INDEX gone_at IF NOT EXISTS FOR (g:Gone) ON (g.at);
CREATE INDEX agent_at IF NOT EXISTS FOR (a:AgentId) ON (a.at);
CREATE INDEX persona_at IF NOT EXISTS FOR (p:PersonaId) ON (p.at);
CREATE INDEX company_at IF NOT EXISTS FOR (c:CompanyId) ON (c.at);
CREATE INDEX task_at IF NOT EXISTS FOR (t:TaskId) ON (t.at);
CREATE INDEX product_at IF NOT EXISTS FOR (p:ProductId) ON (p.at);
