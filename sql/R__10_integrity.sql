-- What the database keeps right by itself, whoever writes: registry of personas, time stamps, task states, task ledger, dependencies.
-- Trigger functions that write other tables run as phoenix_owner (SECURITY DEFINER) with a pinned search_path.

-- ---------------------------------------------------------------------------------------------------------------- updated_at
CREATE OR REPLACE FUNCTION phoenix.touch_updated_at() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Never backwards, also when the clock of a new primary is behind.
    NEW.updated_at := greatest(now(), OLD.updated_at);
    RETURN NEW;
END
$$;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['personas', 'food_companies', 'opportunities', 'agent_trust'] LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER touch_updated_at BEFORE UPDATE ON phoenix.%I FOR EACH ROW EXECUTE FUNCTION phoenix.touch_updated_at()', name);
    END LOOP;
END
$$;

-- ---------------------------------------------------------------------------------------------------------------- personas
CREATE OR REPLACE FUNCTION phoenix.persona_fingerprint(name text, company text, role text, linkedin_url text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN encode(sha256(convert_to(concat_ws(E'\x1f', lower(btrim(name)), lower(btrim(coalesce(company, ''))),
                                              lower(btrim(coalesce(role, ''))), lower(btrim(coalesce(linkedin_url, '')))), 'UTF8')), 'hex');
COMMENT ON FUNCTION phoenix.persona_fingerprint IS 'SHA-256 in hex of name, company, role and LinkedIn address, without case and outer blanks';

CREATE OR REPLACE FUNCTION phoenix.register_persona() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.fingerprint := coalesce(NEW.fingerprint, phoenix.persona_fingerprint(NEW.name, NEW.company, NEW.role, NEW.linkedin_url));
        INSERT INTO phoenix.persona_registry (id, fingerprint, created_at) VALUES (NEW.id, NEW.fingerprint, NEW.created_at)
            ON CONFLICT (id) DO NOTHING;
        -- The very same row again is left to the primary key of personas, so that ON CONFLICT (id, created_at) works there.
        IF NOT FOUND AND NOT EXISTS (SELECT FROM phoenix.persona_registry r
                                     WHERE r.id = NEW.id AND r.created_at = NEW.created_at AND r.fingerprint = NEW.fingerprint) THEN
            RAISE unique_violation USING
                MESSAGE = format('persona %s exists already with another creation time or fingerprint', NEW.id),
                HINT = 'Update the existing persona, or insert under a new id.';
        END IF;
        RETURN NEW;
    ELSIF TG_OP = 'UPDATE' THEN
        IF NEW.id <> OLD.id OR NEW.created_at <> OLD.created_at THEN
            RAISE integrity_constraint_violation USING
                MESSAGE = format('persona %s: id and created_at never change', OLD.id),
                HINT = 'Delete the persona and insert it anew.';
        END IF;
        IF NEW.fingerprint <> OLD.fingerprint THEN
            UPDATE phoenix.persona_registry SET fingerprint = NEW.fingerprint WHERE id = NEW.id;
        END IF;
        RETURN NEW;
    ELSIF TG_OP = 'DELETE' THEN
        DELETE FROM phoenix.persona_registry WHERE id = OLD.id;
        RETURN NULL;
    ELSE
        DELETE FROM phoenix.persona_registry r WHERE NOT EXISTS (SELECT FROM phoenix.personas p WHERE p.id = r.id);
        RETURN NULL;
    END IF;
END
$$;

CREATE OR REPLACE TRIGGER register_before BEFORE INSERT OR UPDATE ON phoenix.personas
    FOR EACH ROW EXECUTE FUNCTION phoenix.register_persona();
CREATE OR REPLACE TRIGGER register_after_delete AFTER DELETE ON phoenix.personas
    FOR EACH ROW EXECUTE FUNCTION phoenix.register_persona();
CREATE OR REPLACE TRIGGER register_after_truncate AFTER TRUNCATE ON phoenix.personas
    FOR EACH STATEMENT EXECUTE FUNCTION phoenix.register_persona();

-- ---------------------------------------------------------------------------------------------------------------- opportunities
CREATE OR REPLACE FUNCTION phoenix.keep_opportunity_stage() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.stage <> OLD.stage THEN
        NEW.stage_entered_at := now();
    END IF;
    -- Without this a won deal would stay in the pipeline at the ten percent it began with.
    IF NEW.stage = 'closed_won' THEN
        NEW.probability := 1;
        NEW.close_date := coalesce(NEW.close_date, current_date);
    ELSIF NEW.stage = 'closed_lost' THEN
        NEW.probability := 0;
        NEW.close_date := coalesce(NEW.close_date, current_date);
    END IF;
    RETURN NEW;
END
$$;
CREATE OR REPLACE TRIGGER keep_stage BEFORE INSERT OR UPDATE ON phoenix.opportunities
    FOR EACH ROW EXECUTE FUNCTION phoenix.keep_opportunity_stage();

-- ---------------------------------------------------------------------------------------------------------------- tasks: state
CREATE OR REPLACE FUNCTION phoenix.keep_task_state() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.status = OLD.status AND NEW.completed_at IS NOT DISTINCT FROM OLD.completed_at THEN
        RETURN NEW;
    END IF;
    IF NEW.status IN ('claimed', 'in_progress', 'review', 'complete') THEN
        NEW.claimed_at := coalesce(NEW.claimed_at, now());
    END IF;
    IF NEW.status IN ('in_progress', 'review', 'complete') THEN
        NEW.started_at := coalesce(NEW.started_at, now());
    END IF;
    IF NEW.status = 'complete' THEN
        NEW.completed_at := coalesce(NEW.completed_at, now());
    ELSE
        NEW.completed_at := NULL;
    END IF;
    IF NEW.status = 'open' THEN
        NEW.claimed_at := NULL;
        NEW.started_at := NULL;
    END IF;
    RETURN NEW;
END
$$;
CREATE OR REPLACE TRIGGER keep_state BEFORE INSERT OR UPDATE ON phoenix.tasks
    FOR EACH ROW EXECUTE FUNCTION phoenix.keep_task_state();

-- Agents have INSERT and UPDATE on the whole table, as the spec says; which columns are theirs to write is decided here, because a grant
-- by column would also refuse the SELECT and INSERT of the row as a whole. Runs as the caller: the board's own functions pass.
CREATE OR REPLACE FUNCTION phoenix.guard_task_columns() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_user <> 'samurai_agent' THEN
        RETURN NEW;
    END IF;
    IF TG_OP = 'INSERT' THEN
        NEW.created_by := coalesce(NEW.created_by, phoenix.current_agent_id());
        -- The creation time decides the rank on the board: an agent cannot date its task into the future.
        NEW.created_at := now();
        -- keep_state, which fires next, stamps the times that the status asks for.
        NEW.claimed_at := NULL;
        NEW.started_at := NULL;
        NEW.completed_at := NULL;
        IF NEW.upvotes <> 0 OR NEW.downvotes <> 0 THEN
            RAISE insufficient_privilege USING
                MESSAGE = 'tasks: upvotes and downvotes are counted from votes and cannot be written', HINT = 'Use phoenix.vote_task().';
        END IF;
    ELSIF (NEW.id, NEW.created_at, NEW.upvotes, NEW.downvotes) IS DISTINCT FROM (OLD.id, OLD.created_at, OLD.upvotes, OLD.downvotes)
          OR NEW.created_by IS DISTINCT FROM OLD.created_by THEN
        RAISE insufficient_privilege USING
            MESSAGE = 'tasks: id, created_by, created_at, upvotes and downvotes cannot be changed by an agent', HINT = 'Use phoenix.vote_task() to vote.';
    ELSIF (NEW.claimed_at, NEW.started_at, NEW.completed_at) IS DISTINCT FROM (OLD.claimed_at, OLD.started_at, OLD.completed_at) THEN
        RAISE insufficient_privilege USING
            MESSAGE = 'tasks: claimed_at, started_at and completed_at are stamped by the database', HINT = 'Change the status.';
    END IF;
    RETURN NEW;
END
$$;
CREATE OR REPLACE TRIGGER guard_columns BEFORE INSERT OR UPDATE ON phoenix.tasks
    FOR EACH ROW EXECUTE FUNCTION phoenix.guard_task_columns();

-- ---------------------------------------------------------------------------------------------------------------- tasks: ledger
CREATE OR REPLACE FUNCTION phoenix.write_task_ledger() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO phoenix.task_ledger (created, completed, failed, now_open, now_claimed, now_in_progress, now_review, now_complete, now_failed)
        SELECT count(*), count(*) FILTER (WHERE status = 'complete'), count(*) FILTER (WHERE status = 'failed'),
               count(*) FILTER (WHERE status = 'open'), count(*) FILTER (WHERE status = 'claimed'),
               count(*) FILTER (WHERE status = 'in_progress'), count(*) FILTER (WHERE status = 'review'),
               count(*) FILTER (WHERE status = 'complete'), count(*) FILTER (WHERE status = 'failed')
        FROM new_rows HAVING count(*) > 0;
        UPDATE phoenix.agents a SET tasks_completed = a.tasks_completed + d.n
        FROM (SELECT assigned_to, count(*) AS n FROM new_rows WHERE status = 'complete' AND assigned_to IS NOT NULL GROUP BY assigned_to) d
        WHERE a.id = d.assigned_to;
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO phoenix.task_ledger (completed, failed, now_open, now_claimed, now_in_progress, now_review, now_complete, now_failed)
        SELECT count(*) FILTER (WHERE n.status = 'complete'), count(*) FILTER (WHERE n.status = 'failed'),
               count(*) FILTER (WHERE n.status = 'open') - count(*) FILTER (WHERE o.status = 'open'),
               count(*) FILTER (WHERE n.status = 'claimed') - count(*) FILTER (WHERE o.status = 'claimed'),
               count(*) FILTER (WHERE n.status = 'in_progress') - count(*) FILTER (WHERE o.status = 'in_progress'),
               count(*) FILTER (WHERE n.status = 'review') - count(*) FILTER (WHERE o.status = 'review'),
               count(*) FILTER (WHERE n.status = 'complete') - count(*) FILTER (WHERE o.status = 'complete'),
               count(*) FILTER (WHERE n.status = 'failed') - count(*) FILTER (WHERE o.status = 'failed')
        FROM new_rows n JOIN old_rows o USING (id) WHERE n.status <> o.status HAVING count(*) > 0;
        UPDATE phoenix.agents a SET tasks_completed = a.tasks_completed + d.n
        FROM (SELECT n.assigned_to, count(*) AS n FROM new_rows n JOIN old_rows o USING (id)
              WHERE n.status = 'complete' AND o.status <> 'complete' AND n.assigned_to IS NOT NULL GROUP BY n.assigned_to) d
        WHERE a.id = d.assigned_to;
    ELSIF TG_OP = 'DELETE' THEN
        -- created, completed and failed stay: a counter that falls looks like a restart to Prometheus.
        INSERT INTO phoenix.task_ledger (now_open, now_claimed, now_in_progress, now_review, now_complete, now_failed)
        SELECT -count(*) FILTER (WHERE status = 'open'), -count(*) FILTER (WHERE status = 'claimed'),
               -count(*) FILTER (WHERE status = 'in_progress'), -count(*) FILTER (WHERE status = 'review'),
               -count(*) FILTER (WHERE status = 'complete'), -count(*) FILTER (WHERE status = 'failed')
        FROM old_rows HAVING count(*) > 0;
    ELSE
        INSERT INTO phoenix.task_ledger (now_open, now_claimed, now_in_progress, now_review, now_complete, now_failed)
        SELECT -sum(now_open), -sum(now_claimed), -sum(now_in_progress), -sum(now_review), -sum(now_complete), -sum(now_failed)
        FROM phoenix.task_ledger HAVING count(*) > 0;
    END IF;
    RETURN NULL;
END
$$;
CREATE OR REPLACE TRIGGER ledger_insert AFTER INSERT ON phoenix.tasks
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION phoenix.write_task_ledger();
CREATE OR REPLACE TRIGGER ledger_update AFTER UPDATE ON phoenix.tasks
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION phoenix.write_task_ledger();
CREATE OR REPLACE TRIGGER ledger_delete AFTER DELETE ON phoenix.tasks
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION phoenix.write_task_ledger();
CREATE OR REPLACE TRIGGER ledger_truncate AFTER TRUNCATE ON phoenix.tasks
    FOR EACH STATEMENT EXECUTE FUNCTION phoenix.write_task_ledger();

-- Two folds at once are harmless: the second waits for the first one's row locks, finds those rows gone and folds nothing.
CREATE OR REPLACE FUNCTION phoenix.fold_task_ledger() RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH folded AS (DELETE FROM phoenix.task_ledger RETURNING *)
    INSERT INTO phoenix.task_ledger (created, completed, failed, now_open, now_claimed, now_in_progress, now_review, now_complete, now_failed)
    SELECT sum(created), sum(completed), sum(failed), sum(now_open), sum(now_claimed), sum(now_in_progress), sum(now_review), sum(now_complete), sum(now_failed)
    FROM folded HAVING count(*) > 0
$$;

-- ---------------------------------------------------------------------------------------------------------------- tasks: dependencies
CREATE OR REPLACE FUNCTION phoenix.refuse_dependency_circle() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- One writer at a time, or two transactions could each add one half of a circle that neither sees.
    PERFORM pg_advisory_xact_lock(hashtextextended('phoenix.task_dependencies', 0));
    IF EXISTS (WITH RECURSIVE needed(id) AS (
                   SELECT NEW.depends_on
                   UNION
                   SELECT d.depends_on FROM phoenix.task_dependencies d JOIN needed n ON d.task_id = n.id)
               SELECT FROM needed WHERE id = NEW.task_id) THEN
        RAISE integrity_constraint_violation USING
            MESSAGE = format('task %s cannot depend on %s: that task already waits for it', NEW.task_id, NEW.depends_on),
            HINT = 'Remove the dependency in the other direction first.';
    END IF;
    RETURN NULL;
END
$$;
CREATE OR REPLACE TRIGGER refuse_circle AFTER INSERT OR UPDATE ON phoenix.task_dependencies
    FOR EACH ROW EXECUTE FUNCTION phoenix.refuse_dependency_circle();

-- ---------------------------------------------------------------------------------------------------------------- comments
CREATE OR REPLACE FUNCTION phoenix.mark_comment_edited() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.edited_at := now();
    RETURN NEW;
END
$$;
CREATE OR REPLACE TRIGGER mark_edited BEFORE UPDATE ON phoenix.task_comments
    FOR EACH ROW WHEN (OLD.content IS DISTINCT FROM NEW.content OR OLD.attachments IS DISTINCT FROM NEW.attachments)
    EXECUTE FUNCTION phoenix.mark_comment_edited();

-- ---------------------------------------------------------------------------------------------------------------- consciousness
-- The newest row is what the dashboard and the metrics show. One row from the future would be the newest for good, and rows spread over the
-- centuries would make a chunk for each week.
CREATE OR REPLACE FUNCTION phoenix.guard_consciousness_time() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW."time" NOT BETWEEN now() - INTERVAL '7 days' AND clock_timestamp() + INTERVAL '1 minute' THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('consciousness_timeline: an agent cannot write the time %s', NEW."time"), HINT = 'Write what was measured within the last 7 days.';
    END IF;
    RETURN NEW;
END
$$;
CREATE OR REPLACE TRIGGER guard_time BEFORE INSERT ON phoenix.consciousness_timeline
    FOR EACH ROW WHEN (current_user = 'samurai_agent') EXECUTE FUNCTION phoenix.guard_consciousness_time();
