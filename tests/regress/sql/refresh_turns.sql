-- What refresh() does in which order, what it costs, and when it lets be: every kind of work has its turn; with nothing to
-- do it does not read the table; what has expired is found by an index; failures are tried again after a pause; where
-- nothing would be trusted it writes nothing; and it says how the last call ended.
-- Rules: E14, E18, E19.
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
CREATE EXTENSION profile_cache;
SELECT profile_cache.attach();
-- written(): row versions of the profile table written so far; read(): blocks of it. Statements' counts are handed over
-- when the session is next idle.
CREATE FUNCTION written() RETURNS bigint LANGUAGE sql AS $$ SELECT n_tup_upd FROM pg_stat_user_tables WHERE relid = 'user_profile'::regclass $$;
CREATE FUNCTION read() RETURNS bigint LANGUAGE sql AS $$ SELECT heap_blks_read + heap_blks_hit FROM pg_statio_user_tables WHERE relid = 'user_profile'::regclass $$;
\set counted 'SELECT pg_stat_force_next_flush() \\g /dev/null'
\set last 'SELECT began_at IS NOT NULL, completed_at >= began_at AS completed, outcome FROM profile_cache.last_refresh;'
\set ECHO all

-- Never called.
:last
CALL profile_cache.refresh();
:last

-- A pass over all of the table is under way when a plan is edited: the edit's pass is over before it.
SELECT profile_cache.invalidate_all();
\set course {}
\set turn 'SELECT phase, course, stored FROM profile_cache.refresh_step(1, ''epochs'', :''course'') \\gset \\\\ SELECT rank() OVER (ORDER BY d.epoch) AS epoch, (SELECT p.reason FROM profile_cache.pending_epoch AS p WHERE p.epoch = d.epoch LIMIT 1) AS reason, d.holders IS NOT NULL AS noted, d.running, (SELECT c.keys[1] FROM profile_cache.claim AS c WHERE c.pass = d.pass) AS next FROM profile_cache.epoch_progress AS d ORDER BY 1;'
:turn
:turn
:turn
:turn
UPDATE subscription_plan SET ai_daily_limit = 101 WHERE id = 'pro';
:turn
:turn
:turn
:turn
:turn
:turn
:turn
:turn
:turn
SELECT state();
-- Keys come before both, and a key that comes in the middle does not wait for their end.
SELECT profile_cache.invalidate(u(5));
SELECT phase, stored FROM profile_cache.refresh_step(1, 'begin', NULL);
SELECT phase, stored FROM profile_cache.refresh_step(1, 'keys', NULL);
SELECT * FROM pending();
CALL profile_cache.refresh();
SELECT state();
SELECT * FROM pending();

-- Nothing to do: not the table's size decides what that costs.
CREATE INDEX expiry ON user_profile (cached_profile_valid_until);
INSERT INTO user_profile SELECT n, u(n), 'user' || n, repeat('x', 100) FROM generate_series(1001, 15000) AS n;
VACUUM (ANALYZE, FREEZE) user_profile;
CALL profile_cache.refresh();
VACUUM (ANALYZE, FREEZE) user_profile;
CALL profile_cache.refresh();
:counted
SELECT read() AS read, written() AS written \gset
CALL profile_cache.refresh();
CALL profile_cache.refresh();
:counted
SELECT pg_relation_size('user_profile') / 8192 > 800 AS large, read() - :read < 500 AS little_read, written() - :written AS written;
-- An edit of a plan that one user has.
UPDATE subscription_plan SET ai_daily_limit = 501 WHERE id = 'team';
CALL profile_cache.refresh();
:counted
SELECT read() - :read < 1500 AS little_read, written() - :written AS written;

-- Expired documents are found by the index, and writes of what is shown stay HOT beside it.
UPDATE user_profile SET email = 'to a page with room' WHERE id = 1;
:counted
SELECT pg_stat_reset_single_table_counters('user_profile'::regclass) \g /dev/null
UPDATE user_profile SET email = 'hot' WHERE id = 1;
:counted
SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = 'user_profile'::regclass;
UPDATE user_subscription SET current_period_end = clock_timestamp() + '0.2 s' WHERE id = 1;
DO $$ BEGIN WHILE clock_timestamp() < (SELECT current_period_end FROM user_subscription WHERE id = 1) LOOP PERFORM pg_sleep(0.05); END LOOP; END $$;
SELECT profile_cache.explain(u(1)) ->> 'reason';
:counted
SELECT read() AS read, written() AS written \gset
CALL profile_cache.refresh();
:counted
SELECT read() - :read < 500 AS little_read, written() - :written AS written;
SELECT profile_cache.explain(u(1)) ->> 'served_from', get_profile(u(1)) ->> 'subscription_plan';
-- Without it, by looking through the table.
DROP INDEX expiry;
DELETE FROM user_profile WHERE id > 1000;
VACUUM user_profile;
UPDATE user_subscription SET current_period_end = clock_timestamp() + '0.2 s' WHERE id = 2;
DO $$ BEGIN WHILE clock_timestamp() < (SELECT current_period_end FROM user_subscription WHERE id = 2) LOOP PERFORM pg_sleep(0.05); END LOOP; END $$;
CALL profile_cache.refresh();
SELECT state();

