-- What stands in attach's and detach's way is named: who holds a lock, who waits for one, a prepared transaction; and
-- rows that this transaction itself has changed and that PostgreSQL still has to check.
-- Rules: D10.
\set ECHO none
\i include/output.sql
SET client_min_messages = warning;
CREATE EXTENSION profile_cache;
CREATE EXTENSION dblink;
CREATE FUNCTION connect(name text) RETURNS void LANGUAGE sql AS $$
    SELECT dblink_connect(name, format('host=%s port=%s dbname=%s user=%s application_name=%s', current_setting('unix_socket_directories'), current_setting('port'), current_database(), current_user, name)) $$;
SELECT connect('app'), connect('other') \gset
-- The error of a statement, without numbers and times.
CREATE FUNCTION said(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    detail text; hint text;
BEGIN
    SET LOCAL lock_timeout = '50ms';
    EXECUTE statement;
    RETURN 'done';
EXCEPTION WHEN lock_not_available OR object_in_use THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(E'\n', SQLSTATE || ': ' || SQLERRM, regexp_replace(regexp_replace(detail, 'process \d+', 'process N', 'g'), 'since [-0-9: ]+[+]00', 'since T', 'g'), hint);
END $$;
CREATE FUNCTION wait_until(condition text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    met bool;
BEGIN
    FOR i IN 1..500 LOOP
        EXECUTE 'SELECT ' || condition INTO met;
        EXIT WHEN met;
        PERFORM pg_sleep(0.02);
    END LOOP;
END $$;
CREATE TABLE user_profile (id int PRIMARY KEY, supabase_user_id uuid NOT NULL UNIQUE, name text);
CREATE TABLE role (id int PRIMARY KEY, name text);
CREATE TABLE user_role (user_id int REFERENCES user_profile DEFERRABLE INITIALLY DEFERRED, role_id int REFERENCES role, PRIMARY KEY (user_id, role_id));
CREATE INDEX ON user_role (role_id);
INSERT INTO user_profile VALUES (1, '00000000-0000-4000-8000-000000000001', 'Ann');
INSERT INTO role VALUES (1, 'editor');
\set ECHO all

-- A writer.
SELECT dblink_exec('app', 'BEGIN') \gset
SELECT dblink_exec('app', 'UPDATE role SET name = ''chief''') \gset
SELECT said('SELECT profile_cache.attach()');
SELECT dblink_exec('app', 'ROLLBACK') \gset
-- Who merely reads is in the way of ACCESS EXCLUSIVE, not of the others' locks.
SELECT dblink_exec('app', 'BEGIN') \gset
SELECT * FROM dblink('app', 'SELECT count(*) FROM role, user_profile') AS t(n int);
SELECT said('SELECT profile_cache.attach()');
-- Others who wait before us, and for whom.
SELECT dblink_send_query('other', 'ALTER TABLE role ADD COLUMN more int') \gset
SELECT wait_until('EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = ''role''::regclass)') \gset
SELECT said('SELECT profile_cache.attach()');
SELECT dblink_exec('app', 'ROLLBACK') \gset
SELECT * FROM dblink_get_result('other') AS t(tag text);
SELECT * FROM dblink_get_result('other') AS t(tag text);
SELECT said('SELECT profile_cache.attach()');
-- A prepared transaction has no process; a savepoint's end does not matter.
SELECT dblink_exec('app', 'BEGIN') \gset
SELECT dblink_exec('app', 'SAVEPOINT s; UPDATE user_profile SET name = ''Eve''; RELEASE s') \gset
SELECT dblink_exec('app', 'PREPARE TRANSACTION ''it''''s attach_busy''') \gset
SELECT said('SELECT profile_cache.detach()');
ROLLBACK PREPARED 'it''s attach_busy';
SELECT said('SELECT profile_cache.attach()');

-- Rows with deferred foreign keys: where their table is not to be altered, they are in nobody's way.
BEGIN;
INSERT INTO user_role VALUES (1, 1);
SELECT said('SELECT profile_cache.attach()');
SELECT said('SELECT profile_cache.detach(drop_columns => false)');
SELECT said('SELECT profile_cache.attach()');
SET CONSTRAINTS ALL IMMEDIATE;
SELECT said('SELECT profile_cache.attach()');
SET CONSTRAINTS ALL DEFERRED;
UPDATE user_profile SET id = 2;
UPDATE user_role SET user_id = 2;
SELECT said('SELECT profile_cache.detach()');
SET CONSTRAINTS ALL IMMEDIATE;
SELECT said('SELECT profile_cache.detach()');
SET CONSTRAINTS ALL DEFERRED;
UPDATE user_profile SET id = 1;
UPDATE user_role SET user_id = 1;
SELECT said('SELECT profile_cache.attach()');
SET CONSTRAINTS ALL IMMEDIATE;
SELECT said('SELECT profile_cache.attach()');
COMMIT;
CALL profile_cache.refresh();
SELECT count(*) FROM profile_cache.verify();
