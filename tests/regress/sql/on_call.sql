-- What status and explain say in each state that docs/operations.md names for whoever is on call, in the table's order: what is
-- so, since when, and what helps; and that it helps.
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
CREATE EXTENSION profile_cache;
CREATE FUNCTION said() RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT untimed(ARRAY[w]) FROM profile_cache.status AS s, unnest(s.warnings) WITH ORDINALITY AS u(w, n) ORDER BY n;
END $$;
-- explained(n): from where user n's document comes, why, whether it is known since when, and what helps.
CREATE FUNCTION explained(n int) RETURNS TABLE (served_from text, reason text, since boolean, advice text) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT e ->> 'served_from', e ->> 'reason', (e ->> 'since')::timestamptz <= now(), e ->> 'advice' FROM profile_cache.explain(u(n)) AS e;
END $$;
-- refreshed(began, completed, outcome): what the last refresh left, times as minutes from now.
CREATE FUNCTION refreshed(began int, completed int, outcome text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM profile_cache.last_refresh;
    INSERT INTO profile_cache.last_refresh (began_at, completed_at, outcome) SELECT now() + began * interval '1 min', now() + completed * interval '1 min', outcome WHERE began IS NOT NULL;
END $$;
\set ECHO all

-- Nothing is attached.
SELECT * FROM said();
-- refresh has never run; it was cut short; it has come through, and left something.
SELECT profile_cache.attach();
SELECT * FROM said();
SELECT * FROM explained(1);
SELECT refreshed(-5, NULL, NULL);
SELECT * FROM said();
SELECT last_refresh, last_refresh_outcome FROM profile_cache.status;
CALL profile_cache.refresh();
SELECT refreshed(-5, -4, NULL);
SELECT * FROM said();
SELECT last_refresh < now(), last_refresh_outcome FROM profile_cache.status;
SELECT refreshed(-2, -4, 'canceled in the middle');
SELECT * FROM said();
SELECT refreshed(-2, -1, 'table role was locked');
SELECT * FROM said();
SELECT last_refresh < now(), last_refresh_outcome FROM profile_cache.status;
-- One that is under way has not been cut short.
SELECT profile_cache.invalidate(u(1));
SELECT phase FROM profile_cache.refresh_step(1, 'begin', NULL);
SELECT * FROM said();
SELECT refreshed(-2, NULL, NULL);
SELECT * FROM said();
CALL profile_cache.refresh();
SELECT refreshed(-5, -4, NULL);
SELECT * FROM said();

-- A change that may concern any profile; one that refresh has not followed yet; more than a read looks at.
UPDATE role SET name = 'boss' WHERE id = 1;
SELECT * FROM said();
SELECT * FROM explained(1);
CALL profile_cache.refresh();
SELECT refreshed(-5, -4, NULL);
UPDATE profile_cache.epoch SET current = current + 1;
INSERT INTO profile_cache.pending_epoch (epoch, redefined, apply, reason) SELECT current, false, false, 'by hand' FROM profile_cache.epoch;
SELECT * FROM said();
SELECT * FROM explained(1);
CALL profile_cache.refresh();
INSERT INTO profile_cache.pending_epoch (epoch, redefined, apply, reason) SELECT NULL, false, false, 'by hand' FROM generate_series(1, 201);
SELECT refreshed(-5, -4, NULL);
SELECT * FROM said();
SELECT * FROM explained(1);
CALL profile_cache.refresh();
SELECT refreshed(-5, -4, NULL);
SELECT * FROM said();
SELECT * FROM explained(1);
-- A pending key of nobody knows whom; and one of a profile, of which that alone is told.
INSERT INTO profile_cache.pending_key (key_set, key_hash, reason, key_columns, key_values) VALUES (1, 1, 'by hand', '{gone}', '{1}');
SELECT * FROM said();
SELECT * FROM explained(1);
CALL profile_cache.refresh();
SELECT refreshed(-5, -4, NULL);
SELECT profile_cache.invalidate(u(2));
UPDATE profile_cache.pending_key SET created_at = now() - interval '1 hour';
SELECT profile_cache.invalidate(u(1));
SELECT n, e ->> 'reason', date_trunc('hour', now() - (e ->> 'since')::timestamptz) FROM generate_series(1, 3) AS n, profile_cache.explain(u(n)) AS e;
SELECT * FROM said();
SELECT pending_keys, oldest_pending < now() FROM profile_cache.status;
CALL profile_cache.refresh();
SELECT refreshed(-5, -4, NULL);

-- Transactions that are in the way. Here they are prepared ones: whom refresh waits for before it forgets a change;
-- one that holds a table; one that holds the profile table, which status must not wait for; one that holds a row.
BEGIN;
UPDATE user_profile SET note = 'prepared' WHERE id = 5;
PREPARE TRANSACTION 'on_call';
UPDATE role SET name = 'chief' WHERE id = 1;
CALL profile_cache.refresh();
SELECT refreshed(-5, 0, NULL);
SELECT held_up_by FROM profile_cache.status;
SELECT * FROM said();
ROLLBACK PREPARED 'on_call';
CALL profile_cache.refresh();
SELECT refreshed(-5, -4, NULL);
BEGIN;
LOCK TABLE role;
PREPARE TRANSACTION 'it''s on call';
SELECT * FROM said();
UPDATE user_profile SET note = 'pending' WHERE id = 1;
SELECT * FROM said();
SELECT * FROM explained(2);
ROLLBACK PREPARED 'it''s on call';
CALL profile_cache.refresh();
SELECT refreshed(-5, -4, NULL);
BEGIN;
LOCK TABLE user_profile;
PREPARE TRANSACTION 'on_call';
SET lock_timeout = '1s';
SELECT rows, cached FROM profile_cache.status;
SELECT * FROM said();
RESET lock_timeout;
ROLLBACK PREPARED 'on_call';
SELECT * FROM said();
BEGIN;
UPDATE user_profile SET note = 'prepared' WHERE id = 5;
PREPARE TRANSACTION 'on_call';
SELECT profile_cache.invalidate(u(5));
CALL profile_cache.refresh();
SELECT refreshed(1, 2, NULL);
SELECT pending_keys, held_up_by FROM profile_cache.status;
SELECT * FROM said();
SELECT * FROM explained(5);
ROLLBACK PREPARED 'on_call';
CALL profile_cache.refresh();
SELECT refreshed(-5, -4, NULL);
SELECT * FROM said();
-- After a crash another transaction may have the name of one that was waited for.
BEGIN;
INSERT INTO profile_cache.epoch_progress (epoch, holders, server_start) SELECT 1, ARRAY[l.virtualtransaction], '2020-01-01' FROM pg_locks AS l WHERE l.pid = pg_backend_pid() LIMIT 1;
SELECT held_up_by FROM profile_cache.status;
UPDATE profile_cache.epoch_progress SET server_start = (SELECT GREATEST(pg_postmaster_start_time(), max(backend_start)) FROM pg_stat_get_activity(NULL) WHERE backend_type = 'checkpointer');
SELECT held_up_by = ARRAY['pid ' || pg_backend_pid()] FROM profile_cache.status;
SELECT replace(w, pg_backend_pid()::text, 'PID') FROM said() AS w;
ROLLBACK;

-- What the view or the tables have become.
ALTER TABLE user_role DISABLE TRIGGER profile_cache_update;
SELECT * FROM said();
SELECT disabled_triggers FROM profile_cache.status;
SELECT * FROM explained(1);
SELECT profile_cache.attach();
CALL profile_cache.refresh();
SELECT refreshed(-5, -4, NULL);
SELECT * FROM said();
ALTER TABLE user_role DROP CONSTRAINT user_role_user_id_fkey;
SELECT * FROM said();
ALTER TABLE user_role ADD CONSTRAINT user_role_user_id_fkey FOREIGN KEY (user_id) REFERENCES user_profile ON DELETE CASCADE ON UPDATE CASCADE;
CALL profile_cache.refresh();
SELECT refreshed(-5, -4, NULL);
SELECT * FROM said();
ALTER TABLE user_role FORCE ROW LEVEL SECURITY;
SELECT * FROM said();
ALTER TABLE user_role NO FORCE ROW LEVEL SECURITY;
CALL profile_cache.refresh();
SELECT refreshed(-5, -4, NULL);
SELECT * FROM said();
-- A target of logical replication: attach() changes nothing there.
SET client_min_messages = error;
CREATE SUBSCRIPTION on_call CONNECTION '' PUBLICATION p WITH (connect = false, slot_name = NONE);
SET client_min_messages = warning;
INSERT INTO pg_subscription_rel SELECT s.oid, 'user_role'::regclass, 'r', NULL FROM pg_subscription AS s WHERE s.subname = 'on_call';
SELECT * FROM said();
SELECT * FROM explained(1);
DELETE FROM pg_subscription_rel;
DROP SUBSCRIPTION on_call;
CALL profile_cache.refresh();
SELECT refreshed(-5, -4, NULL);
SELECT * FROM said();
TRUNCATE profile_cache.epoch;
SELECT * FROM said();
SELECT profile_cache.attach();
CALL profile_cache.refresh();
SELECT refreshed(-5, -4, NULL);
SELECT * FROM said();
CREATE ROLE regress_called;
ALTER TABLE user_role OWNER TO regress_called;
SELECT * FROM said();
ALTER TABLE user_role OWNER TO CURRENT_USER;
CALL profile_cache.refresh();
SELECT refreshed(-5, -4, NULL);
DROP VIEW profile_document;
SELECT * FROM said();
SELECT profile_cache.attach();
CALL profile_cache.refresh();
SELECT refreshed(-5, -4, NULL);
ALTER TABLE user_profile DROP COLUMN cached_profile_epoch;
SELECT * FROM said();
SELECT profile_cache.attach();
CALL profile_cache.refresh();
SELECT refreshed(-5, -4, NULL);
SELECT * FROM said();

-- Settings.
SET profile_cache.enabled = off;
SELECT * FROM said();
SELECT * FROM explained(1);
RESET profile_cache.enabled;
ALTER ROLE regress_called SET profile_cache.enabled = off;
\set ECHO none
SELECT format('ALTER ROLE regress_called IN DATABASE %I SET profile_cache.enabled = no', current_database()) \gexec
\set ECHO all
\set ECHO none
SELECT format('ALTER DATABASE %I SET profile_cache.enabled = on', current_database()) \gexec
\set ECHO all
SELECT replace(w, current_database(), 'DB') FROM said() AS w;
\set ECHO none
SELECT format('ALTER DATABASE %I SET profile_cache.enabled = false', current_database()) \gexec
\set ECHO all
SELECT replace(w, current_database(), 'DB') FROM said() AS w;
\set ECHO none
SELECT format('ALTER DATABASE %I RESET profile_cache.enabled', current_database()) \gexec
\set ECHO all
DROP ROLE regress_called;
SELECT * FROM said();

-- Event triggers.
ALTER EVENT TRIGGER profile_cache_ddl DISABLE;
SELECT * FROM said();
ALTER EVENT TRIGGER profile_cache_ddl ENABLE ALWAYS;
SELECT profile_cache.invalidate_all();
CALL profile_cache.refresh();
SELECT refreshed(-5, -4, NULL);
SELECT * FROM said();

-- Profiles for which the view fails: since when, and how many, where not all are remembered. verify() names each.
CREATE VIEW document AS SELECT supabase_user_id, jsonb_build_object('email', email, 'n', 100 / length(note)) AS document FROM user_profile;
SELECT profile_cache.attach(document => 'document');
CALL profile_cache.refresh();
SELECT refreshed(-5, -4, NULL);
UPDATE user_profile SET note = '' WHERE id IN (2, 4);
SELECT * FROM said();
SELECT * FROM explained(2);
SELECT user_id, problem, served, expected FROM profile_cache.verify();
SELECT user_id, problem FROM profile_cache.verify(3) WHERE user_id NOT IN (u(2), u(4));
INSERT INTO profile_cache.failure (user_id, sqlstate) SELECT u(n), 'P0001' FROM generate_series(10001, 10998) AS n;
SELECT failures FROM profile_cache.status;
SELECT * FROM said();
DELETE FROM profile_cache.failure WHERE sqlstate = 'P0001';
UPDATE user_profile SET note = 'x' WHERE id IN (2, 4);
CALL profile_cache.refresh();
SELECT refreshed(-5, -4, NULL);
SELECT * FROM said();
SELECT * FROM profile_cache.verify();
-- A copy that is trusted, of a profile for which the view fails: what is served is shown.
ALTER TABLE user_profile DISABLE TRIGGER USER;
UPDATE user_profile SET note = '' WHERE id = 3;
ALTER TABLE user_profile ENABLE ALWAYS TRIGGER profile_cache_before, ENABLE ALWAYS TRIGGER profile_cache_insert,
    ENABLE ALWAYS TRIGGER profile_cache_update, ENABLE ALWAYS TRIGGER profile_cache_delete,
    ENABLE ALWAYS TRIGGER profile_cache_truncate, ENABLE ALWAYS TRIGGER zz_profile_cache_distrust;
DELETE FROM profile_cache.pending_epoch;
SELECT user_id, problem, served, expected FROM profile_cache.verify();

-- The profile table is gone.
DROP TABLE user_profile CASCADE;
SELECT * FROM said();
SELECT profile_cache.detach();
SELECT * FROM said();
SELECT count(*) FROM profile_cache.last_refresh;

-- The library and the SQL objects are of different versions: with the same tables, and with others.
UPDATE pg_extension SET extversion = '0.0.1' WHERE extname = 'profile_cache';
SELECT replace(said, (SELECT default_version FROM pg_available_extensions WHERE name = 'profile_cache'), 'N') AS said FROM said();
CREATE OR REPLACE FUNCTION profile_cache.layout() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS 'SELECT 0';
SELECT * FROM said();
