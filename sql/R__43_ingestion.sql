-- What n8n's workflows do, step by step: each asks phoenix.ingestion_step() which request to make next, makes it, and brings the answer.
-- Everything that decides is here; a run that is killed leaves nothing half done, since each step is one transaction.

-- How often a request is tried anew, how long it is waited for at most (seconds; n8n keeps waits below 65 in memory), and after how long
-- without a sign of life a run is over.
CREATE OR REPLACE FUNCTION phoenix.ingestion_limit(name text) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE name WHEN 'tries' THEN 6 WHEN 'longest_wait_s' THEN 60 WHEN 'silent_s' THEN 240 END;

CREATE OR REPLACE FUNCTION phoenix.ingestion_counted(plan jsonb, name text, n bigint DEFAULT 1) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN n = 0 THEN plan
                ELSE plan || jsonb_build_object('counts', coalesce(plan -> 'counts', '{}') || jsonb_build_object(name, coalesce((plan -> 'counts' ->> name)::bigint, 0) + n)) END;

-- Numbers and times as somebody else wrote them: null when they are none.
CREATE OR REPLACE FUNCTION phoenix.ingestion_number(given text, digits integer DEFAULT 2) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN given ~ '^\s*-?\d{1,15}(\.\d{1,30})?\s*$' AND given::numeric >= 0 THEN trim_scale(round(given::numeric, digits)) END;

CREATE OR REPLACE FUNCTION phoenix.ingestion_time(given text) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN pg_input_is_valid(given, 'timestamptz') AND isfinite(given::timestamptz) THEN given::timestamptz END;

-- Percent-encoding of a value in an address.
CREATE OR REPLACE FUNCTION phoenix.ingestion_quoted(given text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT coalesce(string_agg(CASE WHEN letter ~ '[A-Za-z0-9._~-]' THEN letter
                                            ELSE regexp_replace(upper(encode(convert_to(letter, 'UTF8'), 'hex')), '(..)', '%\1', 'g') END, '' ORDER BY at), '')
            FROM regexp_split_to_table(given, '') WITH ORDINALITY AS letters (letter, at));

CREATE OR REPLACE FUNCTION phoenix.ingestion_path(path text, parameters jsonb) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN path || '?' || (SELECT string_agg(key || '=' || phoenix.ingestion_quoted(value), '&' ORDER BY key) FROM jsonb_each_text(parameters));

