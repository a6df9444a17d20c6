-- What the document view raises does not break a commit, in whatever class its SQLSTATE is: the profile has no document,
-- and a row in profile_cache.failure. (What the server does to us passes: tests/servers, cancelled_commit.)
-- Rules: W10.
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
\set VERBOSITY terse
CREATE EXTENSION profile_cache;
CREATE SCHEMA app;
-- Raises any SQLSTATE, by having another session raise it.
CREATE FUNCTION app.remotely(text, text) RETURNS text LANGUAGE c IMMUTABLE STRICT AS '$libdir/dblink', 'dblink_exec';
SELECT format($f$CREATE FUNCTION app.raised(code text) RETURNS text LANGUAGE sql IMMUTABLE
    RETURN app.remotely(%L, 'DO $d$ BEGIN RAISE EXCEPTION SQLSTATE ''' || code || '''; END $d$')$f$,
    format('host=%s port=%s dbname=%s user=%s', current_setting('unix_socket_directories'), current_setting('port'), current_database(), current_user)) \gexec
CREATE VIEW app.document AS SELECT p.supabase_user_id AS uid, jsonb_build_object('email', p.email, 'note', p.note,
    'raised', CASE WHEN p.note LIKE 'raise %' THEN app.raised(substr(p.note, 7)) END,
    'roles', (SELECT jsonb_agg(r.name ORDER BY r.name) FROM user_role AS u JOIN role AS r ON r.id = u.role_id WHERE u.user_id = p.id)) AS document
    FROM user_profile AS p;
CREATE FUNCTION attempt(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'went through';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;
SELECT profile_cache.attach('user_profile', document => 'app.document') \g /dev/null
CALL profile_cache.refresh();

-- What its data makes of it, what it asks of others, what becomes of them.
\set code 22012
\i include/view_raises.sql
\set code P0001
\i include/view_raises.sql
\set code 0A000
\i include/view_raises.sql
\set code 42501
\i include/view_raises.sql
\set code XX000
\i include/view_raises.sql
\set code 40001
\i include/view_raises.sql
\set code 40P01
\i include/view_raises.sql
\set code 40000
\i include/view_raises.sql
\set code 53000
\i include/view_raises.sql
\set code 53100
\i include/view_raises.sql
\set code 53200
\i include/view_raises.sql
\set code 53300
\i include/view_raises.sql
\set code 53400
\i include/view_raises.sql
\set code 55P03
\i include/view_raises.sql
\set code 57000
\i include/view_raises.sql
\set code 57014
\i include/view_raises.sql
\set code 57P01
\i include/view_raises.sql
\set code 57P03
\i include/view_raises.sql
\set code 58000
\i include/view_raises.sql
\set code 58030
\i include/view_raises.sql
\set code 58P01
\i include/view_raises.sql

\set ECHO all
-- What it raises itself: a limit of the server's that it exceeds.
CREATE TABLE big (n int, user_id bigint REFERENCES user_profile, filler text);
CREATE INDEX ON big (user_id);
INSERT INTO big SELECT n, 1 + n % 2, repeat('x', 200) || n FROM generate_series(1, 20000) AS n;
CREATE VIEW app.large AS SELECT p.supabase_user_id AS uid, jsonb_build_object('email', p.email,
    'digest', CASE WHEN p.note = 'large' THEN (SELECT md5(string_agg(b.filler, '' ORDER BY b.filler)) FROM big AS b WHERE b.user_id = p.id) END) AS document FROM user_profile AS p;
SELECT profile_cache.attach('user_profile', document => 'app.large');
CALL profile_cache.refresh();
SET work_mem = '64kB';
SET temp_file_limit = '100kB';
UPDATE user_profile SET note = 'large' WHERE id = 1;
UPDATE user_profile SET email = 'both' WHERE id IN (1, 2);
SELECT id, profile_cache.explain(supabase_user_id) ->> 'served_from' FROM user_profile WHERE id IN (1, 2) ORDER BY 1;
SELECT DISTINCT sqlstate FROM profile_cache.failure;
RESET temp_file_limit;
RESET work_mem;
CALL profile_cache.refresh();
SELECT id, profile_cache.explain(supabase_user_id) ->> 'served_from', get_profile(supabase_user_id) ->> 'email' FROM user_profile WHERE id IN (1, 2) ORDER BY 1;
SELECT count(*) FROM app.large AS d WHERE get_profile(d.uid)::text IS DISTINCT FROM d.document::text;
