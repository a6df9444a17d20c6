-- One run of settings_outlive.sql: every way in which a superuser's session has us run the owner's code, and whether
-- its settings are as they were.
\echo get_profile, from the view
SET profile_cache.enabled = off;
SELECT public.attempt($$SELECT pg_catalog.count(get_profile('00000000-0000-0000-0000-000000000001'))$$) \g /dev/null
SELECT public.kept();
SELECT public.attempt($$SELECT pg_catalog.count(profile) FROM get_profiles('{00000000-0000-0000-0000-000000000001, 00000000-0000-0000-0000-000000000002}')$$) \g /dev/null
SELECT public.kept();
RESET profile_cache.enabled;
\echo get_profile and explain, with a key pending
SELECT profile_cache.invalidate('00000000-0000-0000-0000-000000000002') \g /dev/null
SELECT public.attempt($$SELECT pg_catalog.count(get_profile('00000000-0000-0000-0000-000000000002'))$$) \g /dev/null
SELECT public.kept();
SELECT public.attempt($$SELECT profile_cache.explain('00000000-0000-0000-0000-000000000001')$$) \g /dev/null
SELECT public.kept();
\echo a write of a member
UPDATE app.badge SET label = label || '!' WHERE id OPERATOR(pg_catalog.=) 1;
SELECT public.kept();
\echo verify
SELECT public.attempt($$SELECT pg_catalog.count(*) FROM profile_cache.verify()$$) \g /dev/null
SELECT public.kept();
\echo status
SELECT public.attempt($$SELECT * FROM profile_cache.status$$) \g /dev/null
SELECT public.kept();
\echo attach
SELECT public.attempt($$SELECT profile_cache.attach('app.person', 'uid', 'app.document')$$) \g /dev/null
SELECT public.kept();
\echo DDL
COMMENT ON VIEW app.document IS 'x';
ALTER TABLE app.person ALTER COLUMN email SET STATISTICS 50;
SELECT public.kept();
\echo refresh
SELECT profile_cache.invalidate_all() \g /dev/null
CALL profile_cache.refresh();
SELECT public.kept();
CALL profile_cache.refresh(1);
SELECT public.kept();
