-- One run of view_raises.sql: the view raises :code for user 1, alone and beside user 2, at a commit and in a refresh.
\echo :code
UPDATE user_profile SET note = 'raise ' || :'code' WHERE id = 1;
UPDATE user_profile SET email = email || '!' WHERE id IN (1, 2);
SELECT id || ' is served from: ' || coalesce(profile_cache.explain(supabase_user_id) ->> 'served_from', '') || ', ' || attempt('SELECT get_profile(''' || supabase_user_id || ''')')
FROM user_profile WHERE id IN (1, 2) ORDER BY id;
SELECT DISTINCT 'noted: ' || sqlstate FROM profile_cache.failure;
SELECT profile_cache.invalidate_all() \g /dev/null
CALL profile_cache.refresh();
SELECT id || ' is served from: ' || coalesce(profile_cache.explain(supabase_user_id) ->> 'served_from', '') FROM user_profile WHERE id IN (1, 2) ORDER BY id;
UPDATE user_profile SET note = NULL WHERE id = 1;
CALL profile_cache.refresh();
SELECT 'stale: ' || count(*) FROM app.document AS d WHERE get_profile(d.uid)::text IS DISTINCT FROM d.document::text;
