-- health() in each state that one session can bring about: what is ok, a warning or critical, from which moment on, what it says
-- and what helps. All checks are always there, and what one tells no other repeats.
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
CREATE EXTENSION profile_cache;
-- masked(): times, processes, versions, names and numbers that differ from run to run.
CREATE FUNCTION masked(said text) RETURNS text LANGUAGE sql AS $$
    SELECT replace(replace(regexp_replace(regexp_replace($1, '[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z', 'TIME', 'g'), 'pid [0-9]+ \([^)]*\)', 'pid PID', 'g'),
        (SELECT default_version FROM pg_available_extensions WHERE name = 'profile_cache'), 'VERSION'), current_database(), 'DB') $$;
-- bad(): what is not ok. said(): what one check says, whatever that is. The third is whether it is known since when.
CREATE FUNCTION bad() RETURNS TABLE (check_name text, state text, since boolean, detail text, advice text) LANGUAGE sql AS $$
    SELECT h.check_name, h.state, h.since <= clock_timestamp(), masked(h.detail), masked(h.advice) FROM profile_cache.health() AS h WHERE h.state <> 'ok' $$;
CREATE FUNCTION said(VARIADIC names text[]) RETURNS TABLE (check_name text, state text, since boolean, detail text, advice text) LANGUAGE sql AS $$
    SELECT h.check_name, h.state, h.since <= clock_timestamp(), masked(h.detail), masked(h.advice) FROM profile_cache.health() AS h WHERE h.check_name = ANY (names) $$;
-- states(name): of one check, that alone.
CREATE FUNCTION states(name text) RETURNS text LANGUAGE sql AS $$ SELECT h.state FROM profile_cache.health() AS h WHERE h.check_name = name $$;
-- refreshed(began, completed, outcome): what the last refresh left, times as minutes from now.
CREATE FUNCTION refreshed(began int, completed int, outcome text DEFAULT NULL) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM profile_cache.last_refresh;
    INSERT INTO profile_cache.last_refresh (began_at, completed_at, outcome) SELECT now() + began * interval '1 min', now() + completed * interval '1 min', outcome WHERE began IS NOT NULL;
END $$;
-- aged(age): everything that is pending is of then.
CREATE FUNCTION aged(age interval) RETURNS void LANGUAGE sql AS $$
    UPDATE profile_cache.pending_key SET created_at = clock_timestamp() - age;
    UPDATE profile_cache.pending_epoch SET created_at = clock_timestamp() - age $$;
\set ECHO all

-- Nothing is attached.
SELECT * FROM said('versions', 'attachment', 'triggers', 'worker', 'refresh', 'pending', 'holders', 'failures', 'profile_table', 'replication');
SELECT string_agg(check_name, ' ') FROM profile_cache.health();
-- Attached: a minute without a refresh is nothing.
SELECT profile_cache.attach();
SELECT * FROM bad();
SELECT * FROM said('refresh');
SELECT aged('4 min 50 s');
SELECT * FROM bad();
SELECT aged('5 min');
SELECT * FROM bad();
SELECT aged('59 min 50 s');
SELECT states('refresh'), states('pending');
SELECT aged('1 h');
SELECT states('refresh'), states('pending');
CALL profile_cache.refresh();
SELECT refreshed(-3, -2);
-- All is well.
SELECT check_name, state, since, CASE check_name WHEN 'profile_table' THEN regexp_replace(detail, '[0-9]+', 'N', 'g') ELSE masked(detail) END, advice
    FROM profile_cache.health() WHERE check_name <> 'hit_rate';

-- Whoever may read status may ask.
CREATE ROLE regress_health;
SET ROLE regress_health;
SELECT count(*) FROM profile_cache.health();
\echo :SQLSTATE
RESET ROLE;
GRANT pg_monitor TO regress_health;
SET ROLE regress_health;
SELECT count(*) FROM profile_cache.health() WHERE state = 'ok';
-- Where nothing may be written, and in one snapshot.
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE;
SELECT count(*) FROM profile_cache.health() WHERE state = 'ok';
COMMIT;
RESET ROLE;
DROP ROLE regress_health;

