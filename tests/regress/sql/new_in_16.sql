-- What PostgreSQL 16 has brought: constructors of JSON in a view, which print as to_json() does.
SELECT current_setting('server_version_num')::int < 160000 AS older \gset
\if :older
\quit
\endif
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
CREATE EXTENSION profile_cache;
ALTER TABLE user_profile ADD COLUMN about regclass;
\set attach 'SELECT profile_cache.attach(document => \'document\'); DROP VIEW document;'
SET client_min_messages = warning;
\set ECHO all

-- Names of other objects are printed, and renaming those is no change of a row.
CREATE VIEW document AS SELECT supabase_user_id, JSON_OBJECT('about' : p.about RETURNING jsonb) AS document FROM user_profile AS p;
:attach
CREATE VIEW document AS SELECT supabase_user_id, JSON_ARRAY(p.email, p.about RETURNING jsonb) AS document FROM user_profile AS p;
:attach
CREATE VIEW document AS SELECT supabase_user_id,
    (SELECT JSON_OBJECTAGG(r.id : p.about RETURNING jsonb) FROM user_role AS r WHERE r.user_id = p.id) AS document FROM user_profile AS p;
:attach
-- Rows in no order that the view gives.
CREATE VIEW document AS SELECT supabase_user_id,
    (SELECT JSON_ARRAYAGG(r.id ABSENT ON NULL RETURNING jsonb) FROM user_role AS r WHERE r.user_id = p.id) AS document FROM user_profile AS p;
SELECT profile_cache.attach(document => 'document');
SELECT profile_cache.detach();
DROP VIEW document;
CREATE VIEW document AS SELECT supabase_user_id,
    (SELECT to_jsonb(any_value(r.id)) FROM user_role AS r WHERE r.user_id = p.id) AS document FROM user_profile AS p;
SELECT profile_cache.attach(document => 'document');
SELECT profile_cache.detach();
DROP VIEW document;

-- Served like any other document.
CREATE VIEW profile_document AS SELECT supabase_user_id, JSON_OBJECT(
    'email' : p.email, 'is' : p.email IS JSON, 'roles' :
        (SELECT JSON_ARRAYAGG(JSON_OBJECT('id' : r.id, 'role' : o.name) ORDER BY r.id) FROM user_role AS r JOIN role AS o ON o.id = r.role_id WHERE r.user_id = p.id)
    ABSENT ON NULL RETURNING jsonb) AS document FROM user_profile AS p;
SELECT profile_cache.attach(document => 'profile_document');
CALL profile_cache.refresh();
SELECT state();
SELECT get_profile(u(1));
UPDATE user_role SET role_id = 2 WHERE id = 1;
UPDATE user_profile SET email = '[]' WHERE id = 1;
SELECT state();
SELECT get_profile(u(1));
SELECT what, user_id FROM wrong();
