-- The write side on its own, statement by statement: whatever way a row is written, what is served
-- afterwards and inside the same transaction is what the view says (wrong() finds no row), and
-- what the statement could refresh itself is cached again (state()). Concurrency is the isolation
-- tests' matter.
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
CREATE EXTENSION profile_cache;
SELECT profile_cache.attach();
CALL profile_cache.refresh();
\set check 'SELECT state(); SELECT * FROM pending(); SELECT * FROM wrong();'
\set ECHO all
:check

-- Plain statements on the profile: cached again by their end. A column that is not in the
-- document, and an update that changes nothing, leave the stamp alone.
UPDATE user_profile SET email = 'changed' WHERE id IN (1, 2);
INSERT INTO user_profile (id, supabase_user_id, email) VALUES (6, u(6), 'six'), (7, u(7), 'seven');
DELETE FROM user_profile WHERE id = 7;
:check
SELECT ctid AS before FROM user_profile WHERE id = 1 \gset
UPDATE user_subscription SET memo = 'unused' WHERE id = 1;
UPDATE subscription_plan SET price = price + 1;
UPDATE role SET description = 'unused';
UPDATE user_subscription SET status = status, plan_id = plan_id;
SELECT ctid = :'before' FROM user_profile WHERE id = 1;
:check

-- Whatever a statement says of the four columns, they are ours: an ORM's stale save(), a forger.
UPDATE user_profile SET cached_profile = '{"forged": true}', cached_profile_epoch = cached_profile_epoch + 1 WHERE id = 1;
UPDATE user_profile SET cached_profile = '{"forged": true}', note = 'changed too' WHERE id = 2;
INSERT INTO user_profile (id, supabase_user_id, cached_profile, cached_profile_epoch, profile_cache_updated_at)
    SELECT 8, u(8), '{"forged": true}', cached_profile_epoch, '2000-01-01' FROM user_profile WHERE id = 1;
INSERT INTO user_profile (id, supabase_user_id, cached_profile_epoch) VALUES (1, u(1), 1)
    ON CONFLICT (id) DO UPDATE SET cached_profile = '{"forged": true}', cached_profile_valid_until = 'infinity';
COPY user_profile (id, supabase_user_id, cached_profile, cached_profile_epoch) FROM stdin;
9	00000000-0000-0000-0000-000000000009	{"forged": true}	1
\.
:check
UPDATE user_profile SET cached_profile = NULL, cached_profile_epoch = NULL, profile_cache_updated_at = NULL, cached_profile_valid_until = now();
:check
DELETE FROM user_profile WHERE id > 5;

-- INSERT … ON CONFLICT: inserted, updated and left alone, in one statement.
INSERT INTO user_profile (id, supabase_user_id, email) VALUES (1, u(1), 'conflict'), (6, u(6), 'new'), (2, u(2), 'kept')
    ON CONFLICT (id) DO UPDATE SET email = excluded.email WHERE user_profile.id <> 2;
INSERT INTO user_profile (id, supabase_user_id, email) VALUES (1, u(1), 'nothing') ON CONFLICT DO NOTHING;
INSERT INTO user_subscription VALUES (1, 2, 'pro', 'active', NULL), (6, 6, 'pro', 'active', NULL)
    ON CONFLICT (id) DO UPDATE SET user_id = excluded.user_id;
:check

-- MERGE on the profile, on a member, on a dimension.
MERGE INTO user_profile AS p USING (VALUES (1, 'merged'), (6, NULL), (7, 'inserted')) AS n(id, email) ON p.id = n.id
    WHEN MATCHED AND n.email IS NULL THEN DELETE
    WHEN MATCHED THEN UPDATE SET email = n.email
    WHEN NOT MATCHED THEN INSERT (id, supabase_user_id, email) VALUES (n.id, u(n.id), n.email);
:check
MERGE INTO user_subscription AS s USING (VALUES (1, 1), (2, NULL), (7, 7)) AS n(id, user_id) ON s.id = n.id
    WHEN MATCHED AND n.user_id IS NULL THEN DELETE
    WHEN MATCHED THEN UPDATE SET user_id = n.user_id
    WHEN NOT MATCHED THEN INSERT VALUES (n.id, n.user_id, 'team', 'active');
:check
MERGE INTO role AS r USING (VALUES (1, 'boss')) AS n(id, name) ON r.id = n.id WHEN MATCHED THEN UPDATE SET name = n.name;
:check
CALL profile_cache.refresh();
:check

-- COPY.
COPY user_profile (id, supabase_user_id, email) FROM stdin;
8	00000000-0000-0000-0000-000000000008	copied
9	00000000-0000-0000-0000-000000000009	\N
\.
COPY user_role FROM stdin;
10	8	1
11	9	1
\.
:check

-- One statement that writes several used tables: each change is in every document it is in.
WITH p AS (UPDATE user_profile SET email = 'cte' WHERE id = 1 RETURNING id),
     s AS (UPDATE user_subscription SET plan_id = 'team' WHERE user_id = 1 RETURNING user_id),
     r AS (INSERT INTO user_role VALUES (12, 1, 2) RETURNING user_id),
     d AS (DELETE FROM user_role WHERE id = 10 RETURNING user_id)
SELECT * FROM p, s, r, d;
:check
WITH p AS (INSERT INTO user_profile (id, supabase_user_id) VALUES (10, u(10)) RETURNING id)
INSERT INTO user_role SELECT 13, id, 3 FROM p;
:check
WITH d AS (DELETE FROM user_profile WHERE id = 9 RETURNING id)
INSERT INTO user_profile (id, supabase_user_id) SELECT 11, u(11) FROM d;
:check
CALL profile_cache.refresh();
:check

