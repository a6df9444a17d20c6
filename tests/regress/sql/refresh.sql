-- CALL refresh(): what it says, where it may be called, and that it leaves nothing stale behind that
-- can be made fresh; invalidate(), bulk changes and expiry. Beside other sessions: the isolation tests.
-- Rules: E8.
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
CREATE EXTENSION profile_cache;
SELECT profile_cache.attach();
\set check 'SELECT state(); SELECT * FROM pending(); SELECT * FROM wrong();'
\set ECHO all

-- A batch at a time, in the order of keys, each with its NOTICE: done so far, about how many there
-- are, and a rate, which differs from run to run.
ANALYZE user_profile;
\setenv DATABASE :DBNAME
\! psql -X -q -d "$DATABASE" -c 'CALL profile_cache.refresh(2)' 2>&1 | sed 's/[0-9]* a second/(rate) a second/'
:check
-- Nothing to do: no word.
SET client_min_messages = notice;
CALL profile_cache.refresh();
SET client_min_messages = warning;

-- Interrupted between batches: what is committed stays, the rest follows.
SELECT profile_cache.detach();
SELECT profile_cache.attach();
-- The attachment has no number yet: nothing that is stored now would be trusted.
SELECT phase, stored FROM profile_cache.refresh_step(2, 'stale', NULL);
SELECT state();
-- It gets one; who holds the table is noted; a pass begins.
SELECT phase FROM profile_cache.refresh_step(2, 'epochs', NULL);
SELECT phase FROM profile_cache.refresh_step(2, 'epochs', NULL);
SELECT phase FROM profile_cache.refresh_step(2, 'epochs', NULL);
SELECT phase, stored FROM profile_cache.refresh_step(2, 'epochs', NULL);
SELECT state();
SELECT phase, stored FROM profile_cache.refresh_step(2, 'epochs', NULL);
SELECT state();
CALL profile_cache.refresh(1);
:check

-- invalidate: one profile, by its key; O(1), transactional; an unknown one does no harm.
SELECT profile_cache.invalidate(u(2));
:check
SELECT profile_cache.invalidate(u(99));
SELECT profile_cache.invalidate(u(2));
:check
CALL profile_cache.refresh();
:check
BEGIN;
SELECT profile_cache.invalidate(u(3));
SELECT profile_cache.invalidate(u(3));
:check
ROLLBACK;
:check
BEGIN;
SAVEPOINT a;
SELECT profile_cache.invalidate(u(3));
ROLLBACK TO a;
SELECT profile_cache.invalidate(u(3));
COMMIT;
:check
CALL profile_cache.refresh(1);
:check

-- invalidate_all: one row however often in a transaction.
SELECT profile_cache.invalidate_all();
:check
BEGIN;
SAVEPOINT a;
SELECT profile_cache.invalidate_all();
ROLLBACK TO a;
SELECT profile_cache.invalidate_all();
SELECT profile_cache.invalidate_all();
COMMIT;
:check
CALL profile_cache.refresh(1);
:check

-- Where others write as serializable, read only or with other settings by default.
SELECT profile_cache.invalidate_all();
SET default_transaction_isolation = 'serializable';
CALL profile_cache.refresh(2);
:check
SELECT profile_cache.invalidate(u(1));
SET default_transaction_isolation = 'repeatable read';
CALL profile_cache.refresh(2);
:check
RESET default_transaction_isolation;
SELECT profile_cache.invalidate_all();
SET default_transaction_read_only = on;
CALL profile_cache.refresh();
\echo :SQLSTATE
SET default_transaction_read_only = off;
SET default_transaction_deferrable = on;
SET search_path = pg_temp;
SET profile_cache.max_immediate = 0;
SET profile_cache.enabled = off;
SET row_security = off;
SET session_replication_role = replica;
SET enable_indexscan = off;
CALL profile_cache.refresh(1);
RESET ALL;
SET client_min_messages = warning;
:check

