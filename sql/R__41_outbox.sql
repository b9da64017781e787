-- Change events: who writes them, and what is in them (docs/change-events.md; each has its JSON schema in schemas/).
-- Everything here runs as phoenix_owner (SECURITY DEFINER), whoever changes a row: the outbox is nobody's to write. Rows that arrive by
-- logical replication fire no trigger: a copy in a second region sends nothing.

-- ---------------------------------------------------------------------------------------------------------------- the envelope
CREATE OR REPLACE FUNCTION phoenix.rfc3339(moment timestamptz) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    -- Infinity and years of five digits have no such form.
    RETURN CASE WHEN moment >= '0001-01-01 00:00:00+00' AND moment < '10000-01-01 00:00:00+00'
                THEN to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') END;
COMMENT ON FUNCTION phoenix.rfc3339 IS 'UTC with microseconds, as in 2026-11-25T04:00:00.000000Z; null for what has no such form';

CREATE OR REPLACE FUNCTION phoenix.finite(number double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN number > '-Infinity' AND number < 'Infinity' THEN number END;
COMMENT ON FUNCTION phoenix.finite IS 'Null in place of NaN and infinity, which JSON does not have';

-- Neither SECURITY DEFINER nor with a search_path of its own: only the owner's functions may call it, which have both, and setting them once
-- more costs each event as much as making it. What a CHECK would say is said here, because a CHECK is parsed anew for each single row.
CREATE OR REPLACE FUNCTION phoenix.emit(type text, aggregatetype text, aggregateid text, data jsonb, version integer DEFAULT 1) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY INVOKER AS $$
DECLARE
    next_seq CONSTANT bigint      := nextval('phoenix.outbox_seq_seq');
    event_id CONSTANT uuid        := gen_random_uuid();
    moment   CONSTANT timestamptz := clock_timestamp();
BEGIN
    -- An event goes to a topic that there is, or is refused where it is written: Kafka would make everything behind it wait for the topic.
    IF (type = ANY ('{task.created,task.completed,persona.enriched,hormone.cascade,graph.changed}'::text[])) IS NOT TRUE THEN
        RAISE check_violation USING
            MESSAGE = format('there is no topic %L for an event', type), HINT = 'Another topic is an entry in kafka_topics, and one in phoenix.emit().';
    END IF;
    IF aggregateid = '' THEN
        RAISE check_violation USING MESSAGE = format('event %s has an empty key', type), HINT = 'The key is the id of what the event is about.';
    END IF;
    -- A message that Kafka refuses for its size would stop everything behind it for good.
    IF pg_column_size(data) > 262144 THEN
        RAISE program_limit_exceeded USING
            MESSAGE = format('event %s of %s %s has %s bytes of data; 262144 is the most', type, aggregatetype, aggregateid, pg_column_size(data)),
            HINT = 'Put an id into the event in place of the content, and let consumers ask for it.';
    END IF;
    INSERT INTO phoenix.outbox (seq, id, aggregatetype, aggregateid, type, payload, created_at) OVERRIDING SYSTEM VALUE
    VALUES (next_seq, event_id, emit.aggregatetype, emit.aggregateid, emit.type,
            jsonb_build_object('event', emit.type, 'version', emit.version, 'id', event_id, 'seq', next_seq,
                               'occurred_at', phoenix.rfc3339(moment), 'data', emit.data), moment);
    RETURN next_seq;
END
$$;
COMMENT ON FUNCTION phoenix.emit IS 'Writes an event to the outbox and returns its seq. Call it while the aggregate''s row is locked: in an AFTER trigger it is. type is the topic, aggregateid the key';

-- ---------------------------------------------------------------------------------------------------------------- tasks
-- Texts are cut: title and category have no limit, a message has.
CREATE OR REPLACE FUNCTION phoenix.task_completion(task phoenix.tasks) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'id', task.id, 'title', left(task.title, 500), 'category', left(task.category, 200),
        'created_by', task.created_by, 'assigned_to', task.assigned_to, 'team_assignment', task.team_assignment,
        'fibonacci_size', task.fibonacci_size, 'quality_score', task.quality_score, 'value_delivered', task.value_delivered,
        'dopamine_reward', phoenix.finite(task.dopamine_reward), 'created_at', phoenix.rfc3339(task.created_at),
        'claimed_at', phoenix.rfc3339(task.claimed_at), 'started_at', phoenix.rfc3339(task.started_at),
        'completed_at', phoenix.rfc3339(task.completed_at))
