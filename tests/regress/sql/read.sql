-- get_profile as an app calls it: a hit and a miss give the same bytes whatever the session's
-- settings, nothing is written, and it can be called from anywhere a STABLE function can.
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
CREATE EXTENSION profile_cache;
ALTER TABLE user_profile ADD COLUMN n numeric DEFAULT 1.10, ADD COLUMN f double precision DEFAULT 0.1, ADD COLUMN at timestamptz DEFAULT '2024-05-01 12:00:00+00',
    ADD COLUMN ats timestamptz[] DEFAULT '{2024-05-01 12:00:00+00}', ADD COLUMN day date DEFAULT '2024-05-01', ADD COLUMN i interval DEFAULT '1 day 02:03:04',
    ADD COLUMN bytes bytea DEFAULT '\x00ff', ADD COLUMN cash money DEFAULT 12.34, ADD COLUMN x xml DEFAULT '<a/>', ADD COLUMN r tstzrange DEFAULT '[2024-05-01 12:00:00+00,)';
\set ECHO all

-- Not attached: an error that says what to do; NULL is NULL all the same.
SELECT get_profile(u(1));
\echo :SQLSTATE
SELECT get_profile(NULL) IS NULL;

SELECT profile_cache.attach();
CALL profile_cache.refresh();

-- Hit, NULL, unknown.
SELECT get_profile(u(1)) ->> 'email', profile_cache.explain(u(1)) ->> 'served_from';
SELECT get_profile(NULL), profile_cache.explain(NULL);
SELECT get_profile(u(99)), profile_cache.explain(u(99));
SELECT get_profile('00000000-0000-0000-0000-000000000000'), get_profile('ffffffff-ffff-ffff-ffff-ffffffffffff');
SELECT get_profile('no uuid');
\echo :SQLSTATE
SELECT id, get_profile(supabase_user_id) ->> 'subscription_plan' FROM user_profile ORDER BY id;

-- The same bytes on hit and miss, under any setting that changes how values print.
CREATE TABLE expected AS SELECT supabase_user_id AS id, get_profile(supabase_user_id)::text AS hit, profile_cache.explain(supabase_user_id) ->> 'served_from' AS served_from FROM user_profile;
SELECT DISTINCT served_from FROM expected;
CREATE FUNCTION differences() RETURNS TABLE (setting text, id uuid) LANGUAGE plpgsql AS $$
DECLARE s text;
BEGIN
    FOREACH s IN ARRAY ARRAY[
        'TimeZone=Asia/Kathmandu', 'TimeZone=America/St_Johns', 'DateStyle=German', 'DateStyle=SQL, DMY',
        'DateStyle=Postgres, YMD', 'IntervalStyle=iso_8601', 'IntervalStyle=sql_standard',
        'IntervalStyle=postgres_verbose', 'extra_float_digits=-15', 'extra_float_digits=3', 'bytea_output=escape',
        'lc_monetary=C', 'lc_numeric=C', 'lc_time=C', 'xmlbinary=hex', 'xmloption=document', 'search_path=pg_temp',
        'search_path=', 'standard_conforming_strings=off', 'backslash_quote=on', 'quote_all_identifiers=on',
        'transform_null_equals=on', 'array_nulls=off', 'default_transaction_isolation=serializable',
        'default_transaction_read_only=on', 'check_function_bodies=off', 'enable_indexscan=off', 'enable_seqscan=off',
        'enable_nestloop=off', 'enable_bitmapscan=off', 'plan_cache_mode=force_generic_plan',
        'plan_cache_mode=force_custom_plan', 'from_collapse_limit=1', 'join_collapse_limit=1', 'geqo_threshold=2',
        'force_parallel_mode=on', 'debug_parallel_query=on', 'work_mem=64kB', 'client_min_messages=error', 'default_table_access_method=heap',
        'row_security=off', 'escape_string_warning=off', 'gin_fuzzy_search_limit=1', 'operator_precedence_warning=on'] LOOP
        CONTINUE WHEN NOT EXISTS (SELECT FROM pg_settings WHERE name = split_part(s, '=', 1));
        PERFORM set_config(split_part(s, '=', 1), split_part(s, '=', 2), true);
        setting := s;
        RETURN QUERY SELECT s, e.id FROM public.expected AS e WHERE e.hit IS DISTINCT FROM public.get_profile(e.id)::text;
        PERFORM set_config('profile_cache.enabled', 'off', true);
        RETURN QUERY SELECT s, e.id FROM public.expected AS e WHERE e.hit IS DISTINCT FROM public.get_profile(e.id)::text;
        PERFORM set_config('profile_cache.enabled', 'on', true);
        PERFORM set_config(split_part(s, '=', 1), (SELECT reset_val FROM pg_settings WHERE name = split_part(s, '=', 1)), true);
    END LOOP;
