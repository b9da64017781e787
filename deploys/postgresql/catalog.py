"""What the schema consists of, object by object, so that a change by hand can be named.

After each migration the deploy records every object of schema `phoenix` with its definition in `phoenix.deployed_catalog`: in the
database, so that the record goes with it through failovers and restores. Later runs compare.
"""

from __future__ import annotations

# Partitions come and go by themselves, and so do TimescaleDB's chunks (in schemas of its own) and triggers: they are no part of it. What a
# second region's copy hangs on the tables (publication.py, subscription.py), and what Kafka Connect may read (outbox.py), is described and
# repaired there.
OBJECTS = r"""
WITH relation AS (
    SELECT c.oid, c.relname, c.relkind, c.relacl, c.relowner, c.relrowsecurity, c.relforcerowsecurity,
           CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence' ELSE 'table' END AS kind
    FROM pg_class c
    WHERE c.relnamespace = 'phoenix'::regnamespace AND NOT c.relispartition AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
      AND c.relname NOT IN ('deployed_catalog', 'flyway_schema_history')
), routine AS (
    SELECT p.oid, p.oid::regprocedure::text AS name, p.proacl, p.proowner, p.prokind
    FROM pg_proc p WHERE p.pronamespace = 'phoenix'::regnamespace
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
)
SELECT kind || ' ' || relname AS object, concat_ws(' ', relowner::regrole, relrowsecurity, relforcerowsecurity,
       CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(oid) END) AS definition FROM relation
UNION ALL
SELECT 'column ' || relname || '.' || attname,
       concat_ws(' ', format_type(atttypid, atttypmod), attnotnull, attgenerated, attidentity, pg_get_expr(adbin, adrelid))
FROM relation JOIN pg_attribute a ON a.attrelid = relation.oid AND attnum > 0 AND NOT attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum WHERE relkind IN ('r', 'p')
UNION ALL
SELECT 'constraint ' || conname || ' of ' || relname, pg_get_constraintdef(k.oid)
FROM relation JOIN pg_constraint k ON k.conrelid = relation.oid
UNION ALL
SELECT 'index ' || i.relname, pg_get_indexdef(i.oid)
FROM relation JOIN pg_index x ON x.indrelid = relation.oid JOIN pg_class i ON i.oid = x.indexrelid
UNION ALL
SELECT 'trigger ' || tgname || ' of ' || relname, concat_ws(' ', pg_get_triggerdef(t.oid), t.tgenabled)
FROM relation JOIN pg_trigger t ON t.tgrelid = relation.oid WHERE NOT tgisinternal AND tgname NOT LIKE 'ts\_%'
  AND NOT EXISTS (SELECT FROM pg_proc p WHERE p.oid = t.tgfoid AND p.pronamespace = to_regnamespace('region2'))
UNION ALL
SELECT 'policy ' || polname || ' of ' || relname, concat_ws(' ', polcmd, polpermissive,
       (SELECT string_agg(role::regrole::text, ',' ORDER BY role::regrole::text) FROM unnest(polroles) role),
       pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
FROM relation JOIN pg_policy y ON y.polrelid = relation.oid
UNION ALL
SELECT 'function ' || name, concat_ws(' ', proowner::regrole, CASE WHEN prokind IN ('f', 'p') THEN pg_get_functiondef(oid) END) FROM routine
UNION ALL
SELECT 'type ' || typname, string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_type t JOIN pg_enum e ON e.enumtypid = t.oid
WHERE typnamespace = 'phoenix'::regnamespace GROUP BY typname
UNION ALL
SELECT 'rights of ' || CASE grantee WHEN 0 THEN 'public' ELSE grantee::regrole::text END || ' on ' || object,
       string_agg(privilege, ',' ORDER BY privilege)
FROM (
    SELECT kind || ' ' || relname AS object, a.grantee, a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END AS privilege
    FROM relation, aclexplode(coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner))) a
    UNION ALL
    SELECT 'column ' || relname || '.' || attname, a.grantee, a.privilege_type
    FROM relation JOIN pg_attribute c ON c.attrelid = relation.oid AND NOT attisdropped, aclexplode(attacl) a
    UNION ALL
    SELECT 'function ' || name, a.grantee, a.privilege_type FROM routine, aclexplode(coalesce(proacl, acldefault('f', proowner))) a
    UNION ALL
    SELECT 'schema phoenix', a.grantee, a.privilege_type FROM pg_namespace n, aclexplode(nspacl) a WHERE nspname = 'phoenix'
    UNION ALL
    SELECT 'future ' || defaclobjtype::text || ' of ' || defaclrole::regrole, a.grantee, a.privilege_type
    FROM pg_default_acl, aclexplode(defaclacl) a WHERE defaclnamespace IN (0, 'phoenix'::regnamespace)
) granted
WHERE (grantee IN (to_regrole('subscriber')::oid, to_regrole('connect')::oid) AND object ~ '^(table|column|schema) ') IS NOT TRUE
GROUP BY grantee, object
UNION ALL
SELECT 'job ' || jobname, concat_ws(' ', schedule, command, username, active) FROM cron.job WHERE jobname IS NOT NULL
UNION ALL
SELECT 'migrations', md5(string_agg(concat_ws(' ', script, checksum, installed_rank), ',' ORDER BY installed_rank))
FROM phoenix.flyway_schema_history
"""

MIGRATIONS = "migrations (altered)"
"""What DIFFERENCES says, among others, when migrations ran after the last record."""

STRUCTURE = ("column ", "constraint ", "index ", "type ")
"""How objects begin that only a versioned migration makes: applying the repeatable files again does not bring them back."""

RECORD = f"""
CREATE TABLE IF NOT EXISTS phoenix.deployed_catalog (object text PRIMARY KEY, definition text);
ALTER TABLE phoenix.deployed_catalog OWNER TO phoenix_owner;
GRANT SELECT ON phoenix.deployed_catalog TO monitor;
COMMENT ON TABLE phoenix.deployed_catalog IS 'Objects of the schema as the last migration left them: what phoenix drift compares with.';
TRUNCATE phoenix.deployed_catalog;
INSERT INTO phoenix.deployed_catalog (object, definition) {OBJECTS};
"""

# Whether there is a record at all.
RECORDED = "SELECT to_json(to_regclass('phoenix.deployed_catalog') IS NOT NULL)"

# Which objects are missing, added or altered since, as "<object> (<how>)"; null when nothing was ever recorded.
DIFFERENCES = f"""
WITH present AS ({OBJECTS})
SELECT coalesce(json_agg(object || CASE
    WHEN present.object IS NULL THEN ' (missing)' WHEN recorded.object IS NULL THEN ' (added)' ELSE ' (altered)' END ORDER BY object), '[]')
FROM phoenix.deployed_catalog recorded FULL JOIN present USING (object)
WHERE present.object IS NULL OR recorded.object IS NULL OR present.definition IS DISTINCT FROM recorded.definition
"""
