-- What the knowledge graph consists of, row by row, and how its changes leave: as events `graph.changed` (docs/graph.md).
-- Triggers, the snapshot that a rebuild and a check read, and the grants all follow from phoenix.graph_sources(): one line for each table
-- with the columns that the graph knows, and the function that says which nodes and edges such a row stands for.

-- ---------------------------------------------------------------------------------------------------------------- elements
-- An element as it is in an event: {"node": label, "id", "properties"} or {"edge": type, "from_label", "from", "to_label", "to", "properties"};
-- "distinct" tells edges of one type between the same two nodes apart. Numbers that JSON does not have count as absent.
CREATE OR REPLACE FUNCTION phoenix.graph_node(label text, id uuid, properties jsonb) RETURNS jsonb
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN jsonb_build_object('node', label, 'id', id, 'properties', jsonb_strip_nulls(properties));

CREATE OR REPLACE FUNCTION phoenix.graph_edge(type text, from_label text, from_id uuid, to_label text, to_id uuid,
                                              properties jsonb DEFAULT '{}', distinct_by text DEFAULT NULL) RETURNS jsonb
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN jsonb_strip_nulls(jsonb_build_object('edge', type, 'from_label', from_label, 'from', from_id, 'to_label', to_label, 'to', to_id,
                                                'distinct', distinct_by, 'properties', properties));

CREATE OR REPLACE FUNCTION phoenix.graph_key(element jsonb) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN coalesce(element ->> 'id', concat_ws('|', element ->> 'from', element ->> 'to', element ->> 'edge', element ->> 'distinct'));
COMMENT ON FUNCTION phoenix.graph_key IS 'The key of its events: id of a node, from|to|type of an edge, with what tells it apart behind it';

-- The functions below once gave sets of rows, and a function cannot be replaced by one that gives something else. The view comes again at the end.
DO $$
DECLARE
    object text;
BEGIN
    FOR object IN SELECT oid::regprocedure FROM pg_proc
                  WHERE pronamespace = 'phoenix'::regnamespace AND proname ~ '^graph_' AND proretset AND prorettype = 'jsonb'::regtype LOOP
        EXECUTE format('DROP FUNCTION %s CASCADE', object);
    END LOOP;
END
$$;

-- The nodes and edges that a row stands for. Expressions: as queries they took a trigger twice as long in all.
-- Nobody's name, address or words: the graph has one login and no row security (docs/decisions/0640-what-the-graph-knows.md).
CREATE OR REPLACE FUNCTION phoenix.graph_agent(id uuid, codename text, team phoenix.team, role text, decommissioned_at timestamptz,
                                               supervisor_agent uuid, current_task uuid, current_task_since timestamptz) RETURNS jsonb[]
    LANGUAGE sql STABLE RETURN array_remove(ARRAY[
        phoenix.graph_node('Agent', id, jsonb_build_object('codename', left(codename, 500), 'team', team, 'role', left(role, 500),
                                                           'decommissioned', decommissioned_at IS NOT NULL)),
        CASE WHEN supervisor_agent IS NOT NULL THEN phoenix.graph_edge('DELEGATES_TO', 'Agent', supervisor_agent, 'Agent', id) END,
        CASE WHEN current_task IS NOT NULL THEN phoenix.graph_edge('WORKING_ON', 'Agent', id, 'Task', current_task,
                                                                   jsonb_build_object('started', phoenix.rfc3339(current_task_since))) END], NULL);
CREATE OR REPLACE FUNCTION phoenix.graph_persona(id uuid, role text, industry text) RETURNS jsonb[] LANGUAGE sql STABLE
    RETURN ARRAY[phoenix.graph_node('Persona', id, jsonb_build_object('role', left(role, 500), 'industry', left(industry, 500)))];
CREATE OR REPLACE FUNCTION phoenix.graph_company(id uuid, name text, sector text[]) RETURNS jsonb[] LANGUAGE sql STABLE
    RETURN ARRAY[phoenix.graph_node('Company', id, jsonb_build_object('name', left(name, 500), 'sector', array_remove(sector, NULL)))];
CREATE OR REPLACE FUNCTION phoenix.graph_product(id uuid, name text, category text) RETURNS jsonb[] LANGUAGE sql STABLE
    RETURN ARRAY[phoenix.graph_node('Product', id, jsonb_build_object('name', left(name, 500), 'category', left(category, 500)))];