END
$$;
SELECT * FROM differences();
-- So are documents that are computed under such settings.
SET TimeZone = 'Asia/Kathmandu';
SET DateStyle = 'German';
SET IntervalStyle = 'iso_8601';
SET extra_float_digits = -15;
SET bytea_output = 'escape';
SET search_path = pg_temp;
UPDATE public.user_profile SET note = NULL, f = 0.1, n = n + 0.00;
SELECT profile_cache.invalidate_all();
CALL profile_cache.refresh();
SET search_path = public;
SELECT state();
SELECT count(*) FROM expected AS e WHERE e.hit IS DISTINCT FROM get_profile(e.id)::text;
-- The settings themselves are left as they were, also by an error in the middle.
SHOW TimeZone;
SHOW search_path;
SHOW extra_float_digits;
RESET ALL;
SET client_min_messages = warning;

-- profile_cache.enabled: reads are live, maintenance goes on.
SET profile_cache.enabled = off;
SELECT profile_cache.explain(u(1)) ->> 'served_from', profile_cache.explain(u(1)) ->> 'reason';
SELECT get_profile(u(1)) ->> 'email';
UPDATE user_profile SET email = 'maintained' WHERE id = 1;
SELECT get_profile(u(1)) ->> 'email';
SELECT enabled, cached, warnings FROM profile_cache.status;
SET profile_cache.enabled = on;
SELECT profile_cache.explain(u(1)) ->> 'served_from', get_profile(u(1)) ->> 'email';

-- Nothing is written: READ ONLY, and no transaction id is taken, on hit and on miss.
BEGIN READ ONLY;
SELECT get_profile(u(1)) ->> 'email', profile_cache.explain(u(1)) ->> 'served_from';
SELECT profile_cache.invalidate(u(1));
\echo :SQLSTATE
ROLLBACK;
SET default_transaction_read_only = on;
SELECT get_profile(u(1)) ->> 'email';
SELECT count(*) FROM profile_cache.verify();
SELECT cached FROM profile_cache.status;
SET default_transaction_read_only = off;
BEGIN;
SELECT profile_cache.invalidate(u(2));
COMMIT;
BEGIN;
SELECT get_profile(u(1)) ->> 'email', get_profile(u(2)) ->> 'email', get_profile(u(99)), profile_cache.explain(u(2)) ->> 'reason';
SELECT pg_current_xact_id_if_assigned() IS NULL;
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE;
SELECT get_profile(u(1)) ->> 'email';
COMMIT;
CALL profile_cache.refresh();

-- In a transaction its own changes are seen, by a snapshot taken before them they are not.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT get_profile(u(1)) ->> 'email';
DECLARE before CURSOR FOR SELECT id, get_profile(supabase_user_id) ->> 'email', email FROM user_profile WHERE id = 1;
UPDATE user_profile SET email = 'own change' WHERE id = 1;
SELECT get_profile(u(1)) ->> 'email';
FETCH ALL FROM before;
ROLLBACK;
BEGIN;
DECLARE before SCROLL CURSOR WITH HOLD FOR SELECT id, get_profile(supabase_user_id) ->> 'email' FROM user_profile ORDER BY id;
FETCH 2 FROM before;
UPDATE user_profile SET email = 'while a cursor is open' WHERE id = 3;
FETCH 1 FROM before;
COMMIT;
FETCH 1 FROM before;
CLOSE before;
SELECT * FROM wrong();