-- pending: single profiles, a change to some, to everybody.
SELECT profile_cache.invalidate(u(1)), profile_cache.invalidate(u(2));
UPDATE role SET name = 'boss' WHERE id = 1;
SELECT * FROM said('pending');
SELECT aged('5 min');
SELECT * FROM bad();
SELECT aged('1 h');
SELECT * FROM bad();
DELETE FROM profile_cache.pending_key;
SELECT aged('59 min 50 s');
SELECT * FROM bad();
CALL profile_cache.refresh();
SELECT refreshed(-3, -2);
SELECT profile_cache.invalidate_all();
SELECT aged('5 min');
SELECT * FROM bad();
CALL profile_cache.refresh();
SELECT refreshed(-3, -2);
-- More than a read looks at is one at once.
INSERT INTO profile_cache.pending_epoch (epoch, redefined, apply, reason) SELECT NULL, false, false, 'by hand' FROM generate_series(1, 201);
SELECT * FROM bad();
CALL profile_cache.refresh();
SELECT refreshed(-3, -2);
-- A pass that goes on may take as long as there are profiles; one that does not, not.
UPDATE profile_cache.epoch SET current = current + 1;
INSERT INTO profile_cache.pending_epoch (epoch, redefined, apply, reason) SELECT current, false, false, 'by hand' FROM profile_cache.epoch;
INSERT INTO profile_cache.epoch_progress (epoch, running) SELECT current, true FROM profile_cache.epoch;
SELECT aged('3 h');
SELECT * FROM bad();
BEGIN;
LOCK TABLE profile_cache.pending IN SHARE UPDATE EXCLUSIVE MODE;
SELECT * FROM bad();
SELECT * FROM said('refresh');
-- Beside it a key that is as old.
INSERT INTO profile_cache.pending_key (key_set, key_hash, reason, key_columns, key_values, created_at) VALUES (1, 1, 'by hand', '{gone}', '{1}', now() - interval '2 h');
SELECT * FROM bad();
ROLLBACK;
CALL profile_cache.refresh();
SELECT refreshed(-3, -2);
SELECT * FROM bad();

-- refresh: cut short, and something left undone, are as bad as what waits for it; nobody has called it for an hour.
SELECT refreshed(-2, -4);
SELECT * FROM said('refresh');
SELECT profile_cache.invalidate(u(1));
SELECT refreshed(-2, -4, 'table role was locked');
SELECT * FROM said('refresh');
SELECT aged('5 min');
SELECT * FROM said('refresh');
SELECT aged('1 h');
SELECT states('refresh');
CALL profile_cache.refresh();
SELECT refreshed(-60, -59);
SELECT * FROM bad();
SELECT refreshed(-61, -60);
SELECT * FROM bad();
SELECT refreshed(-3, -2);
-- What has never been computed, with nothing pending.
SELECT refreshed(NULL, NULL);
SELECT * FROM bad();
SET profile_cache.max_immediate = 0;
UPDATE user_profile SET note = 'y' WHERE id = 1;
RESET profile_cache.max_immediate;
DELETE FROM profile_cache.pending_epoch;
SELECT * FROM bad();
SELECT refreshed(-2, NULL);
SELECT * FROM bad();
CALL profile_cache.refresh();
SELECT refreshed(-3, -2);

-- holders: whom refresh waits for; who has locked a table; who holds a row.
BEGIN;
UPDATE user_profile SET note = 'prepared' WHERE id = 5;
PREPARE TRANSACTION 'health';
UPDATE role SET name = 'chief' WHERE id = 1;
CALL profile_cache.refresh();
SELECT aged('2 h');
SELECT * FROM said('pending', 'holders');
ROLLBACK PREPARED 'health';
CALL profile_cache.refresh();
BEGIN;
LOCK TABLE role;
PREPARE TRANSACTION 'health';
UPDATE user_profile SET note = 'pending' WHERE id = 1;
SELECT * FROM said('holders');
ROLLBACK PREPARED 'health';
CALL profile_cache.refresh();
BEGIN;
LOCK TABLE user_profile;
PREPARE TRANSACTION 'health';
SET lock_timeout = '1s';
SELECT * FROM said('attachment', 'holders');
SELECT count(*) FROM profile_cache.health();
RESET lock_timeout;
ROLLBACK PREPARED 'health';
BEGIN;
UPDATE user_profile SET note = 'prepared' WHERE id = 5;
PREPARE TRANSACTION 'health';
SELECT profile_cache.invalidate(u(5));
CALL profile_cache.refresh();
SELECT refreshed(1, 2);
SELECT * FROM said('holders');
SELECT aged('5 min');
SELECT * FROM bad();
SELECT aged('1 h');
SELECT states('holders');
ROLLBACK PREPARED 'health';
CALL profile_cache.refresh();
SELECT refreshed(-3, -2);
SELECT * FROM bad();

