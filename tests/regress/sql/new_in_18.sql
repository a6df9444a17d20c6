-- What PostgreSQL 18 has brought: columns that are computed when they are read, foreign keys that nobody enforces or that
-- are of periods, old and new rows in RETURNING, and GROUP BY in another form of the view's tree.
SELECT current_setting('server_version_num')::int < 180000 AS older \gset
\if :older
\quit
\endif
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
CREATE EXTENSION profile_cache;
CREATE EXTENSION btree_gist;
ALTER TABLE user_profile ADD COLUMN upper_email text GENERATED ALWAYS AS (upper(email)) VIRTUAL;
ALTER TABLE user_role ADD COLUMN label text GENERATED ALWAYS AS ('role ' || role_id) VIRTUAL;
ALTER TABLE role ADD COLUMN upper_name text GENERATED ALWAYS AS (upper(name)) VIRTUAL;
\set attach 'SELECT profile_cache.attach(document => \'document\'); DROP VIEW document;'
\set check 'SELECT state(); SELECT what, user_id FROM wrong(); CALL profile_cache.refresh(); SELECT state(); SELECT what, user_id FROM wrong();'
SET client_min_messages = warning;
\set ECHO all

-- Virtual columns: of the profile, of a member, of a dimension, of whole rows, and in a condition.
CREATE VIEW profile_document AS SELECT supabase_user_id, jsonb_build_object(
    'email', p.upper_email, 'roles',
        (SELECT jsonb_agg(jsonb_build_array(to_jsonb(r), o.upper_name) ORDER BY r.id) FROM user_role AS r JOIN role AS o ON o.id = r.role_id
         WHERE r.user_id = p.id AND r.label <> 'role 3')
    ) AS document FROM user_profile AS p;
SELECT profile_cache.attach(document => 'profile_document');
CALL profile_cache.refresh();
SELECT get_profile(u(1));
UPDATE user_profile SET email = 'changed' WHERE id = 1;
UPDATE user_role SET role_id = 3 WHERE user_id = 1 AND role_id = 1;
UPDATE user_role SET role_id = 2 WHERE id = 2;
:check
SELECT get_profile(u(1));
UPDATE role SET name = 'changed' WHERE id = 2;
:check
ALTER TABLE user_profile ALTER COLUMN upper_email SET EXPRESSION AS (lower(email));
:check
ALTER TABLE role ALTER COLUMN upper_name SET EXPRESSION AS (lower(name));
:check
SELECT get_profile(u(1));
WITH done AS (UPDATE user_role SET role_id = 1 WHERE id = 2 RETURNING old.role_id AS was, new.role_id AS is, new.label) SELECT * FROM done;
:check
SELECT profile_cache.detach();
DROP VIEW profile_document;

-- The default document has them too.
SELECT profile_cache.attach();
CALL profile_cache.refresh();
SELECT get_profile(u(1)) -> 'upper_email';
UPDATE user_profile SET email = 'CHANGED' WHERE id = 1;
:check
SELECT get_profile(u(1)) -> 'upper_email';
SELECT profile_cache.detach();

-- GROUP BY: what it goes by is used again in HAVING, and in a subquery below.
CREATE VIEW profile_document AS SELECT supabase_user_id, jsonb_build_object('roles',
    (SELECT jsonb_object_agg(g.initial, g.n) FROM (
        SELECT left(o.name, 1) AS initial, count(*) + (SELECT count(*) FROM user_subscription AS s WHERE s.user_id = p.id AND s.status = o.name) AS n
        FROM user_role AS r JOIN role AS o ON o.id = r.role_id WHERE r.user_id = p.id
        GROUP BY o.name, left(o.name, 1) HAVING left(o.name, 1) <> 'x') AS g)
    ) AS document FROM user_profile AS p;
SELECT profile_cache.attach(document => 'profile_document');
CALL profile_cache.refresh();
UPDATE user_subscription SET status = 'editor' WHERE id = 1;
UPDATE user_role SET role_id = 2 WHERE id = 1;
:check
UPDATE role SET name = 'xerox' WHERE id = 2;
:check
SELECT get_profile(u(1));
SELECT profile_cache.detach();
DROP VIEW profile_document;

-- A foreign key that is not enforced proves nothing; one that is so no more distrusts what it proved.
ALTER TABLE user_role DROP CONSTRAINT user_role_user_id_fkey;
ALTER TABLE user_role ADD CONSTRAINT loose FOREIGN KEY (user_id) REFERENCES user_profile NOT ENFORCED;
\set view 'CREATE VIEW document AS SELECT supabase_user_id, (SELECT jsonb_agg(r.id ORDER BY r.id) FROM user_role AS r WHERE r.user_id = p.id) AS document FROM user_profile AS p;'
:view
:attach
ALTER TABLE user_role ALTER CONSTRAINT loose ENFORCED;
:view
SELECT profile_cache.attach(document => 'document');
CALL profile_cache.refresh();
SELECT state();
ALTER TABLE user_role ALTER CONSTRAINT loose NOT ENFORCED;
SELECT state();
SELECT unnest(warnings) FROM profile_cache.status;
SELECT profile_cache.detach();
DROP VIEW document;

-- One of periods finds what overlaps.
CREATE TABLE room (id int, during daterange, name text, PRIMARY KEY (id, during WITHOUT OVERLAPS));
CREATE TABLE stay (id int PRIMARY KEY, user_id bigint REFERENCES user_profile, room int, during daterange,
    FOREIGN KEY (room, PERIOD during) REFERENCES room (id, PERIOD during));
CREATE INDEX ON stay (user_id);
CREATE VIEW document AS SELECT supabase_user_id, (SELECT jsonb_agg(o.name ORDER BY o.id, o.during) FROM stay AS s
    JOIN room AS o ON o.id = s.room AND o.during && s.during WHERE s.user_id = p.id) AS document FROM user_profile AS p;
:attach
CREATE VIEW document AS SELECT supabase_user_id, (SELECT jsonb_agg(o.name ORDER BY o.id, o.during) FROM stay AS s
    JOIN room AS o ON o.id = s.room AND o.during = s.during WHERE s.user_id = p.id) AS document FROM user_profile AS p;
:attach