-- ------------------------------------------------------------------------------------------------ publications
-- One feed, RSS or Atom: what is new is kept, with the trends, regulations and companies in it. Raises for what is no XML.
CREATE OR REPLACE FUNCTION phoenix.publications_apply(feed text, body text) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    result jsonb;
BEGIN
    WITH item AS (
        SELECT coalesce(nullif(btrim(x.guid), ''), btrim(x.link)) AS guid, btrim(x.link) AS link,
               btrim(regexp_replace(regexp_replace(x.title, '<[^>]*>', ' ', 'g'), '\s+', ' ', 'g')) AS title,
               left(btrim(regexp_replace(regexp_replace(x.summary, '<[^>]*>', ' ', 'g'), '\s+', ' ', 'g')), 5000) AS summary,
               phoenix.ingestion_time(x.published) AS published_at
        FROM xmltable('//*[local-name()="item" or local-name()="entry"]' PASSING xmlparse(DOCUMENT body) COLUMNS
                 guid text PATH 'string((*[local-name()="guid" or local-name()="id"])[1])',
                 link text PATH 'string((*[local-name()="link"][normalize-space(.) != ""] | *[local-name()="link"]/@href)[1])',
                 title text PATH 'string((*[local-name()="title"])[1])',
                 published text PATH 'string((*[local-name()="pubDate" or local-name()="published" or local-name()="updated" or local-name()="date"])[1])',
                 summary text PATH 'string((*[local-name()="description" or local-name()="summary" or local-name()="encoded" or local-name()="content"])[1])') x
        WHERE btrim(x.link) ~ '^https?://' AND btrim(x.title) <> ''
    ), fresh AS (
        INSERT INTO phoenix.publications (source, guid, link, title, summary, published_at)
        SELECT feed, guid, link, title, nullif(summary, ''), published_at FROM item
        ON CONFLICT DO NOTHING
        RETURNING id, title || '. ' || coalesce(summary, '') AS content
    ), hit AS (
        SELECT f.id, r.kind, r.topic, r.authority, f.content, (regexp_match(f.content, '(' || r.pattern || ')', 'i'))[1] AS matched
        FROM fresh f JOIN phoenix.publication_rules r ON f.content ~* r.pattern
    ), trends AS (
        INSERT INTO phoenix.market_trends (publication_id, topic, matched, trend)
        SELECT id, topic, matched,
               CASE WHEN content ~* '\m(grow\w*|ris(e|es|ing)|rose|surg\w+|boom\w*|increas\w+|climb\w*|soar\w*)\M' THEN 'growing'
                    WHEN content ~* '\m(declin\w+|fall(s|ing)?|fell|drop\w*|decreas\w+|slump\w*|shrink\w*)\M' THEN 'declining'
                    WHEN content ~* '\m(stable|steady|flat|unchanged)\M' THEN 'stable' END
        FROM hit WHERE kind = 'market_trend' RETURNING 1
    ), regulations AS (
        INSERT INTO phoenix.regulatory_updates (publication_id, topic, authority, matched)
        SELECT id, topic, authority, matched FROM hit WHERE kind = 'regulatory_update' RETURNING 1
    ), mentions AS (
        INSERT INTO phoenix.company_mentions (publication_id, company_id, matched)
        SELECT f.id, c.id, c.name FROM fresh f JOIN phoenix.food_companies c
            -- The cheap look first; the expression then wants whole words.
            ON length(c.name) >= 3 AND position(lower(c.name) IN lower(f.content)) > 0
            AND f.content ~* ('(^|\W)' || regexp_replace(c.name, '([^\w\s])', '\\\1', 'g') || '(\W|$)')
        RETURNING 1
    )
    SELECT jsonb_build_object('items', (SELECT count(*) FROM item), 'publications', (SELECT count(*) FROM fresh), 'market_trends', (SELECT count(*) FROM trends),
                              'regulatory_updates', (SELECT count(*) FROM regulations), 'company_mentions', (SELECT count(*) FROM mentions)) INTO result;
    RETURN result;
END
$$;
COMMENT ON FUNCTION phoenix.publications_apply IS 'Keeps what is new in a feed and returns how much that was; a second time it changes nothing';