CREATE OR REPLACE FUNCTION phoenix.graph_task(id uuid, category text, status phoenix.task_status, priority integer, team_assignment phoenix.team)
    RETURNS jsonb[] LANGUAGE sql STABLE
    RETURN ARRAY[phoenix.graph_node('Task', id, jsonb_build_object('category', left(category, 500), 'status', status, 'priority', priority, 'team', team_assignment))];
CREATE OR REPLACE FUNCTION phoenix.graph_trust(agent_from uuid, agent_to uuid, score double precision) RETURNS jsonb[] LANGUAGE sql STABLE
    RETURN ARRAY[phoenix.graph_edge('TRUSTS', 'Agent', agent_from, 'Agent', agent_to, jsonb_build_object('score', phoenix.finite(score)))];
CREATE OR REPLACE FUNCTION phoenix.graph_pair(agent_a uuid, agent_b uuid, strength double precision) RETURNS jsonb[] LANGUAGE sql STABLE
    RETURN ARRAY[phoenix.graph_edge('ENTANGLED_WITH', 'Agent', agent_a, 'Agent', agent_b, jsonb_build_object('strength', phoenix.finite(strength)))];
CREATE OR REPLACE FUNCTION phoenix.graph_employment(persona_id uuid, company_id uuid) RETURNS jsonb[] LANGUAGE sql STABLE
    RETURN ARRAY[phoenix.graph_edge('WORKS_AT', 'Persona', persona_id, 'Company', company_id)];
-- One persona may decide about several things at one company: an edge each.
CREATE OR REPLACE FUNCTION phoenix.graph_decider(company_id uuid, persona_id uuid, authority text) RETURNS jsonb[] LANGUAGE sql STABLE
    RETURN ARRAY[phoenix.graph_edge('DECIDES_FOR', 'Persona', persona_id, 'Company', company_id, jsonb_build_object('authority', authority), authority)];
CREATE OR REPLACE FUNCTION phoenix.graph_influence(persona_from uuid, persona_to uuid) RETURNS jsonb[] LANGUAGE sql STABLE
    RETURN ARRAY[phoenix.graph_edge('INFLUENCES', 'Persona', persona_from, 'Persona', persona_to)];
CREATE OR REPLACE FUNCTION phoenix.graph_dependency(task_id uuid, depends_on uuid) RETURNS jsonb[] LANGUAGE sql STABLE
    RETURN ARRAY[phoenix.graph_edge('DEPENDS_ON', 'Task', task_id, 'Task', depends_on)];
CREATE OR REPLACE FUNCTION phoenix.graph_value(task_id uuid, company_id uuid, amount numeric) RETURNS jsonb[] LANGUAGE sql STABLE
    -- The graph has no exact decimals: to the cent up to 90 trillion dollars.
    RETURN ARRAY[phoenix.graph_edge('GENERATES_VALUE', 'Task', task_id, 'Company', company_id, jsonb_build_object('amount', phoenix.finite(amount::double precision)))];
CREATE OR REPLACE FUNCTION phoenix.graph_supply(supplier_id uuid, customer_id uuid) RETURNS jsonb[] LANGUAGE sql STABLE
    RETURN ARRAY[phoenix.graph_edge('SUPPLIES', 'Company', supplier_id, 'Company', customer_id)];
CREATE OR REPLACE FUNCTION phoenix.graph_competition(company_a uuid, company_b uuid) RETURNS jsonb[] LANGUAGE sql STABLE
    RETURN ARRAY[phoenix.graph_edge('COMPETES_WITH', 'Company', company_a, 'Company', company_b)];
-- Margarine that stands in for butter: (margarine)-[:SUBSTITUTES]->(butter).
CREATE OR REPLACE FUNCTION phoenix.graph_substitute(product_id uuid, substitute_id uuid) RETURNS jsonb[] LANGUAGE sql STABLE
    RETURN ARRAY[phoenix.graph_edge('SUBSTITUTES', 'Product', substitute_id, 'Product', product_id)];

