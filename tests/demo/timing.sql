-- The time of one read, inside the server, and of the same read done by hand.
\set QUIET on
\pset footer off
VACUUM ANALYZE user_profile;
SELECT setseed(0.5) \g /dev/null
SELECT array_agg(md5('user' || 1 + floor(random() * :users)::int)::uuid) AS keys FROM generate_series(1, :reads) \gset

\echo
\echo '== One read, of' :reads 'users at random (in the server; an app adds one round trip to a call or join, five to the queries)'
WITH loop AS MATERIALIZED (SELECT microseconds('nothing', :'keys') AS took),
     cache AS MATERIALIZED (SELECT microseconds('cache', :'keys') AS took),
     read (n, what, took) AS (
         SELECT 1, 'get_profile', took FROM cache
         UNION ALL SELECT 2, 'the join that builds it', microseconds('join', :'keys')
         UNION ALL SELECT 3, 'the five queries of an ORM', microseconds('queries', :'keys'))
SELECT what, round(read.took - loop.took, 1) AS microseconds, round((read.took - loop.took) / (cache.took - loop.took), 1) AS times
FROM read, loop, cache ORDER BY n;

SELECT count(*) AS read, count(*) FILTER (WHERE get_profile(key) IS NOT DISTINCT FROM by_join(key)) AS same
FROM (SELECT DISTINCT unnest(:'keys'::uuid[]) AS key) k \gset
\echo 'The join builds the same document for' :same 'of these' :read 'users.'
-- A comparison with something else would be worth nothing.
SELECT 1 / (:same = :read)::int \g /dev/null
\echo
