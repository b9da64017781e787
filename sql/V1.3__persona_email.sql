-- The persona's e-mail address, encrypted by the client.

-- The spec encrypts a column "email" that does not exist, with a key written into the migration. The server never gets the key or the
-- address: clients encrypt (ops/pii.py), the server keeps ciphertext and a keyed hash for exact look-up (docs/decisions/0103-pii.md).
ALTER TABLE phoenix.personas
    ADD COLUMN email_encrypted bytea,
    ADD COLUMN email_hash      bytea,
    ADD COLUMN email_key_id    smallint,
    ADD CONSTRAINT email_all_or_nothing CHECK (num_nonnulls(email_encrypted, email_hash, email_key_id) IN (0, 3)),
    -- key id (1) + nonce (12) + tag (16) is the shortest ciphertext; its first byte names the key.
    ADD CONSTRAINT email_key_named CHECK (octet_length(email_encrypted) > 29 AND get_byte(email_encrypted, 0) = email_key_id),
    ADD CONSTRAINT email_hash_is_sha256 CHECK (octet_length(email_hash) = 32);
COMMENT ON COLUMN phoenix.personas.email_encrypted IS 'AES-256-GCM: key id, nonce, ciphertext, tag; bound to the persona id';
COMMENT ON COLUMN phoenix.personas.email_hash IS 'HMAC-SHA-256 of the normalised address under a key derived for look-up only';

-- Not unique: one shared mailbox may belong to several personas, and during a key rotation two keys are in use at once.
CREATE INDEX idx_personas_email_hash ON phoenix.personas (email_hash) WHERE email_hash IS NOT NULL;
-- What a key rotation still has to do, without reading what it has done.
CREATE INDEX idx_personas_email_key ON phoenix.personas (email_key_id) WHERE email_key_id IS NOT NULL;
