-- Writers who are several roles in one transaction: by SET ROLE, by SECURITY DEFINER functions, through another session
-- of their own. Nothing is stale, and the owner's index functions run as nobody but him. And a refresh in a transaction
-- that has checks of the profile table's constraints queued, which our writing would have to requeue, is refused.
-- Rules: W14.
\set ECHO none
\i include/output.sql
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE ROLE regress_writers_app;
CREATE ROLE regress_writers_dbo IN ROLE regress_writers_app;
CREATE ROLE regress_writers_web;
CREATE ROLE regress_writers_clerk;
\set app regress_writers_app
\set dbo regress_writers_dbo
\set web regress_writers_web
\i include/owners_code.sql
CREATE FUNCTION public.remotely(text, text) RETURNS text LANGUAGE c STRICT AS '$libdir/dblink', 'dblink_exec';
SELECT set_config('test.self', format('host=%s port=%s dbname=%s user=%s', current_setting('unix_socket_directories'), current_setting('port'), current_database(), current_user), false) \g /dev/null
CALL begin_anew();
ALTER TABLE app.person ADD COLUMN place int;
UPDATE app.person SET place = id;
SET ROLE regress_writers_app;
ALTER TABLE app.person ADD CONSTRAINT place UNIQUE (place) DEFERRABLE INITIALLY DEFERRED;
CREATE FUNCTION app.looked(t text) RETURNS text LANGUAGE sql IMMUTABLE RETURN CASE WHEN public.mark() THEN t END;
CREATE INDEX ON app.person (app.looked(email));
CREATE FUNCTION app.label(who int, what text) RETURNS void LANGUAGE sql SECURITY DEFINER
BEGIN ATOMIC
    UPDATE app.badge SET label = what WHERE person = who;
END;
CREATE FUNCTION app.mail(who int, what text) RETURNS void LANGUAGE sql SECURITY DEFINER
BEGIN ATOMIC
    UPDATE app.person SET email = what WHERE id = who;
END;
GRANT SELECT, UPDATE, INSERT, DELETE ON app.person, app.badge TO regress_writers_web, regress_writers_clerk;
RESET ROLE;
SELECT attempt($$SELECT profile_cache.attach('app.person', 'uid', 'app.document')$$);
-- No write of ours is HOT.
CREATE INDEX ON app.person (cached_profile_epoch);
CALL profile_cache.refresh();
SELECT pg_advisory_unlock_all() \g /dev/null
-- Reads as the owner, whom the mark does not count.
\set check 'RESET ROLE; SELECT ran_as(), pg_advisory_unlock_all(); SET ROLE regress_writers_app; SELECT count(*) AS stale FROM app.person AS p LEFT JOIN app.document AS v USING (uid) WHERE get_profile(p.uid)::text IS DISTINCT FROM v.document::text; RESET ROLE; SELECT count(*) AS unverified FROM profile_cache.verify(); CALL profile_cache.refresh(); SELECT ran_as(), cached, pg_advisory_unlock_all() FROM profile_cache.status; SELECT count(*) AS unverified FROM profile_cache.verify();'
\set ECHO all

-- SECURITY DEFINER, alone and with the caller's own.
SET ROLE regress_writers_web;
SELECT app.label(1, 'defined');
:check
SET ROLE regress_writers_web;
BEGIN;
SELECT app.label(1, 'defined again');
SELECT app.label(2, 'and another');
COMMIT;
:check
SET ROLE regress_writers_web;
BEGIN;
SELECT app.label(1, 'by the owner');
UPDATE app.badge SET label = 'by web' WHERE person = 2;
COMMIT;
:check
-- SET ROLE in between, from and to a superuser.
BEGIN;
SET LOCAL ROLE regress_writers_web;
UPDATE app.badge SET label = 'web in a superuser''s' WHERE person = 3;
RESET ROLE;
COMMIT;
:check
BEGIN;
SET LOCAL ROLE regress_writers_web;
UPDATE app.badge SET label = 'web' WHERE person = 3;
SET LOCAL ROLE regress_writers_clerk;
UPDATE app.badge SET label = 'clerk' WHERE person = 4;
COMMIT;
:check
BEGIN;
UPDATE app.badge SET label = 'a superuser''s in web''s' WHERE person = 5;
SET LOCAL ROLE regress_writers_web;
COMMIT;
:check
-- Another session of the writer's own, in the middle of its transaction: of the same profile and of another.
BEGIN;
UPDATE app.badge SET label = 'here' WHERE person = 1;
SELECT remotely(current_setting('test.self'), 'INSERT INTO app.badge VALUES (101, 1, ''there'')');
SELECT remotely(current_setting('test.self'), 'UPDATE app.badge SET label = ''there too'' WHERE person = 2');
COMMIT;
RESET ROLE;
SELECT pg_advisory_unlock_all();
SET ROLE regress_writers_app;
SELECT count(*) AS stale FROM app.person AS p LEFT JOIN app.document AS v USING (uid) WHERE get_profile(p.uid)::text IS DISTINCT FROM v.document::text;
RESET ROLE;
SELECT count(*) AS unverified FROM profile_cache.verify();
CALL profile_cache.refresh();
SELECT count(*) AS unverified FROM profile_cache.verify();

-- A step of refresh by hand, where checks are queued.
SELECT profile_cache.invalidate('00000000-0000-0000-0000-000000000001');
SET ROLE regress_writers_dbo;
BEGIN;
SELECT attempt($$SELECT profile_cache.refresh_step(10, 'keys', NULL)$$);
ROLLBACK;
BEGIN;
UPDATE app.person SET place = 2 WHERE id = 1;
SELECT attempt($$SELECT profile_cache.refresh_step(10, 'keys', NULL)$$);
UPDATE app.person SET place = 1 WHERE id = 2;
COMMIT;
BEGIN;
UPDATE app.person SET place = 3 WHERE id = 1;
SELECT attempt($$SELECT profile_cache.refresh_step(10, 'fill', NULL)$$);
COMMIT;
RESET ROLE;
SELECT id, place FROM app.person WHERE id < 3 ORDER BY id;
CALL profile_cache.refresh();
SELECT count(*) AS unverified FROM profile_cache.verify();

\set ECHO none
SELECT profile_cache.detach() \g /dev/null
DROP EXTENSION profile_cache;
DROP SCHEMA app CASCADE;
SELECT format('ALTER DATABASE %I OWNER TO %I', current_database(), current_user) \gexec
DROP OWNED BY regress_writers_app, regress_writers_dbo, regress_writers_web, regress_writers_clerk;
DROP ROLE regress_writers_app, regress_writers_dbo, regress_writers_web, regress_writers_clerk;
