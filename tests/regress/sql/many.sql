-- get_profiles: for each id what get_profile gives, in the order asked, whatever is pending, in flight or hidden.
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
CREATE EXTENSION profile_cache;
-- Ids in a list, in order; and whether all of it is what get_profile says of each.
CREATE FUNCTION ids(VARIADIC ns integer[]) RETURNS uuid[] LANGUAGE sql IMMUTABLE AS
    $$SELECT coalesce(array_agg(u(n) ORDER BY i), '{}') FROM unnest($1) WITH ORDINALITY AS t(n, i)$$;
CREATE FUNCTION emails(uuid[]) RETURNS text LANGUAGE sql STABLE AS
    $$SELECT string_agg(coalesce(profile ->> 'email', '<NULL>'), ' ' ORDER BY i) FROM get_profiles($1) WITH ORDINALITY AS t(user_id, profile, i)$$;
CREATE FUNCTION differing(uuid[]) RETURNS SETOF uuid LANGUAGE sql STABLE AS $$
    SELECT a.id FROM unnest($1) WITH ORDINALITY AS a(id, i) FULL JOIN get_profiles($1) WITH ORDINALITY AS t(user_id, profile, i) USING (i)
     WHERE t.i IS NULL OR a.i IS NULL OR a.id IS DISTINCT FROM t.user_id OR t.profile::text IS DISTINCT FROM get_profile(a.id)::text$$;
\set ECHO all

-- Not attached: the error of get_profile, where there is anybody to ask for.
SELECT * FROM get_profiles(ids(1));
\echo :SQLSTATE
SELECT count(*) FROM get_profiles('{}');
SELECT count(*) FROM get_profiles(NULL);
SELECT * FROM get_profiles('{NULL}');

SELECT profile_cache.attach();
CALL profile_cache.refresh();

-- Order, duplicates, the unknown, NULLs, any dimensions and bounds.
SELECT user_id, profile ->> 'email' FROM get_profiles(ids(3, 1, 99, 2, 1));
SELECT user_id, profile ->> 'email' FROM get_profiles(ARRAY[NULL, u(5), NULL, u(4)]);
SELECT user_id, profile ->> 'email' FROM get_profiles(ARRAY[ids(4, 3), ids(2, 1)]);
SELECT user_id, profile ->> 'email' FROM get_profiles(('[7:8]={' || u(2) || ',' || u(1) || '}')::uuid[]);
SELECT count(*) FROM get_profiles('{}'::uuid[]);
SELECT get_profiles(ids(2, 99)) IS NULL;
SELECT (get_profiles(ids(2, 1))).user_id;
SELECT * FROM get_profiles('{no uuid}');
\echo :SQLSTATE
SELECT p.id, f.profile ->> 'email' FROM user_profile AS p, LATERAL get_profiles(ARRAY[p.supabase_user_id, u(99)]) AS f WHERE p.id < 3 ORDER BY 1, 2;
EXPLAIN SELECT * FROM get_profiles(ids(1));
-- More than are in memory at once, and some of them missing.
SELECT count(*), count(profile), count(DISTINCT profile) FROM get_profiles((SELECT array_agg(u(1 + n % 7)) FROM generate_series(1, 1777) AS n));
SELECT * FROM differing((SELECT array_agg(u(1 + n % 7)) FROM generate_series(1, 1777) AS n));

-- Hits and misses in one list: a pending key; expired.
SELECT profile_cache.invalidate(u(2));
UPDATE user_subscription SET current_period_end = clock_timestamp() + interval '1 ms' WHERE id = 1;
SELECT pg_sleep(0.01);
SELECT state();
SELECT emails(ids(5, 4, 3, 2, 1, 2, 99));
SELECT * FROM differing(ids(5, 4, 3, 2, 1, 2, 99));
CALL profile_cache.refresh();
-- An epoch, without a number and with one.
UPDATE subscription_plan SET display_name = 'Changed' WHERE id = 'pro';
SELECT profile ->> 'subscription_display_name' FROM get_profiles(ids(1, 2, 3));
SELECT * FROM differing(ids(5, 4, 3, 2, 1, 1));
SELECT profile_cache.refresh_step(1, 'epochs', NULL) \g /dev/null
SELECT count(*), count(epoch) FROM profile_cache.pending_epoch;
SELECT state();
SELECT profile ->> 'subscription_display_name' FROM get_profiles(ids(1, 2, 3));
SELECT * FROM differing(ids(5, 4, 3, 2, 1, 1));
CALL profile_cache.refresh();
SELECT state();
SET profile_cache.enabled = off;
SELECT emails(ids(5, 99, 1));
SELECT * FROM differing(ids(5, 99, 1));
RESET profile_cache.enabled;

-- A trigger that does not fire: changes go unnoticed, so the view is read.
ALTER TABLE user_role DISABLE TRIGGER USER;
DELETE FROM user_role WHERE user_id = 1;
SELECT profile -> 'roles' FROM get_profiles(ids(1, 2));
SELECT * FROM differing(ids(1, 2, 3));
SELECT profile_cache.attach();
CALL profile_cache.refresh();
SELECT state();