-- From procedures that may commit, and from DO; refused in a block, a function, or under SET.
CREATE PROCEDURE nightly() LANGUAGE plpgsql AS $$ BEGIN PERFORM profile_cache.invalidate_all(); COMMIT; CALL profile_cache.refresh(); END $$;
CALL nightly();
:check
SELECT profile_cache.invalidate_all();
DO $$ BEGIN CALL profile_cache.refresh(2); END $$;
:check
BEGIN;
SELECT profile_cache.invalidate(u(1));
CALL profile_cache.refresh();
\echo :SQLSTATE
ROLLBACK;
BEGIN \; CALL profile_cache.refresh() \; COMMIT;
\echo :SQLSTATE
ROLLBACK;
\set AUTOCOMMIT off
CALL profile_cache.refresh();
\echo :SQLSTATE
ROLLBACK;
\set AUTOCOMMIT on
-- A cursor that is held over its commits.
BEGIN;
DECLARE held CURSOR WITH HOLD FOR SELECT id FROM user_profile ORDER BY id;
COMMIT;
SELECT profile_cache.invalidate_all();
CALL profile_cache.refresh(2);
FETCH 1 FROM held;
CLOSE held;
:check

-- Expiry: the moment at which a document changes by itself is stored with it; past it reads are
-- live at once and refresh makes the next document.
UPDATE user_subscription SET current_period_end = clock_timestamp() + '0.3 s' WHERE id = 1;
INSERT INTO user_subscription VALUES (10, 2, 'pro', 'active', clock_timestamp() - interval '1 s'), (11, 3, 'team', 'active', 'infinity'), (12, 5, 'team', 'active', '-infinity');
SELECT state(), get_profile(u(1)) ->> 'subscription_plan';
SELECT cached_profile_valid_until > now() FROM user_profile WHERE id = 1;
-- Not to order anything: until the period has ended.
DO $$ BEGIN WHILE clock_timestamp() < (SELECT current_period_end FROM user_subscription WHERE id = 1) LOOP PERFORM pg_sleep(0.05); END LOOP; END $$;
:check
SELECT get_profile(u(1)) ->> 'subscription_plan', get_profile(u(2)) ->> 'subscription_plan', get_profile(u(3)) ->> 'subscription_plan', get_profile(u(5)) ->> 'subscription_plan';
CALL profile_cache.refresh();
:check
SELECT get_profile(u(1)) ->> 'subscription_plan', cached_profile_valid_until FROM user_profile WHERE id = 1;

-- A profile without a key is in nobody's way; one whose key comes later is cached then.
ALTER TABLE user_profile ALTER COLUMN supabase_user_id DROP NOT NULL;
INSERT INTO user_profile (id, email) VALUES (6, 'no key yet'), (7, 'none either');
CALL profile_cache.refresh(1);
SELECT rows, cached, stale FROM profile_cache.status;
UPDATE user_profile SET supabase_user_id = u(6) WHERE id = 6;
INSERT INTO user_role VALUES (20, 7, 1);
CALL profile_cache.refresh(1);
SELECT * FROM pending();
SELECT get_profile(u(6)) ->> 'email', profile_cache.explain(u(6)) ->> 'served_from';
UPDATE user_profile SET supabase_user_id = NULL WHERE id = 6;
SELECT get_profile(u(6));
CALL profile_cache.refresh();
SELECT * FROM pending();
SELECT * FROM profile_cache.verify();

-- No profiles at all.
TRUNCATE user_profile CASCADE;
CALL profile_cache.refresh();
SELECT rows, cached, stale, pending_keys, pending_epochs FROM profile_cache.status;

-- Many, in batches of every size; the whole table is cached after one call, whose look through the table is short.
CREATE INDEX ON user_profile (cached_profile_valid_until);
INSERT INTO user_profile (id, supabase_user_id, email) SELECT n, u(n), n FROM generate_series(1, 2500) AS n;
SELECT rows, cached, pending_keys, pending_epochs FROM profile_cache.status;
CALL profile_cache.refresh(999);
SELECT rows, cached, stale, pending_keys, pending_epochs FROM profile_cache.status;
INSERT INTO user_role SELECT n, n, NULL FROM generate_series(1, 2500) AS n;
SELECT cached, pending_epochs FROM profile_cache.status;
CALL profile_cache.refresh(100000);
SELECT rows, cached, stale, pending_keys, pending_epochs FROM profile_cache.status;
SELECT count(*) FROM wrong();
DELETE FROM user_profile WHERE id > 1200;
SELECT rows, cached, stale, pending_keys, pending_epochs FROM profile_cache.status;
CALL profile_cache.refresh();
SELECT rows, cached, stale, pending_keys, pending_epochs FROM profile_cache.status;
