-- requires: vector
-- Similarity search.
SELECT plan(5);
SELECT matches(pg_get_indexdef('phoenix.idx_personas_embedding'::regclass), 'USING hnsw .*halfvec\(1536\).*halfvec_cosine_ops', 'the semantic index is HNSW on half precision');
SELECT matches(pg_get_indexdef('phoenix.idx_personas_behavioral'::regclass), 'USING hnsw .*halfvec\(768\).*halfvec_l2_ops', 'the behavioural one too');
INSERT INTO phoenix.personas (name, company, semantic_embedding)
SELECT 'v' || n, 'tap', (SELECT array_agg(CASE WHEN i = n THEN 1 ELSE 0.01 END) FROM generate_series(1, 1536) i)::vector(1536) FROM generate_series(1, 5) n;
SELECT is((SELECT name FROM phoenix.personas WHERE company = 'tap' ORDER BY semantic_embedding::halfvec(1536) <=> (SELECT semantic_embedding::halfvec(1536) FROM phoenix.personas WHERE name = 'v3' AND company = 'tap') LIMIT 1),
          'v3', 'the nearest is found');
SET LOCAL enable_seqscan = off;
SET LOCAL enable_sort = off;
CREATE FUNCTION tap.plan_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE line text; whole text := '';
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP whole := whole || line || E'\n'; END LOOP;
    RETURN whole;
END $$;
SELECT matches(tap.plan_of($$ SELECT id FROM phoenix.personas ORDER BY semantic_embedding::halfvec(1536) <=> array_fill(1, ARRAY[1536])::vector::halfvec(1536) LIMIT 5 $$),
               'personas_2025_q4_.*(embedding|halfvec).*idx', 'the index serves the query with the documented cast');
SELECT throws_ok($$ UPDATE phoenix.personas SET semantic_embedding = '[1,2,3]' WHERE company = 'tap' $$, '22000', NULL, 'a vector of another length is refused');
SELECT * FROM finish();