CREATE OR REPLACE FUNCTION phoenix.graph_sources() RETURNS TABLE (source text, maker text, columns text[])
    LANGUAGE sql IMMUTABLE AS $$
    VALUES ('agents', 'graph_agent', ARRAY['id', 'codename', 'team', 'role', 'decommissioned_at', 'supervisor_agent', 'current_task', 'current_task_since']),
           ('personas', 'graph_persona', ARRAY['id', 'role', 'industry']),
           ('food_companies', 'graph_company', ARRAY['id', 'name', 'sector']),
           ('food_products', 'graph_product', ARRAY['id', 'name', 'category']),
           ('tasks', 'graph_task', ARRAY['id', 'category', 'status', 'priority', 'team_assignment']),
           ('agent_trust', 'graph_trust', ARRAY['agent_from', 'agent_to', 'score']),
           ('agent_pairs', 'graph_pair', ARRAY['agent_a', 'agent_b', 'strength']),
           ('persona_employments', 'graph_employment', ARRAY['persona_id', 'company_id']),
           ('company_decision_makers', 'graph_decider', ARRAY['company_id', 'persona_id', 'authority']),
           ('persona_influences', 'graph_influence', ARRAY['persona_from', 'persona_to']),
           ('task_dependencies', 'graph_dependency', ARRAY['task_id', 'depends_on']),
           ('task_company_values', 'graph_value', ARRAY['task_id', 'company_id', 'amount']),
           ('company_supplies', 'graph_supply', ARRAY['supplier_id', 'customer_id']),
           ('company_competitors', 'graph_competition', ARRAY['company_a', 'company_b']),
           ('product_substitutes', 'graph_substitute', ARRAY['product_id', 'substitute_id'])
$$;
COMMENT ON FUNCTION phoenix.graph_sources IS 'The tables that the graph is made from, the columns that it knows, and the function that makes nodes and edges from them';

-- ---------------------------------------------------------------------------------------------------------------- since when
CREATE OR REPLACE FUNCTION phoenix.keep_current_task_since() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.current_task_since := CASE WHEN NEW.current_task IS NOT NULL THEN clock_timestamp() END;
    RETURN NEW;
END
$$;
-- A row that comes in with the time it had (an import, a restore) keeps it.
CREATE OR REPLACE TRIGGER keep_current_task_since_insert BEFORE INSERT ON phoenix.agents
    FOR EACH ROW WHEN ((NEW.current_task IS NULL) <> (NEW.current_task_since IS NULL)) EXECUTE FUNCTION phoenix.keep_current_task_since();
CREATE OR REPLACE TRIGGER keep_current_task_since_update BEFORE UPDATE OF current_task, current_task_since ON phoenix.agents
    FOR EACH ROW WHEN (NEW.current_task IS DISTINCT FROM OLD.current_task) EXECUTE FUNCTION phoenix.keep_current_task_since();

-- ---------------------------------------------------------------------------------------------------------------- events
-- SQL functions are put into the expressions that call them, if what they call is as stable as they say; else each call plans them anew,
-- which costs more than all the rest. Expressions are cheaper than statements, too: sent := f(), not PERFORM f().
-- Row by row, as AFTER triggers, so that seq is taken under the row's lock. UPDATE OF names the graph's columns only: a heartbeat or a vote
-- does not even call the function. What an update leaves as it was sends nothing. A transition table would hold every embedding of a bulk
-- load a second time, and would cost each heartbeat a copy of its row.
DO $do$
DECLARE
    s      record;
    before text;
    after  text;
