-- attach() computes one document before it says yes: a view that fails for everybody is refused with its own error, and leaves
-- nothing behind; one that fails for somebody is attached, and says for whom.
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
SET client_min_messages = warning;
CREATE EXTENSION profile_cache;
CREATE SCHEMA app;
\set ECHO all
-- A division by zero, for each.
CREATE VIEW app.document AS SELECT p.supabase_user_id AS uid, jsonb_build_object('n', 1 / (p.id - p.id)) AS document FROM user_profile AS p;
SELECT profile_cache.attach('user_profile', document => 'app.document');
-- A name that is found under the session's search_path alone: here code in C looks it up. Its own detail and hint stay.
\set ECHO none
CREATE FUNCTION app.remotely(text, text) RETURNS text LANGUAGE c IMMUTABLE STRICT AS '$libdir/dblink', 'dblink_exec';
SELECT format($f$CREATE FUNCTION app.shown(sql text) RETURNS text LANGUAGE sql IMMUTABLE RETURN app.remotely(%L, sql)$f$,
    format('host=%s port=%s dbname=%s user=%s', current_setting('unix_socket_directories'), current_setting('port'), current_database(), current_user)) \gexec
\set ECHO all
CREATE OR REPLACE VIEW app.document AS SELECT p.supabase_user_id AS uid, jsonb_build_object('n', app.shown('DO $$ BEGIN PERFORM FROM mood; END $$')) AS document FROM user_profile AS p;
SELECT profile_cache.attach('user_profile', document => 'app.document');
CREATE OR REPLACE VIEW app.document AS SELECT p.supabase_user_id AS uid, jsonb_build_object('n', app.shown('DO $$ BEGIN RAISE ''no'' USING DETAIL = ''its detail'', HINT = ''its hint'', ERRCODE = ''23514''; END $$')) AS document FROM user_profile AS p;
SELECT profile_cache.attach('user_profile', document => 'app.document');
-- It left nothing.
SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal AND tgrelid = 'user_profile'::regclass;
SELECT count(*) FROM profile_cache.attachment;
-- Without a profile, what is wrong with every row is not found, and what is wrong before any is.
CREATE TABLE person (uid uuid NOT NULL UNIQUE, name text, n int NOT NULL DEFAULT 0);
CREATE OR REPLACE VIEW app.nobody AS SELECT p.uid, jsonb_build_object('n', 1 / p.n) AS document FROM person AS p;
SELECT profile_cache.attach('person', key => 'uid', document => 'app.nobody');
SELECT profile_cache.detach();
CREATE OR REPLACE VIEW app.nobody AS SELECT p.uid, jsonb_build_object('n', s.n) AS document FROM (SELECT 1 / count(*) AS n FROM (SELECT WHERE false) AS nothing) AS s LEFT JOIN person AS p ON true;
SELECT profile_cache.attach('person', key => 'uid', document => 'app.nobody');
-- Some fail: it is said of the first, and those after it are not asked once one is shown.
INSERT INTO person SELECT ('00000000-0000-4000-8000-00000000000' || i)::uuid, 'p' || i, i / 3 FROM generate_series(1, 5) AS i;
CREATE OR REPLACE VIEW app.nobody AS SELECT p.uid, jsonb_build_object('n', 1 / p.n) AS document FROM person AS p;
SELECT profile_cache.attach('person', key => 'uid', document => 'app.nobody');
CALL profile_cache.refresh();
SELECT get_profile('00000000-0000-4000-8000-000000000003');
SELECT profile_cache.detach();
-- And who may not wait, does not.
CREATE OR REPLACE VIEW app.nobody AS SELECT p.uid, jsonb_build_object('n', (SELECT count(*) FROM (VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9), (10)) AS a(n), (VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9), (10)) AS b(n),
    (VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9), (10)) AS c(n), (VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9), (10)) AS d(n), (VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9), (10)) AS e(n),
    (VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9), (10)) AS f(n), (VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9), (10)) AS g(n), (VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9), (10)) AS h(n), (VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9), (10)) AS i(n))) AS document FROM person AS p;
SET statement_timeout = '300ms';
SELECT profile_cache.attach('person', key => 'uid', document => 'app.nobody');
RESET statement_timeout;
SELECT count(*) FROM profile_cache.attachment;
