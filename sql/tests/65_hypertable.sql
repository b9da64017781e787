-- requires: timescaledb
-- Chunks and retention.
SELECT plan(6);
SELECT ok(EXISTS (SELECT FROM timescaledb_information.hypertables WHERE hypertable_schema = 'phoenix' AND hypertable_name = 'consciousness_timeline'), 'the timeline is a hypertable');
INSERT INTO phoenix.consciousness_timeline ("time", global_consciousness, global_trust)
    VALUES ('1991-03-05', 100, 0.5), ('1991-06-05', 100, 0.5), (now(), 100, 0.5) ON CONFLICT DO NOTHING;
SELECT is((SELECT count(*)::integer FROM timescaledb_information.chunks c WHERE c.hypertable_name = 'consciousness_timeline' AND c.range_start < '1992-01-01'), 2, 'each week has a chunk of its own');
SELECT is((SELECT string_agg(c.chunk_name, ', ') FROM timescaledb_information.chunks c WHERE c.hypertable_name = 'consciousness_timeline' AND NOT c.is_compressed
           AND 3 > (SELECT count(*) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = format('%I.%I', c.chunk_schema, c.chunk_name)::regclass)), NULL,
          'every chunk has all indexes');
SELECT cmp_ok(phoenix.retain_consciousness(), '>=', 2, 'retention drops old chunks');
SELECT is((SELECT count(*)::integer FROM phoenix.consciousness_timeline WHERE "time" < now() - INTERVAL '120 days'), 0, 'and their rows');
SELECT cmp_ok((SELECT count(*)::integer FROM phoenix.consciousness_timeline), '>=', 1, 'the newer rows stay');
SELECT * FROM finish();
