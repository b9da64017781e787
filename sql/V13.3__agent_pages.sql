-- A cascade changes every agent at once, and the old versions stay until the standby and every reader have let go of them: room for three
-- more versions beside each row keeps such an update in its page, without new entries in five indexes. Ten thousand agents take 20 MB.
ALTER TABLE phoenix.agents SET (fillfactor = 25);