-- For a large table attach() names the index, and a fillfactor where none leaves room.
SET client_min_messages = notice;
UPDATE pg_class SET reltuples = 100000 WHERE oid = 'user_profile'::regclass;
SELECT profile_cache.attach();
CREATE INDEX expiry ON user_profile (cached_profile_valid_until);
ALTER TABLE user_profile SET (fillfactor = 9e1);
UPDATE pg_class SET reltuples = 100000 WHERE oid = 'user_profile'::regclass;
SELECT profile_cache.attach();
DROP INDEX expiry;
ALTER TABLE user_profile RESET (fillfactor);
ANALYZE user_profile;
SET client_min_messages = warning;

-- A document that had expired when it was computed is never used, and is left alone.
ALTER TABLE user_profile ADD COLUMN ended timestamptz DEFAULT '2000-01-01';
CREATE VIEW ended AS SELECT p.supabase_user_id, jsonb_build_object('id', p.id) AS document, p.ended AS valid_until FROM user_profile AS p;
SELECT profile_cache.attach(document => 'ended');
CALL profile_cache.refresh();
:counted
SELECT written() AS written \gset
CALL profile_cache.refresh();
CREATE INDEX expiry ON user_profile (cached_profile_valid_until);
CALL profile_cache.refresh();
:counted
SELECT written() - :written AS written;
SELECT profile_cache.explain(u(1)) ->> 'reason' AS reason;
DROP INDEX expiry;
SELECT profile_cache.attach();
CALL profile_cache.refresh();

-- A profile whose document cannot be computed is tried again, after a pause that grows.
ALTER TABLE user_profile ADD COLUMN extra json;
SELECT profile_cache.attach();
CALL profile_cache.refresh();
UPDATE user_profile SET extra = '"\u0000"' WHERE id = 2;
SELECT user_id, attempts, retry_at FROM profile_cache.failure;
CALL profile_cache.refresh();
SELECT user_id, attempts, retry_at BETWEEN now() + '50 s' AND now() + '60 s' AS in_a_minute FROM profile_cache.failure;
:counted
SELECT written() AS written \gset
CALL profile_cache.refresh();
CALL profile_cache.refresh();
:counted
SELECT written() - :written AS written, attempts FROM profile_cache.failure;
UPDATE profile_cache.failure SET retry_at = now();
CALL profile_cache.refresh();
SELECT user_id, attempts, retry_at BETWEEN now() + '110 s' AND now() + '120 s' AS in_two_minutes FROM profile_cache.failure;
SELECT state();
-- A change of its own is computed at once.
UPDATE user_profile SET extra = NULL WHERE id = 2;
CALL profile_cache.refresh();
SELECT state(), (SELECT count(*) FROM profile_cache.failure) AS failures;

-- Where no document would be trusted, refresh writes nothing, and says why.
ALTER TABLE user_role DISABLE TRIGGER profile_cache_insert;
:counted
SELECT written() AS written \gset
CALL profile_cache.refresh();
CALL profile_cache.refresh();
:counted
SELECT written() - :written AS written;
:last
ALTER TABLE user_role ENABLE ALWAYS TRIGGER profile_cache_insert;
CALL profile_cache.refresh();
:last
SELECT state();

-- A limit of time is named before it strikes.
SET client_min_messages = notice;
SET statement_timeout = '1 min';
CALL profile_cache.refresh();
RESET statement_timeout;
SET client_min_messages = warning;
SELECT count(*) FROM wrong();

-- Edits that come while two are followed get one number together: they are followed in one pass.
CALL profile_cache.refresh();
\set course {}
\set step 'SELECT course FROM profile_cache.refresh_step(1, ''epochs'', :''course'') \\gset'
\set numbers 'SELECT link_table, link_values, dense_rank() OVER (ORDER BY epoch) AS number FROM profile_cache.pending_epoch WHERE epoch IS NOT NULL ORDER BY epoch, link_table;'
UPDATE subscription_plan SET ai_daily_limit = ai_daily_limit + 1 WHERE id = 'pro';
:step
:step
UPDATE subscription_plan SET ai_daily_limit = ai_daily_limit + 1 WHERE id = 'team';
:step
:step
:numbers
UPDATE role SET permissions = '["one"]' WHERE id = (SELECT min(role_id) FROM user_role);
:step
UPDATE subscription_plan SET ai_daily_limit = ai_daily_limit + 1 WHERE id = 'pro';
:step
:numbers
DO $$ DECLARE course text := '{}';
BEGIN
    WHILE EXISTS (SELECT FROM profile_cache.pending_epoch WHERE epoch IS NULL) LOOP
        SELECT s.course INTO course FROM profile_cache.refresh_step(1, 'epochs', course) AS s;
        COMMIT;
    END LOOP;
END $$;
:numbers
CALL profile_cache.refresh();
SELECT state();
