-- What an operator looks at.
\set QUIET on
\pset footer off
\echo '== Nothing stale: SELECT count(*) FROM profile_cache.verify()'
SELECT count(*) AS problems FROM profile_cache.verify() \gset
\echo 'problems:' :problems
-- Ends the demo with an error if there are any.
SELECT 1 / (:problems = 0)::int \g /dev/null
\echo
\echo '== The state of it all: SELECT * FROM profile_cache.status'
\x on
SELECT * FROM profile_cache.status;