-- attachment and triggers: what mends itself, what does not, what may be meant so; and that the other checks are quiet then.
ALTER TABLE user_role DISABLE TRIGGER profile_cache_update;
SELECT aged('2 h');
SELECT * FROM bad();
SELECT * FROM said('refresh', 'pending');
SELECT profile_cache.attach();
CALL profile_cache.refresh();
SELECT refreshed(-3, -2);
ALTER TABLE user_role DROP CONSTRAINT user_role_user_id_fkey;
SELECT * FROM bad();
ALTER TABLE user_role ADD CONSTRAINT user_role_user_id_fkey FOREIGN KEY (user_id) REFERENCES user_profile ON DELETE CASCADE ON UPDATE CASCADE;
CALL profile_cache.refresh();
ALTER TABLE user_role FORCE ROW LEVEL SECURITY;
SELECT * FROM bad();
ALTER TABLE user_role NO FORCE ROW LEVEL SECURITY;
CALL profile_cache.refresh();
SELECT refreshed(-3, -2);
TRUNCATE profile_cache.epoch;
SELECT * FROM bad();
SELECT profile_cache.attach();
CALL profile_cache.refresh();
SELECT refreshed(-3, -2);
ALTER EVENT TRIGGER profile_cache_ddl DISABLE;
SELECT * FROM bad();
ALTER EVENT TRIGGER profile_cache_ddl ENABLE ALWAYS;
SET profile_cache.enabled = off;
SELECT * FROM bad();
RESET profile_cache.enabled;
SELECT format('ALTER DATABASE %I SET profile_cache.enabled = false', current_database()) AS set, format('ALTER DATABASE %I RESET ALL', current_database()) AS reset \gset
:set;
SELECT * FROM bad();
:reset;
DROP VIEW profile_document;
SELECT * FROM bad();
SELECT * FROM said('triggers', 'refresh', 'pending', 'profile_table');
SELECT profile_cache.attach();
CALL profile_cache.refresh();
SELECT refreshed(-3, -2);
-- DDL that nobody has looked at.
INSERT INTO profile_cache.pending_epoch (redefined, apply, about, reason) VALUES (true, false, '{1}', 'by hand');
UPDATE profile_cache.attachment SET problem = problem;
SELECT * FROM said('attachment');
CALL profile_cache.refresh();
SELECT refreshed(-3, -2);
SELECT * FROM bad();

-- worker: listed, but the server has not preloaded the library. (The server tests have the others.)
SELECT * FROM said('worker');

-- failures: of one in twenty, of one in ten.
INSERT INTO user_profile (id, supabase_user_id, email, note) SELECT n, u(n), 'user' || n || '@example.com', 'x' FROM generate_series(6, 21) AS n;
UPDATE user_profile SET note = 'x';
CREATE VIEW document AS SELECT supabase_user_id, jsonb_build_object('email', email, 'n', 100 / length(note)) AS document FROM user_profile;
SELECT profile_cache.attach(document => 'document');
CALL profile_cache.refresh();
SELECT refreshed(-3, -2);
UPDATE user_profile SET note = '' WHERE id IN (2, 4);
SELECT * FROM bad();
DELETE FROM user_profile WHERE id = 21;
SELECT * FROM bad();
UPDATE user_profile SET note = 'x' WHERE id IN (2, 4);
-- No more are remembered.
INSERT INTO user_profile (id, supabase_user_id, email, note) SELECT n, u(n), 'user' || n || '@example.com', 'x' FROM generate_series(10001, 20000) AS n;
CALL profile_cache.refresh();
INSERT INTO profile_cache.failure (user_id, sqlstate) SELECT u(n), 'P0001' FROM generate_series(10001, 10999) AS n;
SELECT * FROM said('failures');
INSERT INTO profile_cache.failure (user_id, sqlstate) VALUES (u(11000), 'P0001');
SELECT * FROM said('failures');
DELETE FROM profile_cache.failure;
DELETE FROM user_profile WHERE id > 20;
VACUUM user_profile;
CALL profile_cache.refresh();
SELECT refreshed(-3, -2);

-- profile_table: autovacuum; dead rows; HOT. Numbers are PostgreSQL's own counters.
CREATE FUNCTION numbered(name text) RETURNS TABLE (state text, detail text, advice text) LANGUAGE sql AS $$
    SELECT h.state, regexp_replace(h.detail, '[0-9]+', 'N', 'g'), h.advice FROM profile_cache.health() AS h WHERE h.check_name = name $$;