BEGIN
    FOR s IN SELECT * FROM phoenix.graph_sources() LOOP
        before := format('phoenix.%I(%s)', s.maker, (SELECT string_agg(format('OLD.%I', c), ', ' ORDER BY o) FROM unnest(s.columns) WITH ORDINALITY u (c, o)));
        after := replace(before, 'OLD.', 'NEW.');
        EXECUTE format($f$
            CREATE OR REPLACE FUNCTION phoenix.%1$I() RETURNS trigger
                LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
            DECLARE
                -- The elements that the row stood for, and those that it stands for.
                before jsonb[] := '{}';
                after  jsonb[] := '{}';
                kept   text[];
                one    jsonb;
                sent   bigint;
            BEGIN
                IF TG_OP = 'TRUNCATE' THEN
                    PERFORM phoenix.emit('graph.changed', 'graph', phoenix.graph_key(e), jsonb_build_object('op', 'delete') || (e - 'properties'))
                    FROM phoenix.graph_elements g, LATERAL (SELECT g.element AS e) x WHERE g.source = %4$L;
                    RETURN NULL;
                END IF;
                IF TG_OP <> 'INSERT' THEN
                    before := %2$s;
                END IF;
                IF TG_OP <> 'DELETE' THEN
                    after := %3$s;
                END IF;
                FOREACH one IN ARRAY before LOOP
                    CONTINUE WHEN one = ANY (after);
                    kept := coalesce(kept, ARRAY(SELECT phoenix.graph_key(e) FROM unnest(after) e));
                    CONTINUE WHEN phoenix.graph_key(one) = ANY (kept);
                    sent := phoenix.emit('graph.changed', 'graph', phoenix.graph_key(one), jsonb_build_object('op', 'delete') || (one - 'properties'));
                END LOOP;
                FOREACH one IN ARRAY after LOOP
                    CONTINUE WHEN one = ANY (before);
                    sent := phoenix.emit('graph.changed', 'graph', phoenix.graph_key(one), jsonb_build_object('op', 'upsert') || one);
                END LOOP;
                RETURN NULL;
            END
            $$
            $f$, 'tell_' || s.maker, before, after, s.source);
        EXECUTE format('CREATE OR REPLACE TRIGGER graph_row AFTER INSERT OR DELETE ON phoenix.%I FOR EACH ROW EXECUTE FUNCTION phoenix.%I()',
                       s.source, 'tell_' || s.maker);
        EXECUTE format('CREATE OR REPLACE TRIGGER graph_update AFTER UPDATE OF %s ON phoenix.%I FOR EACH ROW EXECUTE FUNCTION phoenix.%I()',
                       (SELECT string_agg(quote_ident(c), ', ') FROM unnest(s.columns) c), s.source, 'tell_' || s.maker);
        EXECUTE format('CREATE OR REPLACE TRIGGER graph_truncate BEFORE TRUNCATE ON phoenix.%I FOR EACH STATEMENT EXECUTE FUNCTION phoenix.%I()',
                       s.source, 'tell_' || s.maker);
        -- Of these tables the board's role, whom row security shows every task, reads what the graph knows and no more.
        EXECUTE format('GRANT SELECT (%s) ON phoenix.%I TO phoenix_board', (SELECT string_agg(quote_ident(c), ', ') FROM unnest(s.columns) c), s.source);
        -- A view's functions are called as whoever asks the view.
        EXECUTE format('GRANT EXECUTE ON FUNCTION phoenix.%I TO phoenix_board, graph', s.maker);
    END LOOP;
END
$do$;
GRANT EXECUTE ON FUNCTION phoenix.graph_sources(), phoenix.graph_node(text, uuid, jsonb), phoenix.graph_key(jsonb),
    phoenix.graph_edge(text, text, uuid, text, uuid, jsonb, text), phoenix.rfc3339(timestamptz), phoenix.finite(double precision)
    TO phoenix_board, graph;

-- ---------------------------------------------------------------------------------------------------------------- the whole graph
SET ROLE phoenix_board;
DO $do$
BEGIN
    EXECUTE 'CREATE OR REPLACE VIEW phoenix.graph_elements (source, element) AS ' || (
        SELECT string_agg(format('SELECT %L, e FROM phoenix.%I r, unnest(phoenix.%I(%s)) e', source, source, maker,
                                 (SELECT string_agg(format('r.%I', c), ', ' ORDER BY o) FROM unnest(columns) WITH ORDINALITY u (c, o))), ' UNION ALL ')
        FROM phoenix.graph_sources());
END
$do$;
GRANT SELECT ON phoenix.graph_elements TO phoenix_owner, graph;
COMMENT ON VIEW phoenix.graph_elements IS 'Every node and edge that the knowledge graph has to have, as in the data of graph.changed: what a rebuild and a check read';
SET ROLE phoenix_owner;

-- The newest number of an event that anybody has taken, committed or not. A rebuild asks for it before it reads (docs/graph.md).
CREATE OR REPLACE FUNCTION phoenix.newest_event() RETURNS bigint
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM phoenix.outbox_seq_seq
$$;

CREATE OR REPLACE FUNCTION phoenix.record_graph_migration(version text, description text, checksum text) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO phoenix.graph_migrations AS m (version, description, checksum) VALUES (version, description, checksum)
    ON CONFLICT ON CONSTRAINT graph_migrations_pkey DO UPDATE SET description = excluded.description, checksum = excluded.checksum, applied_at = now()
    WHERE m.checksum <> excluded.checksum
$$;
COMMENT ON FUNCTION phoenix.record_graph_migration IS 'Notes that a file of sql/cypher/ is applied; the time is that of the first, or of the change';

-- Who rebuilds and checks reads this, and nothing else of the platform.
GRANT EXECUTE ON FUNCTION phoenix.newest_event(), phoenix.record_graph_migration(text, text, text) TO graph;
GRANT SELECT ON phoenix.graph_migrations TO graph;
