-- The synchronisation with HubSpot, both directions (docs/decisions/0652-hubspot.md). Fields are compared with what both sides had last:
-- who differs from that has changed. So an own write that comes back is no change, and nothing goes round in circles.
-- Entities are named as HubSpot does: contacts are personas, companies food_companies, deals opportunities.

CREATE OR REPLACE FUNCTION phoenix.hubspot_line(given text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN nullif(btrim(regexp_replace(given, '\s+', ' ', 'g')), '');

-- Numbers as both sides can compare them: no trailing zeros, nothing that is no number or negative.
CREATE OR REPLACE FUNCTION phoenix.hubspot_number(given text, digits integer DEFAULT 2) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN given ~ '^\s*-?\d{1,15}(\.\d{1,30})?\s*$' THEN CASE WHEN given::numeric >= 0 THEN trim_scale(round(given::numeric, digits)) END END;

CREATE OR REPLACE FUNCTION phoenix.hubspot_properties(entity text) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE entity WHEN 'contacts' THEN ARRAY['firstname', 'lastname', 'company', 'jobtitle', 'industry', 'hs_linkedin_url', 'phoenix_id']
                       WHEN 'companies' THEN ARRAY['name', 'website', 'annualrevenue', 'numberofemployees', 'phoenix_id']
                       ELSE ARRAY['dealname', 'amount', 'dealstage', 'closedate', 'phoenix_id'] END;

CREATE OR REPLACE FUNCTION phoenix.hubspot_modified(entity text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE entity WHEN 'contacts' THEN 'lastmodifieddate' ELSE 'hs_lastmodifieddate' END;

-- The fields of a record there, as they are called here.
CREATE OR REPLACE FUNCTION phoenix.hubspot_there(entity text, p jsonb) RETURNS jsonb LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_strip_nulls(CASE entity
        WHEN 'contacts' THEN jsonb_build_object('name', phoenix.hubspot_line(concat_ws(' ', p ->> 'firstname', p ->> 'lastname')), 'company', phoenix.hubspot_line(p ->> 'company'),
            'role', phoenix.hubspot_line(p ->> 'jobtitle'), 'industry', phoenix.hubspot_line(p ->> 'industry'), 'linkedin_url', phoenix.hubspot_line(p ->> 'hs_linkedin_url'))
        WHEN 'companies' THEN jsonb_build_object('name', phoenix.hubspot_line(p ->> 'name'), 'website', phoenix.hubspot_line(p ->> 'website'),
            'annual_revenue', phoenix.hubspot_number(p ->> 'annualrevenue'),
            'employee_count', (SELECT n FROM phoenix.hubspot_number(p ->> 'numberofemployees', 0) n WHERE n < 2000000000))
        ELSE jsonb_build_object('name', phoenix.hubspot_line(p ->> 'dealname'), 'value', coalesce(phoenix.hubspot_number(p ->> 'amount'), 0),
            'stage', coalesce((SELECT s.stage::text FROM phoenix.hubspot_stages s WHERE s.dealstage = p ->> 'dealstage'), 'prospecting'),
            'close_date', CASE WHEN p ->> 'closedate' ~ '^\d{4}-\d\d-\d\d' AND pg_input_is_valid(left(p ->> 'closedate', 10), 'date') THEN left(p ->> 'closedate', 10) END)
    END)
$$;

-- The same fields of rows here: of one, or of all.
CREATE OR REPLACE FUNCTION phoenix.hubspot_here(entity text, wanted uuid DEFAULT NULL) RETURNS TABLE (id uuid, fields jsonb, modified timestamptz)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    -- One plan for "one" and "all" would be the one that reads all.
    SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    IF entity = 'contacts' THEN
        RETURN QUERY SELECT p.id, jsonb_strip_nulls(jsonb_build_object('name', phoenix.hubspot_line(p.name), 'company', phoenix.hubspot_line(p.company),
            'role', phoenix.hubspot_line(p.role), 'industry', phoenix.hubspot_line(p.industry), 'linkedin_url', phoenix.hubspot_line(p.linkedin_url))), p.updated_at
            FROM phoenix.personas p WHERE wanted IS NULL OR p.id = wanted;
    ELSIF entity = 'companies' THEN
        RETURN QUERY SELECT c.id, jsonb_strip_nulls(jsonb_build_object('name', phoenix.hubspot_line(c.name), 'website', phoenix.hubspot_line(c.website),
            'annual_revenue', trim_scale(c.annual_revenue), 'employee_count', c.employee_count)), c.updated_at
            FROM phoenix.food_companies c WHERE wanted IS NULL OR c.id = wanted;
    ELSE
        RETURN QUERY SELECT o.id, jsonb_strip_nulls(jsonb_build_object('name', phoenix.hubspot_line(o.name), 'value', trim_scale(o.value),
            'stage', o.stage, 'close_date', o.close_date)), o.updated_at
            FROM phoenix.opportunities o WHERE wanted IS NULL OR o.id = wanted;
    END IF;
END
$$;

-- As HubSpot wants to have them: only those of `names`; what is empty here is emptied there.
CREATE OR REPLACE FUNCTION phoenix.hubspot_written(entity text, fields jsonb, names text[]) RETURNS jsonb LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_object_agg(property, coalesce(value, '')) FROM (
        SELECT CASE WHEN entity = 'deals' THEN CASE field WHEN 'name' THEN 'dealname' WHEN 'value' THEN 'amount' WHEN 'stage' THEN 'dealstage' ELSE 'closedate' END
                    WHEN entity = 'companies' THEN CASE field WHEN 'annual_revenue' THEN 'annualrevenue' WHEN 'employee_count' THEN 'numberofemployees' ELSE field END
                    ELSE CASE field WHEN 'role' THEN 'jobtitle' WHEN 'linkedin_url' THEN 'hs_linkedin_url' ELSE field END END AS property,
               CASE WHEN entity = 'deals' AND field = 'stage' THEN (SELECT s.dealstage FROM phoenix.hubspot_stages s WHERE s.stage::text = fields ->> 'stage' AND s.preferred)
                    ELSE fields ->> field END AS value
        FROM unnest(names) field WHERE NOT (entity = 'contacts' AND field = 'name')
        UNION ALL
        -- The first word is the first name; put together again, it is the same name.
        SELECT part.property, part.value FROM (VALUES ('firstname', split_part(fields ->> 'name', ' ', 1)),
                                                      ('lastname', substr(fields ->> 'name', length(split_part(fields ->> 'name', ' ', 1)) + 2))) part (property, value)
        WHERE entity = 'contacts' AND 'name' = ANY (names)) written
$$;

CREATE OR REPLACE FUNCTION phoenix.hubspot_differing(a jsonb, b jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT coalesce(array_agg(key ORDER BY key), '{}') FROM (SELECT jsonb_object_keys(a) AS key UNION SELECT jsonb_object_keys(b)) keys WHERE a -> key IS DISTINCT FROM b -> key);

-- Field by field: who changed it has it; if both did, the newer side. Without a base (a first meeting) what only one side has is taken.
CREATE OR REPLACE FUNCTION phoenix.hubspot_merge(base jsonb, here jsonb, there jsonb, there_is_newer boolean, OUT merged jsonb, OUT conflicts text[])
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT jsonb_strip_nulls(jsonb_object_agg(key, CASE WHEN h IS NOT DISTINCT FROM t THEN h WHEN taken = 'there' THEN t WHEN taken = 'here' THEN h WHEN there_is_newer THEN t ELSE h END)),
           coalesce(array_agg(key ORDER BY key) FILTER (WHERE h IS DISTINCT FROM t AND taken IS NULL), '{}')
    FROM (SELECT key, here -> key AS h, there -> key AS t,
                 CASE WHEN base IS NULL THEN CASE WHEN here -> key IS NULL THEN 'there' WHEN there -> key IS NULL THEN 'here' END
                      WHEN base -> key IS NOT DISTINCT FROM here -> key THEN 'there'
                      WHEN base -> key IS NOT DISTINCT FROM there -> key THEN 'here' END AS taken
          FROM (SELECT jsonb_object_keys(here) AS key UNION SELECT jsonb_object_keys(there) UNION SELECT jsonb_object_keys(coalesce(base, '{}'))) keys) fields
$$;

-- Write fields into the row here; without an id make the row. Returns its id.
CREATE OR REPLACE FUNCTION phoenix.hubspot_write_here(entity text, wanted uuid, fields jsonb) RETURNS uuid
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    made uuid := wanted;
BEGIN
    IF entity = 'contacts' THEN
        IF wanted IS NULL THEN
            INSERT INTO phoenix.personas (name, company, role, industry, linkedin_url, source)
            VALUES (fields ->> 'name', fields ->> 'company', fields ->> 'role', fields ->> 'industry', fields ->> 'linkedin_url', 'hubspot') RETURNING id INTO made;
        ELSE
            UPDATE phoenix.personas SET name = coalesce(fields ->> 'name', name), company = fields ->> 'company', role = fields ->> 'role', industry = fields ->> 'industry',
                   linkedin_url = fields ->> 'linkedin_url' WHERE id = wanted;
        END IF;
    ELSIF entity = 'companies' THEN
        IF wanted IS NULL THEN
            INSERT INTO phoenix.food_companies (name, website, annual_revenue, employee_count)
            VALUES (fields ->> 'name', fields ->> 'website', (fields ->> 'annual_revenue')::numeric, (fields ->> 'employee_count')::integer) RETURNING id INTO made;
        ELSE
            UPDATE phoenix.food_companies SET name = coalesce(fields ->> 'name', name), website = fields ->> 'website', annual_revenue = (fields ->> 'annual_revenue')::numeric,
                   employee_count = (fields ->> 'employee_count')::integer WHERE id = wanted;
        END IF;
    ELSIF wanted IS NULL THEN
        INSERT INTO phoenix.opportunities (name, value, stage, close_date, source)
        VALUES (fields ->> 'name', (fields ->> 'value')::numeric, (fields ->> 'stage')::phoenix.opportunity_stage, (fields ->> 'close_date')::date, 'inbound') RETURNING id INTO made;
    ELSE
        UPDATE phoenix.opportunities SET name = coalesce(fields ->> 'name', name), value = coalesce((fields ->> 'value')::numeric, value),
               stage = coalesce((fields ->> 'stage')::phoenix.opportunity_stage, stage),
               -- Open again: no longer certain, and not worth nothing.
               probability = CASE WHEN stage IN ('closed_won', 'closed_lost') AND fields ->> 'stage' NOT IN ('closed_won', 'closed_lost') THEN 0.1 ELSE probability END,
               close_date = (fields ->> 'close_date')::date WHERE id = wanted;
    END IF;
    RETURN made;
END
$$;

-- The row here that a new record there is: by the id that it carries, or because it is the same. Null: none; `taken`: one that is linked already.
CREATE OR REPLACE FUNCTION phoenix.hubspot_counterpart(entity text, fields jsonb, carried text, OUT counterpart uuid, OUT taken boolean)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pg_input_is_valid(carried, 'uuid') THEN
        SELECT h.id INTO counterpart FROM phoenix.hubspot_here(entity, carried::uuid) h;
    END IF;
    IF counterpart IS NULL AND entity = 'contacts' THEN
        SELECT r.id INTO counterpart FROM phoenix.persona_registry r
        WHERE r.fingerprint = phoenix.persona_fingerprint(fields ->> 'name', fields ->> 'company', fields ->> 'role', fields ->> 'linkedin_url');
    ELSIF counterpart IS NULL AND entity = 'companies' THEN
        SELECT c.id INTO counterpart FROM phoenix.food_companies c
        WHERE lower(c.name) = lower(fields ->> 'name') AND (c.website IS NULL OR fields ->> 'website' IS NULL OR c.website = fields ->> 'website')
        ORDER BY EXISTS (SELECT FROM phoenix.hubspot_links l WHERE l.entity = 'companies' AND l.local_id = c.id), c.created_at, c.id LIMIT 1;
    END IF;
    taken := EXISTS (SELECT FROM phoenix.hubspot_links l WHERE l.entity = hubspot_counterpart.entity AND l.local_id = counterpart AND l.state <> 'duplicate');
END
$$;

-- One page of records there. Returns {counter: n}. A second time it changes nothing.
CREATE OR REPLACE FUNCTION phoenix.hubspot_apply(entity text, results jsonb) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    theirs  record;
    link    phoenix.hubspot_links;
    here    record;
    merge   record;
    other   record;
    newer   boolean;
    counts  jsonb := '{}';
BEGIN
    -- Most records of most pages are as they were: all of those in one statement.
    WITH page AS (SELECT DISTINCT ON (r ->> 'id') r ->> 'id' AS id, phoenix.hubspot_there(hubspot_apply.entity, r -> 'properties') AS there, (r ->> 'updatedAt')::timestamptz AS modified
                  FROM jsonb_array_elements(results) r ORDER BY r ->> 'id')
    UPDATE phoenix.hubspot_links l SET checked_at = now(), hubspot_modified = page.modified
    FROM page WHERE l.entity = hubspot_apply.entity AND l.hubspot_id = page.id AND l.state = 'linked' AND l.synced = page.there;

    FOR theirs IN
        SELECT page.* FROM (SELECT DISTINCT ON (r ->> 'id') r ->> 'id' AS id, phoenix.hubspot_there(hubspot_apply.entity, r -> 'properties') AS there,
                                   (r ->> 'updatedAt')::timestamptz AS modified, r -> 'properties' ->> 'phoenix_id' AS carried
                            FROM jsonb_array_elements(results) r WHERE (r ->> 'archived')::boolean IS NOT TRUE ORDER BY r ->> 'id', r ->> 'updatedAt' DESC) page
        WHERE NOT EXISTS (SELECT FROM phoenix.hubspot_links l WHERE l.entity = hubspot_apply.entity AND l.hubspot_id = page.id AND l.state = 'linked' AND l.synced = page.there)
        ORDER BY page.id
    LOOP
        SELECT * INTO link FROM phoenix.hubspot_links l WHERE l.entity = hubspot_apply.entity AND l.hubspot_id = theirs.id FOR UPDATE;
        IF FOUND AND link.state = 'archived_here' AND theirs.modified <= link.synced_at + INTERVAL '1 minute' THEN
            CONTINUE;  -- our own archiving, seen by an index there that is late
        ELSIF FOUND AND link.state IN ('archived_here', 'duplicate') THEN
            -- Somebody took it out of the bin there, or it may be another's duplicate no more: it is new.
            DELETE FROM phoenix.hubspot_links l WHERE l.entity = hubspot_apply.entity AND l.hubspot_id = theirs.id;
            link := NULL;
        END IF;
        IF link.hubspot_id IS NULL AND NOT theirs.there ? 'name' THEN
            counts := phoenix.hubspot_counted(counts, 'unnamed');
            CONTINUE;
        END IF;

        IF link.hubspot_id IS NULL THEN
            SELECT * INTO other FROM phoenix.hubspot_counterpart(entity, theirs.there, theirs.carried);
            IF other.taken THEN
                INSERT INTO phoenix.hubspot_links (entity, hubspot_id, local_id, state, synced, hubspot_modified)
                VALUES (hubspot_apply.entity, theirs.id, other.counterpart, 'duplicate', theirs.there, theirs.modified);
                counts := phoenix.hubspot_counted(counts, 'duplicates');
                CONTINUE;
            ELSIF other.counterpart IS NULL THEN
                INSERT INTO phoenix.hubspot_links (entity, hubspot_id, local_id, synced, hubspot_modified, local_modified)
                VALUES (hubspot_apply.entity, theirs.id, phoenix.hubspot_write_here(entity, NULL, theirs.there), theirs.there, theirs.modified, now());
                counts := phoenix.hubspot_counted(counts, 'made_here');
                CONTINUE;
            END IF;
            link := ROW(hubspot_apply.entity, theirs.id, other.counterpart, 'linked', NULL, theirs.modified, NULL, now(), now());
            counts := phoenix.hubspot_counted(counts, 'met');
        END IF;

        SELECT * INTO here FROM phoenix.hubspot_here(entity, link.local_id);
        IF NOT FOUND THEN
            CONTINUE;  -- deleted here: told there by the push
        END IF;
        IF link.state IN ('archived_there', 'gone_there') THEN
            link.synced := here.fields;  -- taken out of the bin: it is again what it was there
        END IF;
        newer := theirs.modified >= here.modified;
        SELECT * INTO merge FROM phoenix.hubspot_merge(link.synced, here.fields, theirs.there, newer);
        IF cardinality(merge.conflicts) > 0 AND link.synced IS NOT NULL THEN
            INSERT INTO phoenix.hubspot_conflicts (entity, hubspot_id, local_id, fields, base, here, there, here_modified, there_modified, winner)
            VALUES (hubspot_apply.entity, theirs.id, link.local_id, merge.conflicts, link.synced, here.fields, theirs.there, here.modified, theirs.modified,
                    CASE WHEN newer THEN 'there' ELSE 'here' END);
            counts := phoenix.hubspot_counted(counts, 'conflicts');
        END IF;
        IF merge.merged <> here.fields THEN
            PERFORM phoenix.hubspot_write_here(entity, link.local_id, merge.merged);
            counts := phoenix.hubspot_counted(counts, 'changed_here');
        END IF;
        -- What is there is the base now: where the row here differs from it, the push tells it.
        INSERT INTO phoenix.hubspot_links AS l (entity, hubspot_id, local_id, synced, hubspot_modified, local_modified)
        VALUES (hubspot_apply.entity, theirs.id, link.local_id, theirs.there, theirs.modified, now())
        ON CONFLICT ON CONSTRAINT hubspot_links_pkey DO UPDATE SET state = 'linked', synced = EXCLUDED.synced, hubspot_modified = EXCLUDED.hubspot_modified,
            local_modified = EXCLUDED.local_modified, synced_at = now(), checked_at = now();
    END LOOP;
    RETURN counts;
END
$$;
COMMENT ON FUNCTION phoenix.hubspot_apply IS 'Takes over what changed in a page of HubSpot records; returns how many were made, changed, met, in conflict';

-- Records that are there no more, in the bin (archived_there) or for good (gone_there). Rows here stay, but a deal that sales threw away is lost.
CREATE OR REPLACE FUNCTION phoenix.hubspot_vanished(entity text, ids text[], how text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    rows uuid[];
BEGIN
    WITH gone AS (UPDATE phoenix.hubspot_links l SET state = how, synced_at = now(), checked_at = now()
                  WHERE l.entity = hubspot_vanished.entity AND l.hubspot_id = ANY (ids) AND (l.state = 'linked' OR (l.state = 'archived_there' AND how = 'gone_there'))
                  RETURNING l.local_id)
    SELECT coalesce(array_agg(local_id), '{}') INTO rows FROM gone;
    IF entity = 'deals' THEN
        UPDATE phoenix.opportunities o SET stage = 'closed_lost' WHERE o.id = ANY (rows) AND o.stage NOT IN ('closed_won', 'closed_lost');
    END IF;
    RETURN cardinality(rows);
END
$$;

CREATE OR REPLACE FUNCTION phoenix.hubspot_counted(counts jsonb, name text, n bigint DEFAULT 1) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN counts || jsonb_build_object(name, coalesce((counts ->> name)::bigint, 0) + n);

-- ------------------------------------------------------------------------------------------------ what is to be told there
-- Rows here that HubSpot gets though it does not know them: every opportunity, and the company and the person that one is about. Not every
-- persona: a CRM is for those one does business with.
CREATE OR REPLACE FUNCTION phoenix.hubspot_new(entity text, wanted integer) RETURNS TABLE (id uuid, fields jsonb)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT h.id, h.fields
    FROM (SELECT o.id FROM phoenix.opportunities o WHERE entity = 'deals'
          UNION SELECT o.company_id FROM phoenix.opportunities o WHERE entity = 'companies' AND o.company_id IS NOT NULL
          UNION SELECT o.contact_persona_id FROM phoenix.opportunities o WHERE entity = 'contacts' AND o.contact_persona_id IS NOT NULL) due
    JOIN LATERAL phoenix.hubspot_here(entity, due.id) h ON true
    WHERE NOT EXISTS (SELECT FROM phoenix.hubspot_links l WHERE l.entity = hubspot_new.entity AND l.local_id = due.id AND l.state <> 'duplicate')
      AND NOT EXISTS (SELECT FROM phoenix.hubspot_refused r WHERE r.entity = hubspot_new.entity AND r.local_id = due.id AND r.sent = h.fields AND r.at > now() - INTERVAL '1 day')
    ORDER BY due.id LIMIT greatest(wanted, 0)
$$;

CREATE OR REPLACE FUNCTION phoenix.hubspot_changed(entity text, wanted integer) RETURNS TABLE (hubspot_id text, id uuid, base jsonb, fields jsonb)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    -- Right after a first synchronisation the statistics know of no links, and a nested loop would read all rows for each of them.
    SET enable_nestloop = off AS $$
    SELECT l.hubspot_id, l.local_id, l.synced, h.fields
    FROM phoenix.hubspot_links l JOIN phoenix.hubspot_here(hubspot_changed.entity) h ON h.id = l.local_id
    WHERE l.entity = hubspot_changed.entity AND l.state = 'linked' AND l.synced <> h.fields
      AND NOT EXISTS (SELECT FROM phoenix.hubspot_refused r WHERE r.entity = l.entity AND r.local_id = l.local_id AND r.sent = h.fields AND r.at > now() - INTERVAL '1 day')
    ORDER BY l.hubspot_id LIMIT wanted
$$;

CREATE OR REPLACE FUNCTION phoenix.hubspot_deleted(entity text) RETURNS TABLE (hubspot_id text, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT l.hubspot_id, l.local_id FROM phoenix.hubspot_links l
    WHERE l.entity = hubspot_deleted.entity AND l.state = 'linked'
      AND NOT EXISTS (SELECT FROM phoenix.persona_registry p WHERE hubspot_deleted.entity = 'contacts' AND p.id = l.local_id)
      AND NOT EXISTS (SELECT FROM phoenix.food_companies c WHERE hubspot_deleted.entity = 'companies' AND c.id = l.local_id)
      AND NOT EXISTS (SELECT FROM phoenix.opportunities o WHERE hubspot_deleted.entity = 'deals' AND o.id = l.local_id)
    ORDER BY l.hubspot_id
$$;

-- ------------------------------------------------------------------------------------------------ the steps of a run
-- plan: phases (names, "entity.what"), after (of a page), since (ms, of a search), seen (ms, newest change), made, verified, batch, counts.
CREATE OR REPLACE FUNCTION phoenix.hubspot_sync_step(plan jsonb, settings jsonb, answer jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    entity text;
    what   text;
    made   jsonb;
BEGIN
    IF answer IS NULL THEN
        plan := plan || jsonb_build_object('phases', (
            SELECT jsonb_agg(e || '.' || w ORDER BY round, at, step)
            FROM (VALUES ('companies', 1), ('contacts', 2), ('deals', 3)) entities (e, at),
                 (VALUES ('prepare', 1, 1), ('pull', 1, 2), ('bin', 1, 3), ('verify', 1, 4), ('create', 2, 1), ('update', 2, 2), ('archive', 2, 3)) phases (w, round, step)));
    ELSIF answer ? 'gave_up' AND NOT plan -> 'request' ? 'ids' THEN
        -- Reading failed: without knowing what is there nothing is written. The next run begins where this one began.
        RETURN (plan - 'request') || jsonb_build_object('failed', answer ->> 'gave_up');
    ELSE
        plan := phoenix.hubspot_take(plan, answer);
        IF plan ? 'failed' THEN
            RETURN plan - 'request';
        END IF;
    END IF;
    plan := plan - 'request';
    WHILE jsonb_array_length(plan -> 'phases') > 0 LOOP
        entity := split_part(plan -> 'phases' ->> 0, '.', 1);
        what := split_part(plan -> 'phases' ->> 0, '.', 2);
        made := phoenix.hubspot_request(entity, what, plan, settings);
        IF made ? 'failed' THEN
            RETURN plan || jsonb_build_object('failed', made ->> 'failed');
        ELSIF made IS NOT NULL THEN
            RETURN plan || jsonb_build_object('request', made || '{"format": "json"}');
        END IF;
        plan := (plan - ARRAY['after', 'since', 'seen', 'paged', 'made', 'verified', 'batch']) || jsonb_build_object('phases', (plan -> 'phases') - 0);
    END LOOP;
    -- Two minutes back: the index that answers a search there is late, and clocks differ.
    UPDATE phoenix.hubspot_cursors c SET listed_at = coalesce(c.listed_at, now()), changed_since = (plan ->> 'started_at')::timestamptz - INTERVAL '2 minutes';
    RETURN plan;
END
$$;

-- The next request of a phase; null when it has none.
CREATE OR REPLACE FUNCTION phoenix.hubspot_request(entity text, what text, plan jsonb, settings jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    objects  text := '/crm/v3/objects/' || entity;
    size     integer := coalesce((plan ->> 'batch')::integer, 100);
    cur      phoenix.hubspot_cursors;
    made    jsonb;
    vanished bigint;
    linked   bigint;
BEGIN
    SELECT * INTO cur FROM phoenix.hubspot_cursors c WHERE c.entity = hubspot_request.entity;
    IF what = 'prepare' THEN
        RETURN CASE WHEN cur.prepared_at IS NULL THEN jsonb_build_object('method', 'POST', 'path', '/crm/v3/properties/' || entity, 'accept', '[409]'::jsonb, 'body', jsonb_build_object(
            'name', 'phoenix_id', 'label', 'Phoenix id', 'description', 'Id of this record in Phoenix; written by its synchronisation.', 'type', 'string', 'fieldType', 'text',
            'hasUniqueValue', true, 'groupName', CASE entity WHEN 'contacts' THEN 'contactinformation' WHEN 'companies' THEN 'companyinformation' ELSE 'dealinformation' END)) END;
    ELSIF what = 'pull' AND plan ->> 'paged' = 'done' THEN
        RETURN NULL;
    ELSIF what = 'pull' AND cur.listed_at IS NULL THEN
        RETURN jsonb_build_object('method', 'GET', 'path', phoenix.ingestion_path(objects, jsonb_build_object('limit', '100', 'archived', 'false',
            'properties', array_to_string(phoenix.hubspot_properties(entity), ',')) || CASE WHEN plan ? 'after' THEN jsonb_build_object('after', plan ->> 'after') ELSE '{}' END));
    ELSIF what = 'pull' THEN
        RETURN jsonb_build_object('method', 'POST', 'path', objects || '/search', 'body', jsonb_build_object('limit', 100, 'properties', to_jsonb(phoenix.hubspot_properties(entity)),
            'filterGroups', jsonb_build_array(jsonb_build_object('filters', jsonb_build_array(jsonb_build_object('propertyName', phoenix.hubspot_modified(entity), 'operator', 'GTE',
                'value', coalesce(plan ->> 'since', trunc(extract(epoch FROM cur.changed_since) * 1000)::text))))),
            'sorts', jsonb_build_array(jsonb_build_object('propertyName', phoenix.hubspot_modified(entity), 'direction', 'ASCENDING')))
            || CASE WHEN plan ? 'after' THEN jsonb_build_object('after', plan ->> 'after') ELSE '{}' END);
    ELSIF what = 'bin' THEN
        RETURN CASE WHEN plan ->> 'paged' = 'done' THEN NULL ELSE jsonb_build_object('method', 'GET', 'path', phoenix.ingestion_path(objects,
            '{"limit": "100", "archived": "true", "properties": "phoenix_id"}' || CASE WHEN plan ? 'after' THEN jsonb_build_object('after', plan ->> 'after') ELSE '{}' END)) END;
    ELSIF what = 'verify' THEN
        -- Removed for good is what neither a search nor the bin shows. Those not looked at for longest, but none that this run has seen.
        SELECT jsonb_agg(jsonb_build_object('id', l.hubspot_id)) INTO made FROM (
            SELECT l.hubspot_id FROM phoenix.hubspot_links l
            WHERE l.entity = hubspot_request.entity AND l.state = 'linked' AND l.checked_at < (plan ->> 'started_at')::timestamptz
            ORDER BY l.checked_at LIMIT least(100, (settings ->> 'verify_per_run')::integer - coalesce((plan ->> 'verified')::integer, 0))) l;
        RETURN CASE WHEN made IS NOT NULL THEN jsonb_build_object('method', 'POST', 'path', objects || '/batch/read',
            'body', jsonb_build_object('properties', to_jsonb(phoenix.hubspot_properties(entity)), 'inputs', made)) END;
    ELSIF what = 'create' THEN
        -- By our own id: a request whose answer was lost makes no second record when it is sent again.
        SELECT jsonb_build_object('method', 'POST', 'path', objects || '/batch/upsert', 'ids', jsonb_object_agg(n.id, n.fields), 'body', jsonb_build_object('inputs', jsonb_agg(
                   jsonb_build_object('idProperty', 'phoenix_id', 'id', n.id, 'properties', phoenix.hubspot_written(entity, n.fields, ARRAY(SELECT jsonb_object_keys(n.fields)))
                                      || jsonb_build_object('phoenix_id', n.id))))) INTO made
        FROM phoenix.hubspot_new(entity, least(size, (settings ->> 'new_per_run')::integer - coalesce((plan ->> 'made')::integer, 0))) n HAVING count(*) > 0;
        RETURN made;
    ELSIF what = 'update' THEN
        SELECT jsonb_build_object('method', 'POST', 'path', objects || '/batch/update', 'ids', jsonb_object_agg(n.hubspot_id, n.fields), 'body', jsonb_build_object('inputs', jsonb_agg(
                   jsonb_build_object('id', n.hubspot_id, 'properties', phoenix.hubspot_written(entity, n.fields, phoenix.hubspot_differing(n.base, n.fields)))))) INTO made
        FROM phoenix.hubspot_changed(entity, size) n HAVING count(*) > 0;
        RETURN made;
    END IF;
    -- archive
    SELECT count(*) INTO vanished FROM phoenix.hubspot_deleted(entity);
    IF vanished = 0 THEN
        RETURN NULL;
    END IF;
    SELECT count(*) INTO linked FROM phoenix.hubspot_links l WHERE l.entity = hubspot_request.entity AND l.state = 'linked';
    IF plan -> 'made' IS NULL AND vanished > greatest(10, linked * (settings ->> 'max_vanished')::numeric) THEN
        RETURN jsonb_build_object('failed', format('%s of %s linked %s are gone here, more than may be archived there at once: look whether that is meant', vanished, linked, entity));
    END IF;
    SELECT jsonb_build_object('method', 'POST', 'path', objects || '/batch/archive', 'ids', jsonb_object_agg(d.hubspot_id, '{}'::jsonb),
               'body', jsonb_build_object('inputs', jsonb_agg(jsonb_build_object('id', d.hubspot_id)))) INTO made
    FROM (SELECT * FROM phoenix.hubspot_deleted(entity) LIMIT 100) d;
    RETURN made;
END
$$;

-- What the answer to the present request changes.
CREATE OR REPLACE FUNCTION phoenix.hubspot_take(plan jsonb, answer jsonb) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
<<take>>
DECLARE
    entity   text := split_part(plan -> 'phases' ->> 0, '.', 1);
    what     text := split_part(plan -> 'phases' ->> 0, '.', 2);
    sent     jsonb := plan -> 'request' -> 'ids';
    body     jsonb := '{}';
    results  jsonb;
    counted  record;
    n        bigint;
    newest   bigint;
BEGIN
    IF answer ? 'gave_up' THEN
        IF coalesce((answer ->> 'status')::integer, 0) NOT IN (400, 409, 422) THEN
            RETURN plan || jsonb_build_object('failed', answer ->> 'gave_up');
        ELSIF (SELECT count(*) FROM jsonb_object_keys(sent)) > 1 THEN
            -- One of the batch is refused, and the whole with it: one by one finds out which.
            RETURN plan || '{"batch": 1}';
        END IF;
        INSERT INTO phoenix.hubspot_refused AS r (entity, local_id, sent, error)
        SELECT take.entity, CASE WHEN what = 'create' THEN key::uuid ELSE (SELECT l.local_id FROM phoenix.hubspot_links l WHERE l.entity = take.entity AND l.hubspot_id = key) END,
               value, left(answer ->> 'gave_up', 1000) FROM jsonb_each(sent)
        ON CONFLICT ON CONSTRAINT hubspot_refused_pkey DO UPDATE SET sent = EXCLUDED.sent, error = EXCLUDED.error, at = now();
        RETURN phoenix.ingestion_counted(plan, entity || '.refused');
    END IF;
    IF (answer ->> 'status')::integer <> 204 THEN
        body := (answer ->> 'body')::jsonb;
    END IF;
    results := CASE jsonb_typeof(body -> 'results') WHEN 'array' THEN body -> 'results' ELSE '[]' END;

    IF what = 'prepare' THEN
        UPDATE phoenix.hubspot_cursors c SET prepared_at = now() WHERE c.entity = take.entity;
    ELSIF what IN ('pull', 'verify') THEN
        FOR counted IN SELECT key, value::bigint FROM jsonb_each_text(phoenix.hubspot_apply(entity, results)) LOOP
            plan := phoenix.ingestion_counted(plan, entity || '.' || counted.key, counted.value);
        END LOOP;
        plan := phoenix.ingestion_counted(plan, entity || '.read', jsonb_array_length(results));
    END IF;
    IF what = 'verify' THEN
        n := phoenix.hubspot_vanished(entity, ARRAY(SELECT i ->> 'id' FROM jsonb_array_elements(plan -> 'request' -> 'body' -> 'inputs') i
                                                    EXCEPT SELECT r ->> 'id' FROM jsonb_array_elements(results) r), 'gone_there');
        plan := phoenix.ingestion_counted(plan, entity || '.gone_there', n)
                || jsonb_build_object('verified', coalesce((plan ->> 'verified')::integer, 0) + jsonb_array_length(plan -> 'request' -> 'body' -> 'inputs'));
        -- Also those that changed and were taken over, or that could not be: this run has seen them.
        UPDATE phoenix.hubspot_links l SET checked_at = now() WHERE l.entity = take.entity
            AND l.hubspot_id IN (SELECT i ->> 'id' FROM jsonb_array_elements(plan -> 'request' -> 'body' -> 'inputs') i);
    ELSIF what = 'bin' THEN
        n := phoenix.hubspot_vanished(entity, ARRAY(SELECT r ->> 'id' FROM jsonb_array_elements(results) r), 'archived_there');
        plan := phoenix.ingestion_counted(plan, entity || '.archived_there', n);
    ELSIF what = 'create' THEN
        INSERT INTO phoenix.hubspot_links AS l (entity, hubspot_id, local_id, synced, hubspot_modified, local_modified)
        SELECT take.entity, r ->> 'id', (r -> 'properties' ->> 'phoenix_id')::uuid, sent -> (r -> 'properties' ->> 'phoenix_id'), (r ->> 'updatedAt')::timestamptz, now()
        FROM jsonb_array_elements(results) r WHERE sent ? (r -> 'properties' ->> 'phoenix_id')
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS n = ROW_COUNT;
        IF n = 0 THEN
            RETURN plan || jsonb_build_object('failed', format('%s: none of the records that were made came back with its phoenix_id', entity));
        END IF;
        plan := phoenix.ingestion_counted(plan, entity || '.made_there', n) || jsonb_build_object('made', coalesce((plan ->> 'made')::integer, 0) + n);
    ELSIF what = 'update' THEN
        UPDATE phoenix.hubspot_links l SET synced = sent -> l.hubspot_id, hubspot_modified = (r ->> 'updatedAt')::timestamptz, local_modified = now(), synced_at = now(), checked_at = now()
        FROM jsonb_array_elements(results) r WHERE l.entity = take.entity AND l.hubspot_id = r ->> 'id' AND sent ? (r ->> 'id');
        GET DIAGNOSTICS n = ROW_COUNT;
        plan := phoenix.ingestion_counted(plan, entity || '.changed_there', n);
        -- What the CRM does not know any more; or else it would be offered for ever.
        n := phoenix.hubspot_vanished(entity, ARRAY(SELECT jsonb_object_keys(sent) EXCEPT SELECT r ->> 'id' FROM jsonb_array_elements(results) r), 'gone_there');
        plan := phoenix.ingestion_counted(plan, entity || '.gone_there', n);
    ELSIF what = 'archive' THEN
        UPDATE phoenix.hubspot_links l SET state = 'archived_here', synced_at = now() WHERE l.entity = take.entity AND sent ? l.hubspot_id;
        GET DIAGNOSTICS n = ROW_COUNT;
        plan := phoenix.ingestion_counted(plan, entity || '.archived_here', n) || jsonb_build_object('made', coalesce((plan ->> 'made')::integer, 0) + n);
    END IF;

    IF what IN ('pull', 'bin') THEN
        plan := (plan - 'after') || jsonb_build_object('paged', 'done');
        SELECT trunc(extract(epoch FROM max((r ->> 'updatedAt')::timestamptz)) * 1000)::bigint INTO newest FROM jsonb_array_elements(results) r;
        IF body -> 'paging' -> 'next' ->> 'after' IS NOT NULL AND jsonb_array_length(results) > 0 THEN
            plan := (plan - 'paged') || jsonb_build_object('after', body -> 'paging' -> 'next' ->> 'after');
            IF plan -> 'request' ->> 'method' = 'POST' AND (plan ->> 'after')::bigint >= 9900 THEN
                -- A search shows ten thousand at most: a new one begins at the newest change seen.
                IF newest::text = plan -> 'request' -> 'body' -> 'filterGroups' -> 0 -> 'filters' -> 0 ->> 'value' THEN
                    RETURN plan || jsonb_build_object('failed', format('%s: more than 9,900 changed in the same millisecond, which no search can page through', entity));
                END IF;
                plan := (plan - 'after') || jsonb_build_object('since', newest::text);
            END IF;
        END IF;
    END IF;
    RETURN plan;
END
$$;

