-- Helpers of the tests, in schema tap; gone with the test's transaction. The superuser runs the tests and becomes others with run_as.

-- The first value that a statement gives when `who` logs in and runs it, as text; "ERROR <sqlstate>" when it fails. With agent and token
-- the session first acts as that agent. SESSION AUTHORIZATION and not ROLE: policies ask who logged in.
CREATE FUNCTION tap.run_as(who text, statement text, agent uuid DEFAULT NULL, token text DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    answer text;
BEGIN
    PERFORM set_config('phoenix.agent_id', '', true), set_config('phoenix.agent_token', '', true);
    EXECUTE format('SET SESSION AUTHORIZATION %I', who);
    IF agent IS NOT NULL THEN
        PERFORM phoenix.act_as(agent, token);
    END IF;
    -- RETURNING would ask for the right to read what was written.
    IF statement ~* '^\s*(select|with)\s|\sreturning\s' THEN
        EXECUTE statement INTO answer;
    ELSE
        EXECUTE statement;
    END IF;
    RESET SESSION AUTHORIZATION;
    PERFORM set_config('phoenix.agent_id', '', true), set_config('phoenix.agent_token', '', true);
    RETURN answer;
EXCEPTION WHEN OTHERS THEN
    -- The failed block took the change of session user back with it.
    RETURN 'ERROR ' || SQLSTATE;
END
$$;

CREATE TABLE tap.cast_of_agents (name text PRIMARY KEY, id uuid, token text);

-- An agent with a token, to be found by name.
CREATE FUNCTION tap.new_agent(name text, team phoenix.team DEFAULT 'iota') RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    agent uuid;
BEGIN
    INSERT INTO phoenix.agents (codename, team, role, consciousness_vector) VALUES ('tap-' || name, team, 'tester', '{}') RETURNING id INTO agent;
    INSERT INTO tap.cast_of_agents VALUES (name, agent, phoenix.issue_agent_token(agent));
    RETURN agent;
END
$$;
CREATE FUNCTION tap.id(name text) RETURNS uuid LANGUAGE sql STABLE AS $$ SELECT c.id FROM tap.cast_of_agents c WHERE c.name = id.name $$;
CREATE FUNCTION tap.token(name text) RETURNS text LANGUAGE sql STABLE AS $$ SELECT c.token FROM tap.cast_of_agents c WHERE c.name = token.name $$;
-- What an agent gets who acts with its own token.
CREATE FUNCTION tap.as_agent(name text, statement text) RETURNS text LANGUAGE sql AS $$
    SELECT tap.run_as('samurai_agent', statement, tap.id(name), tap.token(name))
$$;

CREATE FUNCTION tap.new_task(title text, creator uuid DEFAULT NULL, worker uuid DEFAULT NULL, status phoenix.task_status DEFAULT 'open') RETURNS uuid LANGUAGE sql AS $$
    INSERT INTO phoenix.tasks (title, created_by, assigned_to, status) VALUES (title, creator, worker, status) RETURNING id
$$;
CREATE FUNCTION tap.new_persona(name text, born timestamptz DEFAULT now()) RETURNS uuid LANGUAGE sql AS $$
    INSERT INTO phoenix.personas (name, company, created_at) VALUES (name, 'tap', born) RETURNING id
$$;
