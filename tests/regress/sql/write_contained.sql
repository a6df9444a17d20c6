-- An app's write never fails because of ours: where our own update of the row cannot be made (an index
-- function that fails, a row that would not fit its page, an index that refuses our values, an
-- operator that moved), the profile is left pending, and refresh goes on with the others.
-- Rules: W14.
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
CREATE EXTENSION profile_cache;
CREATE SCHEMA ext;
CREATE EXTENSION citext SCHEMA ext;
SET search_path = public, ext;
SELECT profile_cache.attach();
CALL profile_cache.refresh();
\set check 'SELECT state(); SELECT * FROM pending(); SELECT what, user_id FROM wrong(); CALL profile_cache.refresh(); SELECT state(); SELECT * FROM pending(); SELECT what, user_id FROM wrong();'
\set ECHO all

-- An index over a function that calls another, whatever the app's search_path is by then.
CREATE FUNCTION ext.norm(t text) RETURNS text LANGUAGE sql IMMUTABLE RETURN lower(t);
CREATE FUNCTION norm_key(t text) RETURNS text LANGUAGE sql IMMUTABLE RETURN norm(t);
CREATE INDEX ON user_profile (norm_key(email));
ALTER TABLE user_profile ADD COLUMN filler text DEFAULT repeat('x', 3000);
VACUUM FULL user_profile;
CALL profile_cache.refresh();
UPDATE user_profile SET email = 'NORMED' WHERE id <= 3;
INSERT INTO user_role VALUES (10, 4, 1), (11, 5, 1);
:check
SELECT id FROM user_profile WHERE norm_key(email) = 'normed' ORDER BY id;
SET search_path = public;
INSERT INTO user_role VALUES (12, 4, 2), (13, 5, 2);
:check
SET search_path = public, ext;
CALL profile_cache.refresh();
:check
-- PL/pgSQL: whoever writes the profile runs it in his own statement, and we never do. Such a row is pending where it
-- needs an entry in the index, until there is room for it in place.
CREATE ROLE regress_writer;
GRANT SELECT, UPDATE, INSERT ON user_profile, user_role TO regress_writer;
GRANT USAGE ON SCHEMA ext TO regress_writer;
CREATE OR REPLACE FUNCTION norm_key(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    PERFORM set_config('app.seen', concat_ws(' ', nullif(current_setting('app.seen', true), ''), current_user), false);
    RETURN lower(t);
END $$;
-- Others may have the old one in their copy of the index.
\c -
SET search_path = public, ext;
SET client_min_messages = warning;
SET ROLE regress_writer;
UPDATE user_profile SET email = 'by a writer' || id;
RESET ROLE;
SELECT DISTINCT unnest(string_to_array(current_setting('app.seen', true), ' '));
SELECT set_config('app.seen', '', false);
SET ROLE regress_writer;
INSERT INTO user_role SELECT 100 + id, id, 1 FROM user_profile;
RESET ROLE;
SELECT DISTINCT unnest(string_to_array(current_setting('app.seen', true), ' '));
:check
DROP OWNED BY regress_writer;
DROP ROLE regress_writer;
DROP FUNCTION norm_key CASCADE;

-- A row that fills its page to the last byte without ours.
ALTER TABLE user_profile ALTER COLUMN note SET STORAGE PLAIN, ALTER COLUMN filler SET STORAGE PLAIN;
UPDATE user_profile SET filler = NULL, note = repeat('y', 8050) WHERE id = 2;
:check
INSERT INTO user_role VALUES (20, 2, 1);
UPDATE user_profile SET email = 'others go on' WHERE id IN (1, 3);
:check
SELECT get_profile(u(2)) -> 'roles';
UPDATE user_profile SET note = 'fits again' WHERE id = 2;
:check

-- A unique index that is being built, or was left by a build that failed: an entry would have to be checked.
TRUNCATE user_role;
UPDATE user_profile SET filler = repeat('x', 3000), note = NULL, email = 'user' || id;
CREATE UNIQUE INDEX unfinished ON user_profile (email);
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'unfinished'::regclass;
SELECT profile_cache.invalidate_all();
CALL profile_cache.refresh();
VACUUM FULL user_profile;
INSERT INTO user_role VALUES (30, 4, 1);
SELECT state();
SELECT * FROM pending();
DROP INDEX unfinished;
CALL profile_cache.refresh();
SELECT state();
SELECT count(*) FROM wrong();

-- A unique index on one of our columns, which cannot hold two of one epoch.
TRUNCATE user_role;
UPDATE user_profile SET filler = NULL, note = NULL;
SELECT profile_cache.detach();
SELECT profile_cache.attach();
\set VERBOSITY terse
CREATE UNIQUE INDEX unwise ON user_profile (cached_profile_epoch);
UPDATE user_profile SET email = 'unique' WHERE id <= 3;
INSERT INTO user_role VALUES (30, 4, 1), (31, 5, 1);
SELECT count(*) FROM wrong();
CALL profile_cache.refresh();
SELECT count(*) FROM wrong();
SELECT cached FROM profile_cache.status;
DROP INDEX unwise;
\set VERBOSITY default
CALL profile_cache.refresh();
:check

-- Operators that move, with the extension or the schema they belong to.
SELECT profile_cache.detach();
TRUNCATE user_role;
ALTER TABLE user_role DROP CONSTRAINT user_role_user_id_fkey, ALTER COLUMN user_id TYPE citext;
ALTER TABLE user_profile ADD COLUMN handle citext UNIQUE;
UPDATE user_profile SET handle = 'User' || id;
ALTER TABLE user_role ADD FOREIGN KEY (user_id) REFERENCES user_profile (handle) ON UPDATE CASCADE;
SELECT profile_cache.attach();
CALL profile_cache.refresh();
INSERT INTO user_role VALUES (40, 'USER1', 1);
:check
CREATE SCHEMA ext2;
ALTER EXTENSION citext SET SCHEMA ext2;
INSERT INTO user_role VALUES (41, 'user2', 1);
UPDATE user_profile SET email = 'moved' WHERE id = 1;
:check
ALTER SCHEMA ext2 RENAME TO ext3;
INSERT INTO user_role VALUES (42, 'user3', 1);
UPDATE user_profile SET handle = 'USER3' WHERE id = 3;
:check
SELECT id, get_profile(supabase_user_id) -> 'roles' -> 0 -> 'name' FROM user_profile ORDER BY id;