-- A transaction's own change; and a statement in flight, whose row is there already and whose trigger is not through.
BEGIN;
UPDATE user_profile SET email = 'mine' WHERE id = 2;
SELECT emails(ids(1, 2));
SELECT * FROM differing(ids(1, 2));
ROLLBACK;
CREATE FUNCTION seen(ids uuid[]) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN (SELECT string_agg(profile ->> 'roles', ' ' ORDER BY i) FROM get_profiles($1) WITH ORDINALITY AS t(user_id, profile, i))
        || ', differing: ' || (SELECT count(*) FROM differing($1));
END $$;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING '%', public.seen(public.ids(4, 5)); RETURN NULL; END $$;
CREATE TRIGGER note AFTER INSERT ON user_role FOR EACH ROW EXECUTE FUNCTION note();
INSERT INTO user_role VALUES (50, 5, 1) RETURNING seen(ids(4, 5));
DROP TRIGGER note ON user_role;
-- A cursor sees what its snapshot does.
BEGIN;
DECLARE before SCROLL CURSOR FOR SELECT profile ->> 'email' FROM get_profiles(ids(1, 2));
UPDATE user_profile SET email = 'after' WHERE id = 2;
FETCH ALL FROM before;
SELECT emails(ids(1, 2));
ROLLBACK;
-- Nothing is written.
BEGIN READ ONLY;
SELECT profile_cache.explain(u(1)) ->> 'served_from', emails(ids(1, 2));
SELECT pg_current_xact_id_if_assigned() IS NULL;
COMMIT;
\set in_parallel 'SELECT set_config(name, ''on'', false) FROM pg_settings WHERE name IN (''force_parallel_mode'', ''debug_parallel_query'') \\g /dev/null'
:in_parallel
SELECT emails(ids(1, 99, 2));
SET profile_cache.enabled = off;
SELECT emails(ids(1, 99, 2));
RESET ALL;
SET client_min_messages = warning;

-- Rights: as SELECT cached_profile; row security shows each row or hides it, hit or miss.
CREATE ROLE regress_many;
SET ROLE regress_many;
SELECT * FROM get_profiles(ids(1));
\echo :SQLSTATE
SELECT * FROM get_profiles('{NULL}');
RESET ROLE;
GRANT SELECT (supabase_user_id, cached_profile) ON user_profile TO regress_many;
SET ROLE regress_many;
SELECT emails(ids(3, 1));
RESET ROLE;
ALTER TABLE user_profile ENABLE ROW LEVEL SECURITY;
CREATE POLICY friends ON user_profile FOR SELECT TO regress_many USING (supabase_user_id = ANY (current_setting('app.friends')::uuid[]));
SELECT profile_cache.invalidate(u(2)), profile_cache.invalidate(u(3));
SET ROLE regress_many;
SELECT set_config('app.friends', ids(1, 2, 4)::text, false) \g /dev/null
SELECT emails(ids(5, 4, 3, 2, 1));
SELECT * FROM differing(ids(5, 4, 3, 2, 1));
SET row_security = off;
SELECT * FROM get_profiles(ids(1));
\echo :SQLSTATE
RESET ALL;
SET client_min_messages = warning;
RESET ROLE;
CALL profile_cache.refresh();
-- A policy that changes what it guards: all of the list is of one snapshot.
CREATE FUNCTION meddling(id bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $$
BEGIN
    IF id = 1 AND current_setting('app.meddle', true) = 'on' THEN
        UPDATE public.user_profile SET email = 'seen' WHERE user_profile.id = 2;
    END IF;
    RETURN true;
END $$;
GRANT SELECT (id) ON user_profile TO regress_many;
DROP POLICY friends ON user_profile;
CREATE POLICY all_of_them ON user_profile FOR SELECT TO regress_many USING (meddling(id));
SET ROLE regress_many;
SET app.meddle = on;
BEGIN;
SELECT emails(ids(2, 1, 2));
SELECT profile_cache.explain(u(2)) ->> 'reason';
ROLLBACK;
RESET ALL;
SET client_min_messages = warning;
RESET ROLE;
ALTER TABLE user_profile DISABLE ROW LEVEL SECURITY;

-- Two rows for one profile, where nothing keeps its key unique any more: an error, as of get_profile.
DROP POLICY all_of_them ON user_profile;
ALTER TABLE user_profile DROP CONSTRAINT user_profile_supabase_user_id_key;
INSERT INTO user_profile (id, supabase_user_id) VALUES (6, u(5));
SELECT count(profile) FROM get_profiles(ids(1, 2, 3, 1));
SELECT get_profile(u(5));
SELECT * FROM get_profiles(ids(4, 5));
\echo :SQLSTATE
SELECT * FROM get_profiles(ids(5));
DELETE FROM user_profile WHERE id = 6;
ALTER TABLE user_profile ADD UNIQUE (supabase_user_id);
-- A view that raises for one of them.
SELECT profile_cache.detach();
CREATE VIEW many AS SELECT p.supabase_user_id, jsonb_build_object('email', p.email, 'n', 1 / (p.id - 4)) AS document FROM user_profile AS p;
SELECT profile_cache.attach(document => 'many');
SELECT profile FROM get_profiles(ids(1, 2));
SELECT profile FROM get_profiles(ids(1, 4));
\echo :SQLSTATE
SELECT profile_cache.detach();
DROP OWNED BY regress_many;
DROP ROLE regress_many;
