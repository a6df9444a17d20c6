-- The demo, as an app's owner would do it in psql. Not as superuser: the extension is trusted.
\set QUIET on
\pset footer off
\pset linestyle ascii
SET client_min_messages = notice;

\echo '== The extension, and one call that attaches it to the tables'
\echo 'CREATE EXTENSION profile_cache; SELECT profile_cache.attach();'
CREATE EXTENSION profile_cache;
\timing on
SELECT profile_cache.attach() \g /dev/null
\timing off

\echo
\echo '== Fill the cache: CALL profile_cache.refresh()'
\timing on
CALL profile_cache.refresh();
\timing off
-- As autovacuum would after a while: the timings below should not measure its absence.
VACUUM ANALYZE user_profile, user_subscription, subscription_plan, user_role, role;

SELECT md5('user' || 8)::uuid AS u \gset
\echo
\echo '== One profile: SELECT get_profile(:u)'
\pset tuples_only on
\pset format unaligned
\pset fieldsep ''
SELECT get_profile(:'u');
SELECT 'explain: ', profile_cache.explain(:'u');

\echo
\echo '== The user becomes an admin: INSERT INTO user_role ...'
SELECT 'before:  ', get_profile(:'u') -> 'roles';
INSERT INTO user_role (user_id, role_id, assigned_at)
SELECT u.id, r.id, now() FROM user_profile u, role r WHERE u.supabase_user_id = :'u' AND r.name = 'admin';
SELECT 'after:   ', get_profile(:'u') -> 'roles';
SELECT 'explain: ', profile_cache.explain(:'u');

\echo
\echo '== The plan that half of all users have is renamed: UPDATE subscription_plan ...'
SELECT 'before:  ', get_profile(:'u') -> 'subscription_data';
\timing on
UPDATE subscription_plan SET display_name = 'Professional', ai_daily_limit = 750 WHERE id = 'pro';
\timing off
SELECT 'after:   ', get_profile(:'u') -> 'subscription_data';
\echo 'One row was written, no profile was touched; until the next refresh these profiles are read from the view:'
SELECT 'explain: ', profile_cache.explain(:'u');
CALL profile_cache.refresh();
SELECT 'explain: ', profile_cache.explain(:'u');

\echo
\echo '== The subscription is canceled: UPDATE user_subscription ...'
UPDATE user_subscription SET status = 'canceled' WHERE user_id = (SELECT id FROM user_profile WHERE supabase_user_id = :'u');
SELECT 'after:   ', get_profile(:'u') -> 'subscription_data';
SELECT 'explain: ', profile_cache.explain(:'u');
