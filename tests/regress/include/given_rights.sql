-- One run of given_rights.sql: everything that could make SQL of the definition.
RESET ROLE;
:orphan
SET ROLE regress_given_web;
SELECT attempt('SELECT get_profile(u(2))') \g /dev/null
SELECT attempt('SELECT count(*) FROM get_profiles(ARRAY[u(2), u(3)])') \g /dev/null
SELECT attempt('UPDATE app.person SET email = email || ''!'' WHERE id = 1');
SELECT attempt('UPDATE app.person SET email = email || ''!'' WHERE id < 4');
SELECT attempt('SELECT get_profile(u(2))') \g /dev/null
SET ROLE regress_given_dbo;
SELECT attempt('SELECT profile_cache.invalidate(u(4))') \g /dev/null
SELECT attempt('SELECT profile_cache.refresh_step(10, ''epochs'', NULL)') \g /dev/null
SELECT attempt('SELECT profile_cache.refresh_step(10, ''epochs'', NULL)') \g /dev/null
SELECT attempt('SELECT profile_cache.refresh_step(10, ''epochs'', NULL)') \g /dev/null
SELECT attempt('SELECT profile_cache.refresh_step(10, ''keys'', NULL)') \g /dev/null
SELECT attempt('SELECT profile_cache.refresh_step(10, ''stale'', NULL)') \g /dev/null
SELECT attempt('SELECT * FROM profile_cache.verify()') \g /dev/null
SELECT attempt('SELECT * FROM profile_cache.status') \g /dev/null
RESET ROLE;