-- Cascades: a profile's members go with it and leave nothing pending; a plan's subscriptions; a
-- role's links are set null.
DELETE FROM user_profile WHERE id IN (8, 10);
:check
DELETE FROM subscription_plan WHERE id = 'team';
:check
DELETE FROM role WHERE id = 2;
:check
CALL profile_cache.refresh();
:check
UPDATE subscription_plan SET id = 'plus' WHERE id = 'pro';
:check
UPDATE role SET id = 30 WHERE id = 3;
:check
CALL profile_cache.refresh();
:check

-- Changed primary keys, with the members that follow; two that change places; a changed key.
UPDATE user_profile SET id = 101 WHERE id = 1;
:check
CALL profile_cache.refresh();
UPDATE user_profile SET id = CASE id WHEN 101 THEN 1001 ELSE id + 200 END WHERE id IN (101, 2);
:check
CALL profile_cache.refresh();
UPDATE user_profile SET id = CASE id WHEN 1001 THEN 1 ELSE 2 END WHERE id IN (1001, 202);
CALL profile_cache.refresh();
UPDATE user_profile SET supabase_user_id = u(99) WHERE id = 1;
:check
SELECT get_profile(u(1)) IS NULL;
UPDATE user_profile SET supabase_user_id = u(1) WHERE id = 1;
:check
CALL profile_cache.refresh();
UPDATE user_role SET id = -id;
:check

-- Members that move, that come and go, that name nobody.
UPDATE user_role SET user_id = 3 WHERE user_id = 1;
:check
UPDATE user_role SET user_id = NULL;
:check
UPDATE user_role SET user_id = 1;
DELETE FROM user_subscription WHERE user_id = 1;
INSERT INTO user_subscription VALUES (1, 1, 'plus', 'trialing', '2100-01-01'), (20, NULL, 'plus', 'active', NULL);
:check

-- Savepoints: what is rolled back is served as if it had not been; what follows is computed.
BEGIN;
UPDATE user_profile SET email = 'outer' WHERE id = 1;
SAVEPOINT a;
UPDATE user_profile SET email = 'inner' WHERE id = 1;
DELETE FROM user_role WHERE user_id = 1;
UPDATE subscription_plan SET ai_daily_limit = 1 WHERE id = 'plus';
:check
SAVEPOINT b;
TRUNCATE user_role;
:check
ROLLBACK TO a;
:check
UPDATE user_profile SET note = 'after' WHERE id = 1;
DELETE FROM user_profile WHERE id = 5;
SAVEPOINT c;
INSERT INTO user_profile (id, supabase_user_id) VALUES (5, u(5));
RELEASE c;
:check
ROLLBACK;
:check
-- A deletion that is rolled back is forgotten: the child of the profile that is back is computed.
BEGIN;
SAVEPOINT a;
DELETE FROM user_profile WHERE id = 2;
ROLLBACK TO a;
INSERT INTO user_role VALUES (40, 2, 1);
COMMIT;
:check
-- Deleted and inserted again in one transaction, with a member in between.
BEGIN;
SET CONSTRAINTS ALL DEFERRED;
DELETE FROM user_profile WHERE id = 2;
INSERT INTO user_subscription VALUES (41, 2, 'plus', 'active');
INSERT INTO user_profile (id, supabase_user_id, email) VALUES (2, u(2), 'again');
INSERT INTO user_role VALUES (42, 2, 1);
:check
COMMIT;
:check
-- A child before its parent: named as pending until refresh has found the parent.
BEGIN;
SET CONSTRAINTS ALL DEFERRED;
INSERT INTO user_subscription VALUES (43, 12, 'plus', 'active');
INSERT INTO user_profile (id, supabase_user_id) VALUES (12, u(12));
COMMIT;
:check
CALL profile_cache.refresh();
:check

-- More than max_immediate: one pending row, whatever the statement is.
SET profile_cache.max_immediate = 2;
UPDATE user_profile SET note = 'bulk' WHERE id <= 3;
:check
CALL profile_cache.refresh();
INSERT INTO user_role SELECT 60 + n, n, 1 FROM generate_series(1, 3) AS n;
:check
CALL profile_cache.refresh();
UPDATE user_profile SET note = 'not bulk' WHERE id <= 2;
:check
SET profile_cache.max_immediate = 0;
UPDATE user_profile SET note = 'none is immediate' WHERE id = 1;
:check
RESET profile_cache.max_immediate;
CALL profile_cache.refresh();

-- TRUNCATE.
TRUNCATE user_role;
:check
CALL profile_cache.refresh();
:check
INSERT INTO user_role VALUES (50, 1, 1);
:check

-- A row of a dimension that every profile may show.
UPDATE subscription_plan SET ai_daily_limit = 6 WHERE id = 'free';
:check
CALL profile_cache.refresh();
DELETE FROM subscription_plan WHERE id = 'free';
:check
CALL profile_cache.refresh();
INSERT INTO subscription_plan VALUES ('free', 'Free', 3, '{}');
:check
CALL profile_cache.refresh();
:check
-- One that no profile shows yet: pending, and concerns nobody.
INSERT INTO subscription_plan VALUES ('new', 'New', 3, '{}');
:check
CALL profile_cache.refresh();
:check