$$;

-- Once per statement: a bulk load costs one pass over its rows.
CREATE OR REPLACE FUNCTION phoenix.task_created() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM phoenix.emit('task.created', 'task', n.id::text, jsonb_build_object(
        'id', n.id, 'title', left(n.title, 500), 'category', left(n.category, 200), 'priority', n.priority, 'status', n.status,
        'created_by', n.created_by, 'assigned_to', n.assigned_to, 'team_assignment', n.team_assignment,
        'fibonacci_size', n.fibonacci_size, 'dopamine_reward', phoenix.finite(n.dopamine_reward),
        'created_at', phoenix.rfc3339(n.created_at), 'deadline', phoenix.rfc3339(n.deadline)))
    FROM new_rows n;
    -- A task may come in complete, from an import.
    PERFORM phoenix.emit('task.completed', 'task', n.id::text, phoenix.task_completion(n)) FROM new_rows n WHERE n.status = 'complete';
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION phoenix.task_completed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM phoenix.emit('task.completed', 'task', NEW.id::text, phoenix.task_completion(NEW));
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER outbox_created AFTER INSERT ON phoenix.tasks
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION phoenix.task_created();
-- Tasks are updated all day and completed once: a condition here costs the other updates nothing.
CREATE OR REPLACE TRIGGER outbox_completed AFTER UPDATE ON phoenix.tasks
    FOR EACH ROW WHEN (NEW.status = 'complete' AND OLD.status <> 'complete') EXECUTE FUNCTION phoenix.task_completed();

-- ---------------------------------------------------------------------------------------------------------------- personas
-- Enriched is a persona when one of these columns gets another value, or when it comes in with one. Names, addresses and the profile of a
-- character are personal: the event names the columns that changed and holds the figures of the company; who may read more asks for it.
-- Row by row, because a transition table would hold every embedding of a bulk load (9 kB each) a second time.
DO $do$
DECLARE
    embedded CONSTANT boolean := EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'phoenix.personas'::regclass AND attname = 'semantic_embedding');
    plain    CONSTANT text[]  := ARRAY['company_revenue', 'employee_count', 'technologies_used', 'pain_points', 'mbti_type', 'sdi_color', 'big_five',
                                       'communication_style', 'decision_patterns'];
    vectors  CONSTANT text[]  := CASE WHEN embedded THEN ARRAY['semantic_embedding', 'behavioral_embedding'] ELSE '{}' END;
    differs  text;
    named    text;
BEGIN
    -- The operator of an extension is named with its schema: the function's search_path has none but PostgreSQL's own.
    SELECT string_agg(c, ' OR ' ORDER BY o), string_agg(format('CASE WHEN %s THEN %L END', c, name), ', ' ORDER BY o) INTO differs, named
    FROM (SELECT name, 1 AS o, format('NEW.%1$I IS DISTINCT FROM OLD.%1$I', name) AS c FROM unnest(plain) name
          UNION ALL
          SELECT name, 2, format('(NEW.%1$I IS NULL) <> (OLD.%1$I IS NULL) OR (NEW.%1$I OPERATOR(public.<>) OLD.%1$I) IS TRUE', name) FROM unnest(vectors) name) d;
    EXECUTE format($f$
        CREATE OR REPLACE FUNCTION phoenix.persona_enriched() RETURNS trigger
            LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        DECLARE
            changed text[];
        BEGIN
            IF TG_OP = 'INSERT' THEN
                changed := array_remove(ARRAY[%1$s], NULL);
            ELSE
                changed := array_remove(ARRAY[%2$s], NULL);
            END IF;
            PERFORM phoenix.emit('persona.enriched', 'persona', NEW.id::text, jsonb_build_object(
                'id', NEW.id, 'changed', to_jsonb(changed), 'industry', left(NEW.industry, 200), 'source', left(NEW.source, 200),
                'company_revenue', NEW.company_revenue, 'employee_count', NEW.employee_count, 'technologies_used', to_jsonb(NEW.technologies_used),
                'semantic_embedding', %3$s, 'behavioral_embedding', %4$s, 'updated_at', phoenix.rfc3339(NEW.updated_at)));
            RETURN NULL;
        END
        $$
        $f$,
        (SELECT string_agg(format('CASE WHEN NEW.%1$I IS NOT NULL THEN %1$L END', c), ', ') FROM unnest(plain || vectors) c), named,
        CASE WHEN embedded THEN 'NEW.semantic_embedding IS NOT NULL' ELSE 'false' END,
        CASE WHEN embedded THEN 'NEW.behavioral_embedding IS NOT NULL' ELSE 'false' END);
    EXECUTE format('CREATE OR REPLACE TRIGGER outbox_arrived AFTER INSERT ON phoenix.personas
                    FOR EACH ROW WHEN (num_nonnulls(%s) > 0) EXECUTE FUNCTION phoenix.persona_enriched()',
                   (SELECT string_agg(format('NEW.%I', c), ', ') FROM unnest(plain || vectors) c));
    -- UPDATE OF: what writes none of these columns does not even have its embeddings compared.
    EXECUTE format('CREATE OR REPLACE TRIGGER outbox_enriched AFTER UPDATE OF %s ON phoenix.personas
                    FOR EACH ROW WHEN (%s) EXECUTE FUNCTION phoenix.persona_enriched()',
                   (SELECT string_agg(quote_ident(c), ', ') FROM unnest(plain || vectors) c), differs);
