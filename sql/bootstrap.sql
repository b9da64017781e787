-- What a superuser must do once in the database before the first migration, and may repeat at any time:
--   psql -X -v ON_ERROR_STOP=1 -d phoenix -f sql/bootstrap.sql
-- Needs the roles phoenix_owner, architect, samurai_agent, monitor, public_api, stream, pgbouncer, drill, graph and the extensions; makes
-- everything else that the migrations cannot make for themselves. Afterwards no migration and no job needs a superuser.

-- phoenix_board owns the few functions and views that deliberately see every task (the board, the vote counters). It is a role of its
-- own so that a function or view written as phoenix_owner stays under the caller's row security (docs/decisions/0102-agent-identity.md).
DO $$
BEGIN
    IF to_regrole('phoenix_board') IS NULL THEN
        CREATE ROLE phoenix_board NOLOGIN NOSUPERUSER NOBYPASSRLS NOINHERIT;
    END IF;
END
$$;
ALTER ROLE phoenix_board NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
-- INHERIT FALSE: the owner can act as the board on purpose (SET ROLE), and never by accident.
GRANT phoenix_board TO phoenix_owner WITH INHERIT FALSE, SET TRUE;

CREATE SCHEMA IF NOT EXISTS phoenix AUTHORIZATION phoenix_owner;
ALTER SCHEMA phoenix OWNER TO phoenix_owner;
GRANT USAGE, CREATE ON SCHEMA phoenix TO phoenix_board;
GRANT USAGE ON SCHEMA phoenix TO architect, samurai_agent, monitor, public_api, stream, graph;
REVOKE ALL ON SCHEMA phoenix FROM PUBLIC;

-- No temporary objects for agents: they share one login, and behind a pooler a temporary table left by one session
-- would stand in front of the real one for the next.
DO $$
BEGIN
    EXECUTE format('REVOKE CREATE, TEMPORARY, CONNECT ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO phoenix_owner, architect, samurai_agent, monitor, public_api, stream, drill, graph', current_database());
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO phoenix_owner', current_database());
    EXECUTE format('ALTER DATABASE %I SET search_path = phoenix, public', current_database());
END
$$;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

-- What PostgreSQL lets everybody do, and what would break a promise here: large objects are a place to write for those who may only read,
-- and so are messages in the WAL (the restore drill writes one, to wait for it); an advisory lock held by anybody would stop migrations
-- and jobs, which use them; and agents share one login, so each of them could end the others' sessions.
DO $$
DECLARE
    builtin regprocedure;
    kept_by text;
BEGIN
    FOR builtin, kept_by IN
        SELECT oid::regprocedure, CASE WHEN proname ~ '^pg_(cancel|terminate)_' THEN 'phoenix_owner, pg_signal_backend'
                                       WHEN proname ~ 'advisory' THEN 'phoenix_owner'
                                       WHEN proname = 'pg_logical_emit_message' THEN 'drill' END
        FROM pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace
          AND (proname ~ '^pg_(try_)?advisory_(xact_)?lock(_shared)?$'
               OR proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'pg_logical_emit_message', 'pg_cancel_backend', 'pg_terminate_backend'))
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', builtin);
        IF kept_by IS NOT NULL THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', builtin, kept_by);
        END IF;
    END LOOP;
END
$$;

-- A new function is nobody's to call until R__80_grants.sql says so.
ALTER DEFAULT PRIVILEGES FOR ROLE phoenix_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE phoenix_board REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- Jobs run as architect: pg_cron starts them in background workers, and PostgreSQL 16 refuses to start one for a role without LOGIN.
-- The schema is missing only where pg_cron lives in another database of the cluster (a test database).
DO $$
BEGIN
    IF to_regnamespace('cron') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA cron TO architect;
    END IF;
END
$$;

-- How a gateway looks up a login (docs/decisions/0531-login-look-up.md): PgBouncer asks for the verifier of whoever comes in, as the role
-- pgbouncer, which may call this one function. The function is phoenix_gatekeeper's, who may read these columns of pg_authid and nothing
-- else: no superuser's rights stand behind it. Whoever could do more than a client is never found, whatever its name.
DO $$
BEGIN
    IF to_regrole('phoenix_gatekeeper') IS NULL THEN
        CREATE ROLE phoenix_gatekeeper NOLOGIN;
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO pgbouncer', current_database());
END
$$;
GRANT SELECT (rolname, rolpassword, rolvaliduntil, rolcanlogin, rolsuper, rolreplication, rolbypassrls, rolcreaterole)
    ON pg_catalog.pg_authid TO phoenix_gatekeeper;
CREATE SCHEMA IF NOT EXISTS gateway AUTHORIZATION phoenix_gatekeeper;
ALTER SCHEMA gateway OWNER TO phoenix_gatekeeper;
REVOKE ALL ON SCHEMA gateway FROM PUBLIC;
GRANT USAGE ON SCHEMA gateway TO pgbouncer;
DROP FUNCTION IF EXISTS gateway.login(text);
CREATE FUNCTION gateway.login(wanted text) RETURNS TABLE (username text, verifier text)
    LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $login$
    SELECT rolname::text, CASE WHEN rolvaliduntil <= now() THEN NULL ELSE rolpassword END
    FROM pg_catalog.pg_authid
    WHERE rolname = wanted AND rolname IN ('architect', 'samurai_agent', 'monitor', 'public_api')
      AND rolcanlogin AND NOT (rolsuper OR rolreplication OR rolbypassrls OR rolcreaterole)
$login$;
ALTER FUNCTION gateway.login(text) OWNER TO phoenix_gatekeeper;
REVOKE ALL ON FUNCTION gateway.login(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION gateway.login(text) TO pgbouncer;
COMMENT ON FUNCTION gateway.login IS 'Name and verifier of a login that may come in through a gateway; no row for anybody else';
