-- What the server holds of an e-mail address.
SELECT plan(5);
SELECT hasnt_column('phoenix', 'personas', 'email', 'there is no column for the address itself');
SELECT tap.new_persona('Mail');
SELECT throws_ok($$ UPDATE phoenix.personas SET email_encrypted = '\x01' WHERE name = 'Mail' AND company = 'tap' $$, '23514', NULL, 'ciphertext comes with its digest and key');
SELECT throws_ok($$ UPDATE phoenix.personas SET email_encrypted = decode(repeat('01', 40), 'hex'), email_hash = sha256('x'), email_key_id = 2 WHERE name = 'Mail' AND company = 'tap' $$, '23514', NULL,
                 'the key id must be the one in the ciphertext');
SELECT lives_ok($$ UPDATE phoenix.personas SET email_encrypted = decode(repeat('01', 40), 'hex'), email_hash = sha256('x'), email_key_id = 1 WHERE name = 'Mail' AND company = 'tap' $$, 'a whole set is taken');
SELECT is((SELECT string_agg(p.oid::regprocedure::text, ', ') FROM pg_proc p WHERE p.pronamespace = 'phoenix'::regnamespace AND p.prosrc ~ 'pgp_sym|decrypt'), NULL, 'nothing on the server can open it');
SELECT * FROM finish();