END
$do$;

-- ---------------------------------------------------------------------------------------------------------------- hormones
CREATE OR REPLACE FUNCTION phoenix.hormone_or_rest(level jsonb, at_rest jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN jsonb_typeof(level) IS DISTINCT FROM 'number' THEN at_rest
                WHEN abs(level::numeric) < 1000000 THEN level ELSE at_rest END;

CREATE OR REPLACE FUNCTION phoenix.hormones(levels jsonb) RETURNS jsonb
    -- Not IMMUTABLE, because jsonb_build_object is not: a function that says more than it can is planned anew at each call.
    LANGUAGE sql STABLE PARALLEL SAFE
    -- What is missing, no number, or one that no consumer could hold counts as at rest: the default of the column.
    RETURN jsonb_build_object('dopamine', phoenix.hormone_or_rest(levels -> 'dopamine', '1.0'), 'oxytocin', phoenix.hormone_or_rest(levels -> 'oxytocin', '1.0'),
                              'adrenaline', phoenix.hormone_or_rest(levels -> 'adrenaline', '1.0'), 'cortisol', phoenix.hormone_or_rest(levels -> 'cortisol', '0.3'));
COMMENT ON FUNCTION phoenix.hormones IS 'The four levels of agents.hormone_levels, complete and as numbers: what events carry and what Redis has to hold';

CREATE OR REPLACE FUNCTION phoenix.hormone_levels_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- Set by cascade_hormone() around its statement. Levels written without a cascade belong to none: hormone and intensity are null.
    cascade jsonb := nullif(current_setting('phoenix.hormone_cascade', true), '');
    sent    bigint;
BEGIN
    -- An assignment and no PERFORM: an expression costs a third of a statement.
    sent := phoenix.emit('hormone.cascade', 'agent', NEW.id::text, jsonb_build_object(
        'agent_id', NEW.id, 'levels', phoenix.hormones(NEW.hormone_levels), 'hormone', cascade -> 'hormone', 'intensity', cascade -> 'intensity',
        'cascade_id', coalesce(cascade ->> 'cascade_id', gen_random_uuid()::text)));
    RETURN NULL;
END
$$;
-- An agent's first levels are a change as well: Redis has to hold every agent's. Heartbeats, which update agents all day, write no levels.
CREATE OR REPLACE TRIGGER outbox_hormones_arrived AFTER INSERT ON phoenix.agents
    FOR EACH ROW EXECUTE FUNCTION phoenix.hormone_levels_changed();
CREATE OR REPLACE TRIGGER outbox_hormones AFTER UPDATE OF hormone_levels ON phoenix.agents
    FOR EACH ROW WHEN (NEW.hormone_levels IS DISTINCT FROM OLD.hormone_levels) EXECUTE FUNCTION phoenix.hormone_levels_changed();

CREATE OR REPLACE FUNCTION phoenix.cascade_hormone(hormone text, intensity double precision, team phoenix.team DEFAULT NULL) RETURNS integer
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    lowest  CONSTANT double precision := 0;
    highest CONSTANT double precision := 2;
    changed integer;
BEGIN
    IF NOT pg_has_role(session_user, 'phoenix_owner', 'MEMBER') AND phoenix.current_agent_id() IS NULL THEN
        RAISE insufficient_privilege USING
            MESSAGE = 'no agent is acting in this transaction', HINT = 'Call phoenix.act_as(agent, token) first, in the same transaction.';
    END IF;
    IF hormone IS NULL OR hormone NOT IN ('dopamine', 'oxytocin', 'adrenaline', 'cortisol') THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('hormone %L is not known', hormone), HINT = 'dopamine, oxytocin, adrenaline or cortisol.';
    END IF;
    IF intensity IS NULL OR NOT intensity BETWEEN -highest AND highest THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('intensity %s is out of range', coalesce(intensity::text, 'null')), HINT = format('Give -%s to %s.', highest, highest);
    END IF;
    PERFORM set_config('phoenix.hormone_cascade', jsonb_build_object(
        'hormone', hormone, 'intensity', intensity, 'cascade_id', gen_random_uuid())::text, true);
    -- Locked in order, so that two cascades at once wait for each other and do not deadlock.
    PERFORM FROM phoenix.agents a
    WHERE a.decommissioned_at IS NULL AND (cascade_hormone.team IS NULL OR a.team = cascade_hormone.team) ORDER BY a.id FOR NO KEY UPDATE;
    UPDATE phoenix.agents a
    SET hormone_levels = a.hormone_levels || c.levels || jsonb_build_object(hormone, c.after)
    FROM (SELECT l.id, l.levels, l.before,
                 trim_scale(round(greatest(lowest, least(highest, l.before::double precision + intensity))::numeric, 6)) AS after
          FROM (SELECT b.id, h.levels, (h.levels ->> hormone)::numeric AS before
                FROM phoenix.agents b CROSS JOIN LATERAL (SELECT phoenix.hormones(b.hormone_levels) AS levels OFFSET 0) h
                WHERE b.decommissioned_at IS NULL AND (cascade_hormone.team IS NULL OR b.team = cascade_hormone.team)) l) c
    WHERE c.id = a.id AND c.after <> c.before;
    GET DIAGNOSTICS changed = ROW_COUNT;
    PERFORM set_config('phoenix.hormone_cascade', '', true);
    RETURN changed;
END
$$;
COMMENT ON FUNCTION phoenix.cascade_hormone IS 'Adds intensity to one hormone of every active agent (of a team), kept between 0 and 2; returns how many changed, each of which is an event';

-- ---------------------------------------------------------------------------------------------------------------- how it goes
-- The job purge-outbox calls this hourly. Delivered rows are not asked for: Debezium reads the WAL, so a row may go before it was delivered.
CREATE OR REPLACE FUNCTION phoenix.purge_outbox(keep interval DEFAULT NULL) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    purged bigint;
BEGIN
    DELETE FROM phoenix.outbox
    WHERE created_at < now() - coalesce(keep, nullif(current_setting('phoenix.outbox_keep', true), '')::interval, INTERVAL '7 days');
    GET DIAGNOSTICS purged = ROW_COUNT;
    RETURN purged;
END
$$;
COMMENT ON FUNCTION phoenix.purge_outbox IS 'Deletes rows older than keep, by default the setting phoenix.outbox_keep of the database (7 days without it); returns how many';

-- One row, also where there is no connector. A row is delivered when the slot has confirmed a later place in the WAL; the newest confirmation
-- is up to a second old. Without a slot nothing can be said: undelivered is null.
CREATE OR REPLACE VIEW phoenix.metrics_outbox WITH (security_invoker = true) AS
    SELECT n.newest AS newest_seq, s.slot_name IS NOT NULL AS slot_present, coalesce(s.active, false) AS slot_active,
           s.wal_status, s.safe_wal_size, pg_wal_lsn_diff(w.lsn, s.confirmed_flush_lsn) AS lag_bytes, u.undelivered,
           CASE WHEN u.undelivered = 0 THEN 0 ELSE extract(epoch FROM clock_timestamp() - u.oldest) END AS oldest_undelivered_seconds
    FROM (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS lsn) w
    CROSS JOIN (SELECT coalesce(max(seq), 0) AS newest FROM phoenix.outbox) n
    LEFT JOIN pg_replication_slots s ON s.slot_name = 'outbox' AND s.slot_type = 'logical'
    LEFT JOIN LATERAL (SELECT count(*) AS undelivered, min(o.created_at) AS oldest FROM phoenix.outbox o
                       WHERE o.lsn >= s.confirmed_flush_lsn) u ON s.confirmed_flush_lsn IS NOT NULL;
COMMENT ON VIEW phoenix.metrics_outbox IS 'How the outbox is delivered: its slot, and the rows beyond what the connector has confirmed';
