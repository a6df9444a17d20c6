-- stats: its columns; who may read them, reset them, and say whether anything is counted; numbers that were counted, or
-- NULLs and a warning. What each of them counts is in servers/test_stats.py.
\set ECHO none
\i include/output.sql
\i include/tables.sql
\i include/check.sql
CREATE EXTENSION profile_cache;
CREATE ROLE regress_stats_owner;
CREATE ROLE regress_stats_monitor IN ROLE pg_monitor;
CREATE ROLE regress_stats_app;
-- Whether all columns are NULL, or none is.
CREATE FUNCTION nulls() RETURNS text LANGUAGE sql AS $$
    SELECT CASE WHEN s IS NULL THEN 'all' WHEN s IS NOT NULL THEN 'none' ELSE 'some' END FROM profile_cache.stats AS s $$;
CREATE FUNCTION warned() RETURNS boolean LANGUAGE sql AS $$
    SELECT EXISTS (SELECT FROM profile_cache.status AS s, unnest(s.warnings) AS w WHERE w LIKE 'nothing is counted, and profile_cache.stats is null: %; % set profile_cache.track = off') $$;
-- Whether this server has memory for counters: from PostgreSQL 17 on any has.
CREATE FUNCTION counts() RETURNS boolean LANGUAGE sql AS $$
    SELECT current_setting('server_version_num')::int >= 170000 OR s.preloaded FROM profile_cache.status AS s $$;
\set ECHO all
SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = 'profile_cache.stats'::regclass AND attnum > 0 ORDER BY attnum;
SELECT profile_cache.attach();
CALL profile_cache.refresh();

-- A session that is told not to count says nothing, and nobody need be warned of what was asked for.
SET profile_cache.track = off;
SELECT nulls(), warned();
-- Else there are numbers, or it is said why there are none.
SET profile_cache.track = on;
SELECT nulls() = CASE WHEN counts() THEN 'none' ELSE 'all' END AS as_it_should_be, warned() = NOT counts() AS and_said;
-- A reason for each key, always all of them.
SELECT (SELECT array_agg(k ORDER BY k) FROM jsonb_object_keys(miss_reasons) AS k) = '{disabled,expired,from_future,in_transaction,not_cached,pending,row_security,unhealthy}'
    OR NOT counts() AS all_reasons FROM profile_cache.stats;

-- The tables' owner and pg_monitor may read, and only owners reset.
GRANT USAGE ON SCHEMA public TO PUBLIC;
\set VERBOSITY terse
ALTER TABLE user_profile OWNER TO regress_stats_owner;
SET ROLE regress_stats_monitor;
SELECT count(*) FROM profile_cache.stats;
SELECT profile_cache.stats_reset();
\echo :SQLSTATE
SET profile_cache.track = off;
SET ROLE regress_stats_app;
SELECT count(*) FROM profile_cache.stats;
SELECT count(*) FROM profile_cache.stats_row();
\echo :SQLSTATE
SELECT profile_cache.stats_reset();
SET ROLE regress_stats_owner;
SELECT count(*) FROM profile_cache.stats_row();
-- Where nothing is counted there is nothing to reset, and it says so.
SET client_min_messages = error;
SELECT profile_cache.stats_reset();
RESET client_min_messages;
RESET ROLE;
\set ECHO none
REASSIGN OWNED BY regress_stats_owner TO CURRENT_USER;
DROP ROLE regress_stats_owner, regress_stats_monitor, regress_stats_app;
