-- A profile whose document cannot be computed (json that is no jsonb: \u0000): the app's writes go
-- through, its data is in no message of theirs, the other profiles of the statement are cached, and
-- what is wrong can be seen. Reads of that profile fail as the view does.
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
CREATE EXTENSION profile_cache;
ALTER TABLE user_profile ADD COLUMN extra json;
SELECT profile_cache.attach();
CALL profile_cache.refresh();
INSERT INTO profile_cache.last_refresh (began_at, completed_at) VALUES (now(), now()) ON CONFLICT DO NOTHING;
\set ECHO all

UPDATE user_profile SET extra = CASE WHEN id IN (2, 4) THEN '{"secret": "\u0000"}' ELSE '{}' END::json;
SELECT state();
SELECT user_id, sqlstate FROM profile_cache.failure ORDER BY user_id;
SELECT failures, untimed(warnings) AS warnings FROM profile_cache.status;
SELECT get_profile(u(1)) -> 'extra';
SELECT get_profile(u(2));
\echo :SQLSTATE
SELECT profile_cache.explain(u(2)) ->> 'reason';

-- Members and the rest go through too, in a transaction with more to do.
BEGIN;
INSERT INTO user_role VALUES (10, 2, 1), (11, 3, 1);
SAVEPOINT a;
UPDATE user_profile SET note = 'more' WHERE id IN (1, 2);
RELEASE a;
COMMIT;
SELECT state();
SELECT count(DISTINCT user_id) FROM profile_cache.failure;

-- Refresh does what it can, ends, and keeps no profile of others waiting.
SELECT profile_cache.invalidate_all();
CALL profile_cache.refresh(1);
SELECT state();
CALL profile_cache.refresh();
SELECT state();
SELECT * FROM pending();
SELECT user_id, sqlstate FROM profile_cache.failure GROUP BY 1, 2 ORDER BY 1;

-- verify() names them, and goes on.
SELECT * FROM profile_cache.verify();
\echo :SQLSTATE

-- Mended by a write, by refresh, or by going away; then it is forgotten.
UPDATE user_profile SET extra = '{}' WHERE id = 2;
SELECT state();
ALTER TABLE user_profile DISABLE TRIGGER USER;
UPDATE user_profile SET extra = '{}' WHERE id = 4;
ALTER TABLE user_profile ENABLE ALWAYS TRIGGER profile_cache_before, ENABLE ALWAYS TRIGGER profile_cache_insert,
    ENABLE ALWAYS TRIGGER profile_cache_update, ENABLE ALWAYS TRIGGER profile_cache_delete,
    ENABLE ALWAYS TRIGGER profile_cache_truncate, ENABLE ALWAYS TRIGGER zz_profile_cache_distrust;
CALL profile_cache.refresh();
SELECT state();
SELECT user_id, sqlstate FROM profile_cache.failure;
SELECT failures, untimed(warnings) AS warnings FROM profile_cache.status;
SELECT * FROM wrong();
UPDATE user_profile SET extra = '"\u0000"' WHERE id = 5;
DELETE FROM user_profile WHERE id = 5;
CALL profile_cache.refresh();
SELECT failures, untimed(warnings) AS warnings FROM profile_cache.status;

-- A bulk load of nothing but failures.
INSERT INTO user_profile (id, supabase_user_id, extra) SELECT n, u(n), '"\u0000"' FROM generate_series(1001, 2200) AS n;
CALL profile_cache.refresh(500);
SELECT count(*) <= 1000 FROM profile_cache.failure;
SELECT failures FROM profile_cache.status;