-- Prepared statements live through detach, attach and renames.
PREPARE get (uuid) AS SELECT get_profile($1) ->> 'email', profile_cache.explain($1) ->> 'served_from';
EXECUTE get (u(1));
SET plan_cache_mode = force_generic_plan;
EXECUTE get (u(1));
SELECT profile_cache.detach();
EXECUTE get (u(1));
\echo :SQLSTATE
SELECT profile_cache.attach();
EXECUTE get (u(1));
CALL profile_cache.refresh();
EXECUTE get (u(1));
ALTER TABLE user_profile RENAME TO people;
EXECUTE get (u(1));
CREATE SCHEMA moved;
ALTER TABLE people SET SCHEMA moved;
EXECUTE get (u(1));
ALTER TABLE moved.people RENAME TO user_profile;
ALTER TABLE moved.user_profile SET SCHEMA public;
CALL profile_cache.refresh();
EXECUTE get (u(1));
ALTER FUNCTION get_profile(uuid) RENAME TO profile_of;
EXECUTE get (u(1));
ALTER FUNCTION profile_of(uuid) RENAME TO get_profile;
RESET plan_cache_mode;

-- Where it may be called from.
EXPLAIN (VERBOSE, COSTS OFF) SELECT get_profile(u(1));
EXPLAIN (VERBOSE, COSTS OFF) SELECT get_profile(supabase_user_id) FROM user_profile WHERE get_profile(u(1)) IS NOT NULL;
SELECT count(*) FROM (SELECT get_profile(supabase_user_id) FROM user_profile OFFSET 0) AS s;
SELECT n, get_profile(u(n)) ->> 'email' FROM generate_series(1, 2) AS n;
SELECT d.email FROM user_profile AS p, LATERAL jsonb_to_record(get_profile(p.supabase_user_id)) AS d(email text) ORDER BY 1 LIMIT 1;
CREATE VIEW me AS SELECT get_profile(u(1)) ->> 'email' AS email;
SELECT * FROM me;
DO $$ BEGIN RAISE WARNING '%', get_profile(u(1)) ->> 'email'; END $$;
CREATE FUNCTION in_sql(uuid) RETURNS text LANGUAGE sql STABLE AS 'SELECT get_profile($1) ->> ''email''';
SELECT in_sql(u(1));
CREATE FUNCTION in_plpgsql(uuid) RETURNS text LANGUAGE plpgsql STABLE AS $$ DECLARE d jsonb; BEGIN d := get_profile($1); RETURN d ->> 'email'; END $$;
SELECT in_plpgsql(u(1));
COPY (SELECT get_profile(u(1)) ->> 'email') TO stdout;
CREATE TABLE copies AS SELECT get_profile(supabase_user_id) FROM user_profile;
INSERT INTO copies SELECT get_profile(supabase_user_id) FROM user_profile;
SELECT count(get_profile), count(DISTINCT get_profile) FROM copies;
CREATE INDEX ON copies ((get_profile('00000000-0000-0000-0000-000000000001')));
-- PostgreSQL 16 has given it another name.
\set in_parallel 'SELECT set_config(name, ''on'', false) FROM pg_settings WHERE name IN (''force_parallel_mode'', ''debug_parallel_query'') \\g /dev/null'
:in_parallel
SELECT get_profile(u(1)) ->> 'email';
SELECT count(get_profile(supabase_user_id)) FROM user_profile;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SELECT count(get_profile(supabase_user_id)) FROM user_profile WHERE email <> '';
SELECT count(*) FROM profile_cache.verify();
-- Also where the backend has still to find out what is attached, or anew, in the middle of it.
ANALYZE user_profile;
SELECT count(get_profile(supabase_user_id)) FROM user_profile WHERE email <> '';
\c -
:in_parallel
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SELECT count(get_profile(supabase_user_id)) FROM user_profile WHERE email <> '';
\c -
:in_parallel
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SELECT count(profile_cache.explain(supabase_user_id)) FROM user_profile WHERE email <> '';
\c -
:in_parallel
SELECT count(*) FROM profile_cache.verify();
\c -
:in_parallel
SELECT cached FROM profile_cache.status;
RESET ALL;
-- Many calls in one statement.
SELECT count(get_profile(u(1 + n % 5))) FROM generate_series(1, 20000) AS n;
SET profile_cache.enabled = off;
SELECT count(get_profile(u(1 + n % 5))) FROM generate_series(1, 500) AS n;
RESET profile_cache.enabled;

-- An error in the middle of a read leaves nothing behind.
BEGIN;
SELECT get_profile(u(1)) ->> 'email';
SELECT get_profile((1 / 0)::text::uuid);
ROLLBACK;
SELECT current_user = session_user, get_profile(u(1)) ->> 'email';
