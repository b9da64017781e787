-- Who the calling agent is (docs/decisions/0102-agent-identity.md). All agents log in as samurai_agent, and any of them can SET
-- phoenix.agent_id to whatever it likes: the setting is only a claim. The token beside it is the proof, and it is checked in every statement.

CREATE OR REPLACE FUNCTION phoenix.current_agent_id() RETURNS uuid
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    claimed text := current_setting('phoenix.agent_id', true);
    token   text := current_setting('phoenix.agent_token', true);
    proven  uuid;
BEGIN
    -- Unset (null before, empty after a transaction that set it) is nobody, and so is anything that is no uuid: compared as text,
    -- a malformed claim cannot raise an error.
    IF coalesce(claimed, '') = '' OR coalesce(token, '') = '' THEN
        RETURN NULL;
    END IF;
    SELECT c.agent_id INTO proven
    FROM phoenix.agent_credentials c JOIN phoenix.agents a ON a.id = c.agent_id
    WHERE c.token_sha256 = sha256(convert_to(token, 'UTF8'))
      AND c.agent_id::text = lower(claimed)
      AND c.revoked_at IS NULL
      AND c.expires_at > statement_timestamp()
      AND a.decommissioned_at IS NULL;
    RETURN proven;
END
$$;
COMMENT ON FUNCTION phoenix.current_agent_id IS 'The agent whose id and token this transaction has set, or null. In policies: (SELECT phoenix.current_agent_id()), evaluated once per statement';

CREATE OR REPLACE FUNCTION phoenix.act_as(agent uuid, token text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Local to the transaction: behind a pooler the next client of this connection starts as nobody.
    PERFORM set_config('phoenix.agent_id', coalesce(agent::text, ''), true), set_config('phoenix.agent_token', coalesce(token, ''), true);
    IF phoenix.current_agent_id() IS NOT NULL THEN
        RETURN true;
    END IF;
    PERFORM set_config('phoenix.agent_id', '', true), set_config('phoenix.agent_token', '', true);
    RETURN false;
END
$$;
COMMENT ON FUNCTION phoenix.act_as IS 'Makes this transaction the agent''s; false, and nobody, when the token is not the agent''s. Pass both as bound parameters: other sessions of the shared login can read statement texts';

CREATE OR REPLACE FUNCTION phoenix.issue_agent_token(agent uuid, valid_for interval DEFAULT '90 days') RETURNS text
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- 32 bytes of the server's strong random source.
    token text := encode(public.gen_random_bytes(32), 'hex');
BEGIN
    INSERT INTO phoenix.agent_credentials (token_sha256, agent_id, expires_at)
    VALUES (sha256(convert_to(token, 'UTF8')), agent, now() + valid_for);
    RETURN token;
END
$$;
COMMENT ON FUNCTION phoenix.issue_agent_token IS 'A new token for the agent, shown this once; earlier ones stay valid until they expire or are revoked';

CREATE OR REPLACE FUNCTION phoenix.revoke_agent_tokens(agent uuid) RETURNS integer
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH revoked AS (UPDATE phoenix.agent_credentials SET revoked_at = now() WHERE agent_id = agent AND revoked_at IS NULL RETURNING 1)
    SELECT count(*)::integer FROM revoked
$$;
COMMENT ON FUNCTION phoenix.revoke_agent_tokens IS 'Ends every token of the agent at once, also in transactions under way; returns how many';
