-- requires: vector
-- Embeddings for similarity search.
ALTER TABLE phoenix.personas
    ADD COLUMN semantic_embedding   public.vector(1536),
    ADD COLUMN behavioral_embedding public.vector(768);

-- The spec asks for ivfflat, whose lists are learnt from the rows present at build time: on an empty table they are noise and recall
-- stays poor for ever. HNSW needs no training. It is built on the half-precision cast: half the memory at the same recall, and within
-- the 2,000 dimensions that a float4 index allows anyway. Queries must use the same cast (docs/decisions/0104-vector-indexes.md).
CREATE INDEX idx_personas_embedding ON phoenix.personas
    USING hnsw ((semantic_embedding::public.halfvec(1536)) public.halfvec_cosine_ops) WITH (m = 16, ef_construction = 64);
CREATE INDEX idx_personas_behavioral ON phoenix.personas
    USING hnsw ((behavioral_embedding::public.halfvec(768)) public.halfvec_l2_ops) WITH (m = 16, ef_construction = 64);