-- plan: todo (names of feeds), counts, failed. A feed that does not answer costs the others nothing, and makes the run a failed one.
CREATE OR REPLACE FUNCTION phoenix.publication_monitor_step(plan jsonb, settings jsonb, answer jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    feed text := plan -> 'request' ->> 'feed';
    counted record;
BEGIN
    IF answer IS NULL THEN
        plan := plan || jsonb_build_object('todo', (SELECT coalesce(jsonb_agg(key ORDER BY key), '[]') FROM jsonb_object_keys(settings -> 'feeds') key));
    ELSIF answer ? 'gave_up' THEN
        plan := phoenix.ingestion_counted(plan, 'feeds_failed') || jsonb_build_object('failed', concat_ws('; ', plan ->> 'failed', feed || ': ' || (answer ->> 'gave_up')));
    ELSE
        plan := phoenix.ingestion_counted(plan, 'feeds');
        FOR counted IN SELECT key, value::bigint FROM jsonb_each_text(phoenix.publications_apply(feed, answer ->> 'body')) LOOP
            plan := phoenix.ingestion_counted(plan, counted.key, counted.value);
        END LOOP;
    END IF;
    plan := plan - 'request';
    IF jsonb_array_length(plan -> 'todo') > 0 THEN
        feed := plan -> 'todo' ->> 0;
        plan := plan || jsonb_build_object('todo', (plan -> 'todo') - 0, 'request',
                    jsonb_build_object('method', 'GET', 'path', settings -> 'feeds' ->> feed, 'feed', feed, 'format', 'xml'));
    END IF;
    RETURN plan;
END
$$;

-- ------------------------------------------------------------------------------------------------ enrichment
CREATE OR REPLACE FUNCTION phoenix.enrichment_consent(persona uuid) RETURNS uuid
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT id FROM phoenix.consents
    WHERE persona_id = persona AND purpose = 'enrichment' AND withdrawn_at IS NULL AND granted_at <= now() AND (expires_at IS NULL OR expires_at > now())
    ORDER BY granted_at DESC LIMIT 1
$$;
COMMENT ON FUNCTION phoenix.enrichment_consent IS 'The newest consent of a persona to enrichment that holds now; null: nobody may look the person up';

-- Whose turn it is: asked longest ago first, never asked before all others.
CREATE OR REPLACE FUNCTION phoenix.enrichment_due(wanted integer, refresh interval) RETURNS TABLE (kind text, id uuid, path text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT due.kind, due.id, due.path FROM (
        SELECT 'company' AS kind, c.id, phoenix.ingestion_path('/v1/companies', jsonb_strip_nulls(jsonb_build_object('name', c.name, 'website', c.website))) AS path, e.last, c.created_at
        FROM phoenix.food_companies c
        LEFT JOIN (SELECT company_id, max(requested_at) AS last FROM phoenix.enrichments WHERE company_id IS NOT NULL GROUP BY company_id) e ON e.company_id = c.id
        UNION ALL
        SELECT 'persona', p.id, phoenix.ingestion_path('/v1/people', jsonb_build_object('linkedin_url', p.linkedin_url)), e.last, p.created_at
        FROM (SELECT DISTINCT persona_id FROM phoenix.consents WHERE purpose = 'enrichment' AND withdrawn_at IS NULL AND (expires_at IS NULL OR expires_at > now())) k
        JOIN phoenix.personas p ON p.id = k.persona_id AND p.linkedin_url <> ''
        LEFT JOIN (SELECT persona_id, max(requested_at) AS last FROM phoenix.enrichments WHERE persona_id IS NOT NULL GROUP BY persona_id) e ON e.persona_id = p.id
    ) due
    WHERE due.last IS NULL OR due.last < now() - refresh
    ORDER BY due.last NULLS FIRST, due.created_at, due.id LIMIT greatest(wanted, 0)
$$;

-- One answer about one subject. Values that are none are left out; what is known already is not made unknown.
CREATE OR REPLACE FUNCTION phoenix.enrichment_apply(kind text, subject uuid, provider text, answer jsonb) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    consent  uuid := CASE WHEN kind = 'persona' THEN phoenix.enrichment_consent(subject) END;
    revenue  numeric := phoenix.ingestion_number(answer ->> 'company_revenue');
    -- More than this is no head count, and no integer.
    people   numeric := (SELECT n FROM phoenix.ingestion_number(answer ->> 'employee_count', 0) n WHERE n < 100000000);
    posts    bigint := 0;
    written  jsonb;
BEGIN
    IF kind = 'persona' AND consent IS NULL THEN
        RETURN 'withdrawn';
    END IF;
    IF kind = 'company' THEN
        UPDATE phoenix.food_companies c SET annual_revenue = coalesce(revenue, c.annual_revenue), employee_count = coalesce(people::integer, c.employee_count),
               last_enriched = now(), source_reliability = provider WHERE c.id = subject;
    ELSE
        UPDATE phoenix.personas p SET company_revenue = coalesce(revenue, p.company_revenue), employee_count = coalesce(people::integer, p.employee_count) WHERE p.id = subject;
    END IF;
    IF NOT FOUND THEN
        RETURN 'withdrawn';
    END IF;
    INSERT INTO phoenix.recent_posts AS r (source, external_id, company_id, persona_id, content, url, published_at)
    SELECT DISTINCT ON (post ->> 'id') provider, post ->> 'id', CASE WHEN kind = 'company' THEN subject END, CASE WHEN kind = 'persona' THEN subject END,
           left(post ->> 'text', 10000), post ->> 'url', phoenix.ingestion_time(post ->> 'published_at')
    FROM jsonb_array_elements(CASE jsonb_typeof(answer -> 'recent_posts') WHEN 'array' THEN answer -> 'recent_posts' ELSE '[]' END) post
    WHERE post ->> 'id' <> '' ORDER BY post ->> 'id'
    ON CONFLICT ON CONSTRAINT recent_posts_pkey DO UPDATE SET content = EXCLUDED.content, url = EXCLUDED.url, published_at = EXCLUDED.published_at
        WHERE (r.content, r.url, r.published_at) IS DISTINCT FROM (EXCLUDED.content, EXCLUDED.url, EXCLUDED.published_at);
    GET DIAGNOSTICS posts = ROW_COUNT;
    written := jsonb_strip_nulls(jsonb_build_object('company_revenue', revenue, 'employee_count', people, 'recent_posts', nullif(posts, 0)));
    INSERT INTO phoenix.enrichments (company_id, persona_id, source, consent_id, outcome, fields, licence)
    VALUES (CASE WHEN kind = 'company' THEN subject END, CASE WHEN kind = 'persona' THEN subject END, provider, consent, 'enriched', written, answer ->> 'license');
    RETURN 'enriched';
END
$$;

-- plan: todo (kind, id, path), counts, failed, in_a_row. Three requests in a row that failed end the run: the provider is not well.
CREATE OR REPLACE FUNCTION phoenix.linkedin_scraper_step(plan jsonb, settings jsonb, answer jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    subject uuid := (plan -> 'request' ->> 'id')::uuid;
    kind    text := plan -> 'request' ->> 'kind';
    outcome text;
    today   bigint;
BEGIN
    IF answer IS NULL THEN
        SELECT count(*) INTO today FROM phoenix.enrichments WHERE requested_at > now() - INTERVAL '1 day';
        plan := plan || jsonb_build_object('in_a_row', 0, 'todo', (
            SELECT coalesce(jsonb_agg(to_jsonb(d)), '[]')
            FROM phoenix.enrichment_due(least((settings ->> 'per_run')::bigint, (settings ->> 'per_day')::bigint - today)::integer,
                                        make_interval(days => (settings ->> 'refresh_d')::integer)) d));
    ELSE
        IF answer ? 'gave_up' THEN
            outcome := 'failed';
        ELSIF (answer ->> 'status')::integer = 404 THEN
            outcome := 'unknown';
        ELSE
            outcome := phoenix.enrichment_apply(kind, subject, settings ->> 'source', (answer ->> 'body')::jsonb);
        END IF;
        plan := phoenix.ingestion_counted(plan, outcome);
        -- A subject that was deleted, or withdrew, while it was asked about leaves no trace.
        IF outcome IN ('failed', 'unknown') THEN
            INSERT INTO phoenix.enrichments (company_id, persona_id, source, consent_id, outcome, error)
            SELECT CASE WHEN kind = 'company' THEN subject END, CASE WHEN kind = 'persona' THEN subject END, settings ->> 'source',
                   phoenix.enrichment_consent(subject), outcome, answer ->> 'gave_up'
            WHERE EXISTS (SELECT FROM phoenix.food_companies c WHERE kind = 'company' AND c.id = subject)
               OR (kind = 'persona' AND phoenix.enrichment_consent(subject) IS NOT NULL);
        END IF;
        plan := plan || jsonb_build_object('in_a_row', CASE WHEN outcome = 'failed' THEN (plan ->> 'in_a_row')::integer + 1 ELSE 0 END);
        IF outcome = 'failed' THEN
            plan := plan || jsonb_build_object('failed', answer ->> 'gave_up');
        END IF;
        IF (plan ->> 'in_a_row')::integer >= 3 THEN
            plan := plan || '{"todo": []}';
        END IF;
    END IF;
    plan := plan - 'request';
    -- Who withdrew since the run began is not asked about.
    WHILE jsonb_array_length(plan -> 'todo') > 0 LOOP
        IF plan -> 'todo' -> 0 ->> 'kind' = 'company' OR phoenix.enrichment_consent((plan -> 'todo' -> 0 ->> 'id')::uuid) IS NOT NULL THEN
            RETURN plan || jsonb_build_object('todo', (plan -> 'todo') - 0, 'request',
                       (plan -> 'todo' -> 0) || '{"method": "GET", "format": "json", "accept": [404]}');
        END IF;
        plan := phoenix.ingestion_counted(plan, 'withdrawn') || jsonb_build_object('todo', (plan -> 'todo') - 0);
    END LOOP;
    RETURN plan;
END
$$;

-- ------------------------------------------------------------------------------------------------ the loop
-- Why an answer is of no use, and whether trying again may help; null when it is good.
CREATE OR REPLACE FUNCTION phoenix.ingestion_fault(request jsonb, answer jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    status integer := (answer ->> 'status')::integer;
BEGIN
    IF answer ? 'error' OR status IS NULL THEN
        RETURN jsonb_build_object('why', coalesce(answer ->> 'error', 'no answer'), 'again', true);
    ELSIF request -> 'accept' @> to_jsonb(status) THEN
        RETURN NULL;
    ELSIF status IN (408, 425, 429) OR status >= 500 THEN
        RETURN jsonb_build_object('why', format('status %s', status), 'again', true);
    ELSIF status >= 300 THEN
        RETURN jsonb_build_object('why', format('status %s: %s', status, left(answer ->> 'body', 200)), 'again', false);
    END IF;
    BEGIN
        IF request ->> 'format' = 'xml' THEN
            PERFORM xmlparse(DOCUMENT answer ->> 'body');
        ELSIF status <> 204 AND jsonb_typeof((answer ->> 'body')::jsonb) <> 'object' THEN
            RETURN jsonb_build_object('why', 'the body is no JSON object', 'again', true);
        END IF;
    EXCEPTION WHEN data_exception OR invalid_xml_document OR invalid_xml_content OR untranslatable_character THEN
        RETURN jsonb_build_object('why', format('the body is no %s', request ->> 'format'), 'again', true);
    END;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION phoenix.ingestion_step(flow text, run text, settings jsonb, answer jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
<<step>>
DECLARE
    plan    jsonb;
    state   text;
    fault   jsonb;
    tries   integer;
    wait_s  integer := 0;
    failure text;
BEGIN
    answer := nullif(answer, 'null');
    SELECT r.plan, r.state INTO plan, state FROM phoenix.ingestion_runs r WHERE r.workflow = flow AND r.execution = run FOR UPDATE;
    IF NOT FOUND THEN
        UPDATE phoenix.ingestion_runs r SET state = 'abandoned', finished_at = now(), error = 'nothing was heard of it any more'
        WHERE r.workflow = flow AND r.state = 'running' AND r.touched_at < now() - make_interval(secs => phoenix.ingestion_limit('silent_s'));
        INSERT INTO phoenix.ingestion_runs (workflow, execution) VALUES (flow, run) ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            RETURN jsonb_build_object('next', 2, 'skipped', 'another run is under way');
        END IF;
        plan := jsonb_build_object('tries', 0, 'started_at', now());
        answer := NULL;
    ELSIF state <> 'running' THEN
        RETURN jsonb_build_object('next', 3, 'error', format('%s: run %s is %s', flow, run, state));
    ELSIF answer IS NULL THEN
        answer := '{"error": "no answer"}';
    END IF;

    IF answer IS NOT NULL THEN
        fault := phoenix.ingestion_fault(plan -> 'request', answer);
        IF fault IS NOT NULL THEN
            tries := (plan ->> 'tries')::integer + 1;
            wait_s := CASE WHEN answer ->> 'retry_after' ~ '^\d{1,6}$' THEN greatest((answer ->> 'retry_after')::integer, 1) ELSE least(2 ^ tries, 30)::integer END;
            IF (fault ->> 'again')::boolean AND tries < phoenix.ingestion_limit('tries') AND wait_s <= phoenix.ingestion_limit('longest_wait_s') THEN
                UPDATE phoenix.ingestion_runs r SET touched_at = clock_timestamp(), requests = requests + 1, retries = retries + 1,
                       plan = step.plan || jsonb_build_object('tries', tries)
                WHERE r.workflow = flow AND r.execution = run;
                RETURN jsonb_build_object('next', 1, 'wait_s', wait_s, 'method', plan -> 'request' -> 'method', 'path', plan -> 'request' -> 'path', 'body', plan -> 'request' -> 'body');
            END IF;
            answer := answer || jsonb_build_object('gave_up', fault ->> 'why');
        END IF;
    END IF;

    BEGIN
        CASE flow
            WHEN 'publication_monitor' THEN plan := phoenix.publication_monitor_step(plan, settings, answer);
            WHEN 'linkedin_scraper' THEN plan := phoenix.linkedin_scraper_step(plan, settings, answer);
            WHEN 'hubspot_sync' THEN plan := phoenix.hubspot_sync_step(plan, settings, answer);
            ELSE RAISE EXCEPTION 'there is no workflow %', flow;
        END CASE;
    EXCEPTION WHEN OTHERS THEN
        failure := SQLERRM;
        plan := plan - 'request';
    END;
    failure := coalesce(failure, CASE WHEN NOT plan ? 'request' THEN plan ->> 'failed' END);
    UPDATE phoenix.ingestion_runs r SET touched_at = clock_timestamp(), requests = requests + CASE WHEN answer IS NULL THEN 0 ELSE 1 END,
           plan = step.plan || '{"tries": 0}', error = failure,
           state = CASE WHEN step.plan ? 'request' THEN 'running' WHEN failure IS NULL THEN 'done' ELSE 'failed' END,
           finished_at = CASE WHEN NOT step.plan ? 'request' THEN clock_timestamp() END
    WHERE r.workflow = flow AND r.execution = run;
    IF failure IS NOT NULL THEN
        RETURN jsonb_build_object('next', 3, 'error', format('%s: %s', flow, failure), 'counts', plan -> 'counts');
    ELSIF NOT plan ? 'request' THEN
        DELETE FROM phoenix.ingestion_runs r WHERE r.workflow = flow AND r.finished_at < now() - INTERVAL '30 days';
        RETURN jsonb_build_object('next', 2, 'counts', plan -> 'counts');
    END IF;
    RETURN jsonb_build_object('next', 0, 'method', plan -> 'request' -> 'method', 'path', plan -> 'request' -> 'path', 'body', plan -> 'request' -> 'body');
END
$$;
COMMENT ON FUNCTION phoenix.ingestion_step IS
    'What a workflow does next: 0 make the request, 1 wait_s seconds before it, 2 done, 3 failed with error. `answer`: {status, retry_after, body} or {error}';

-- What the exporter reads.
CREATE OR REPLACE VIEW phoenix.metrics_ingestion WITH (security_invoker = true) AS
    SELECT w.workflow, coalesce(extract(epoch FROM max(r.finished_at) FILTER (WHERE r.state = 'done')), 0) AS last_success,
           count(r.*) FILTER (WHERE r.state IN ('failed', 'abandoned') AND r.started_at > now() - INTERVAL '1 day') AS failures_24h,
           coalesce(sum(r.requests) FILTER (WHERE r.started_at > now() - INTERVAL '1 day'), 0) AS requests_24h,
           coalesce(sum(r.retries) FILTER (WHERE r.started_at > now() - INTERVAL '1 day'), 0) AS retries_24h
    FROM (VALUES ('linkedin_scraper'), ('publication_monitor'), ('hubspot_sync')) w (workflow)
    LEFT JOIN phoenix.ingestion_runs r USING (workflow) GROUP BY w.workflow;

-- The workflows' login may make steps and nothing else. Where the role does not exist, nobody is to be let in.
DO $$
BEGIN
    IF to_regrole('n8n_flows') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA phoenix TO n8n_flows;
        GRANT EXECUTE ON FUNCTION phoenix.ingestion_step(text, text, jsonb, jsonb) TO n8n_flows;
    END IF;
END
$$;
