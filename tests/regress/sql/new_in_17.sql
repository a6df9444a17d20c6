-- What PostgreSQL 17 has brought: JSON_VALUE and its kin in a view, MERGE that deletes what has no source and returns
-- rows, other expressions for columns that are generated.
SELECT current_setting('server_version_num')::int < 170000 AS older \gset
\if :older
\quit
\endif
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
CREATE EXTENSION profile_cache;
CREATE DOMAIN few AS int CHECK (VALUE < 10);
ALTER TABLE user_profile ADD COLUMN about regclass, ADD COLUMN data jsonb,
    ADD COLUMN upper_email text GENERATED ALWAYS AS (upper(email)) STORED;
ALTER TABLE role ADD COLUMN upper_name text GENERATED ALWAYS AS (upper(name)) STORED;
UPDATE user_profile SET data = '{"n": 1}';
\set attach 'SELECT profile_cache.attach(document => \'document\'); DROP VIEW document;'
\set check 'SELECT state(); SELECT what, user_id FROM wrong(); CALL profile_cache.refresh(); SELECT state(); SELECT what, user_id FROM wrong();'
SET client_min_messages = warning;
\set ECHO all

CREATE VIEW document AS SELECT supabase_user_id, to_jsonb(JSON_SCALAR(p.about)) AS document FROM user_profile AS p;
:attach
CREATE VIEW document AS SELECT supabase_user_id, JSON_QUERY(p.data, '$.n' PASSING p.about AS x) AS document FROM user_profile AS p;
:attach
-- What makes a value of such a type is nowhere in the view.
CREATE VIEW document AS SELECT supabase_user_id, to_jsonb(JSON_VALUE(p.data, '$.n' RETURNING few)) AS document FROM user_profile AS p;
:attach
-- A date may be that of today.
CREATE VIEW document AS SELECT supabase_user_id, to_jsonb(JSON_VALUE(p.data, '$.n' RETURNING date)) AS document FROM user_profile AS p;
:attach
CREATE VIEW document AS SELECT supabase_user_id, (SELECT jsonb_agg(t.n) FROM JSON_TABLE(p.data, '$' COLUMNS (n int PATH '$.n', NESTED PATH '$.m' COLUMNS (day date PATH '$'))) AS t) AS document
    FROM user_profile AS p;
:attach
CREATE VIEW document AS SELECT supabase_user_id, (SELECT jsonb_agg(t.n) FROM JSON_TABLE(p.data, '$' COLUMNS (n few PATH '$.n')) AS t) AS document FROM user_profile AS p;
:attach
-- Several rows.
CREATE VIEW document AS SELECT supabase_user_id, to_jsonb(t) AS document FROM user_profile AS p, JSON_TABLE(p.data, '$' COLUMNS (n int PATH '$.n')) AS t;
:attach
-- Whatever it is given is looked at.
CREATE VIEW document AS SELECT supabase_user_id, (SELECT jsonb_agg(t.n) FROM JSON_TABLE((SELECT to_jsonb(count(*)) FROM role), '$' COLUMNS (n int PATH '$')) AS t) AS document
    FROM user_profile AS p;
:attach

CREATE VIEW profile_document AS SELECT supabase_user_id, jsonb_build_object(
    'email', p.upper_email, 'n', JSON_VALUE(p.data, '$.n' RETURNING int DEFAULT 0 ON EMPTY), 'has', JSON_EXISTS(p.data, '$.m'),
    'table', (SELECT jsonb_agg(to_jsonb(t)) FROM JSON_TABLE(p.data, '$'
        COLUMNS (n int PATH '$.n', place FOR ORDINALITY, has boolean EXISTS PATH '$.m', NESTED PATH '$.m' COLUMNS (m text PATH '$'))) AS t),
    'roles',
        (SELECT jsonb_agg(o.upper_name ORDER BY r.id) FROM user_role AS r JOIN role AS o ON o.id = r.role_id WHERE r.user_id = p.id)
    ) AS document FROM user_profile AS p;
SELECT profile_cache.attach(document => 'profile_document');
CALL profile_cache.refresh();
UPDATE user_profile SET data = '{"n": 2, "m": 3}' WHERE id = 1;
:check
SELECT get_profile(u(1));
ALTER TABLE user_profile ALTER COLUMN upper_email SET EXPRESSION AS (lower(email));
:check
ALTER TABLE role ALTER COLUMN upper_name SET EXPRESSION AS (lower(name));
:check
SELECT get_profile(u(1));
MERGE INTO user_role AS t USING (VALUES (1, 2), (9, 1)) AS s(id, role) ON t.id = s.id
    WHEN MATCHED THEN UPDATE SET role_id = s.role
    WHEN NOT MATCHED THEN INSERT VALUES (s.id, 3, s.role)
    WHEN NOT MATCHED BY SOURCE THEN DELETE
    RETURNING merge_action(), t.*;
:check
MERGE INTO role AS t USING (VALUES (1)) AS s(id) ON t.id = s.id
    WHEN NOT MATCHED BY SOURCE THEN UPDATE SET name = name || '!';
:check
SELECT get_profile(u(1));
