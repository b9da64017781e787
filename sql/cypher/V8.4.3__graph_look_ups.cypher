// What people look for by something else than the id.
CREATE INDEX agent_codename IF NOT EXISTS FOR (a:Agent) ON (a.codename);
CREATE INDEX company_name IF NOT EXISTS FOR (c:Company) ON (c.name);
CREATE INDEX task_status IF NOT EXISTS FOR (t:Task) ON (t.status);