SELECT pg_stat_force_next_flush();
SELECT pg_stat_reset_single_table_counters('user_profile'::regclass);
SELECT * FROM numbered('profile_table');
ALTER TABLE user_profile SET (autovacuum_enabled = off, toast.autovacuum_enabled = off);
SELECT * FROM numbered('profile_table');
ALTER TABLE user_profile RESET (autovacuum_enabled), RESET (toast.autovacuum_enabled);
CALL profile_cache.refresh();
SELECT refreshed(-3, -2);
ALTER TABLE user_profile ADD COLUMN visits int;
CREATE INDEX visits ON user_profile (visits);
SELECT pg_stat_force_next_flush();
VACUUM user_profile;
SELECT pg_stat_reset_single_table_counters('user_profile'::regclass);
SELECT pg_stat_force_next_flush();
SELECT * FROM numbered('profile_table');
-- 49 statements that change 20 rows, of which no update is HOT and each leaves a dead row: too few to say.
DO $$ BEGIN FOR n IN 1..49 LOOP UPDATE user_profile SET visits = n; END LOOP; END $$;
SELECT pg_stat_force_next_flush();
SELECT * FROM numbered('profile_table');
-- Beside one filling of these rows, one more is too few for a share of HOT updates, and two more are not.
UPDATE user_profile SET visits = -1;
SELECT pg_stat_force_next_flush();
SELECT * FROM numbered('profile_table');
UPDATE user_profile SET visits = -2;
SELECT pg_stat_force_next_flush();
SELECT detail LIKE '%; only 0 \% of the updates %' FROM profile_cache.health() WHERE check_name = 'profile_table';
SELECT * FROM numbered('profile_table');
-- After a VACUUM that has just been, others are left for the next one.
VACUUM user_profile;
SELECT pg_stat_force_next_flush();
SELECT * FROM numbered('profile_table');
DO $$ BEGIN FOR n IN 1..60 LOOP UPDATE user_profile SET visits = n; END LOOP; END $$;
SELECT pg_stat_force_next_flush();
SELECT pg_stat_get_dead_tuples('user_profile'::regclass) > 1000;
ALTER TABLE user_profile SET (fillfactor = 70.0);
SELECT * FROM numbered('profile_table');
SELECT pg_stat_reset_single_table_counters('user_profile'::regclass);
CALL profile_cache.refresh();
SELECT refreshed(-3, -2);
SELECT * FROM bad();

-- pending: what has grown, and is of few rows.
ALTER TABLE profile_cache.pending_key ALTER COLUMN key_values SET STORAGE PLAIN;
INSERT INTO profile_cache.pending_key (key_set, key_hash, reason, key_columns, key_values)
    SELECT 1, n, 'by hand', '{gone}', ARRAY[repeat('x', 3900)] FROM generate_series(1, 16800) AS n;
SELECT pg_relation_size('profile_cache.pending_key') >> 20;
SELECT detail LIKE '%grown%' FROM profile_cache.health() WHERE check_name = 'pending';
DELETE FROM profile_cache.pending_key;
SELECT * FROM bad();
VACUUM (TRUNCATE) profile_cache.pending_key;
SELECT * FROM bad();

-- versions: other files on the server, or none; another library; other tables.
CREATE FUNCTION files(version text) RETURNS TABLE (state text, detail text, advice text) LANGUAGE plpgsql AS $$
BEGIN
    SET LOCAL allow_system_table_mods = on;
    EXECUTE format('CREATE OR REPLACE VIEW pg_catalog.pg_available_extensions AS SELECT ''profile_cache''::name AS name, %1$L::text AS default_version, '
        'NULL::text COLLATE "C" AS installed_version, NULL::text AS comment WHERE %1$L IS NOT NULL', version);
    RETURN QUERY SELECT h.state, replace(h.detail, e.extversion, 'VERSION'), h.advice FROM profile_cache.health() AS h, pg_extension AS e
        WHERE h.check_name = 'versions' AND e.extname = 'profile_cache';
END $$;
BEGIN;
SELECT * FROM files('the next');
SELECT * FROM files(NULL);
ROLLBACK;
SELECT * FROM said('versions');
UPDATE pg_extension SET extversion = '0.0.1' WHERE extname = 'profile_cache';
SELECT * FROM bad();
CREATE OR REPLACE FUNCTION profile_cache.layout() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS 'SELECT 0';
SELECT * FROM said('versions', 'attachment', 'replication');
SELECT string_agg(check_name, ' ') FROM profile_cache.health();
