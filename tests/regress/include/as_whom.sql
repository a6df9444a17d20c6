-- One run of as_whom.sql: members refer to the profile by a column of type :type, and a key of that type is
-- pending. An ordinary role makes temporary types and functions of the names that SQL of ours may mention, reads,
-- writes, and leaves its session to others. Prints whose rights that code got; nothing is good.
DROP SCHEMA IF EXISTS app CASCADE;
CREATE SCHEMA app AUTHORIZATION regress_whom_app;
GRANT USAGE ON SCHEMA app TO regress_whom_web, regress_whom_dbo;
SET search_path = app, public;
SET ROLE regress_whom_app;
CREATE TABLE user_profile (handle :type PRIMARY KEY, supabase_user_id pg_catalog.uuid UNIQUE, email pg_catalog.text);
CREATE TABLE subscription_plan (id int PRIMARY KEY, display_name pg_catalog.text);
CREATE TABLE user_subscription (id int PRIMARY KEY, user_id :type REFERENCES user_profile, plan_id int REFERENCES subscription_plan, status pg_catalog.text);
CREATE TABLE role (id int PRIMARY KEY, name pg_catalog.text);
CREATE TABLE user_role (id int PRIMARY KEY, user_id :type REFERENCES user_profile, role_id int REFERENCES role);
CREATE INDEX ON user_subscription (user_id);
CREATE INDEX ON user_subscription (plan_id);
CREATE INDEX ON user_role (user_id);
CREATE INDEX ON user_role (role_id);
INSERT INTO role VALUES (1, 'admin');
INSERT INTO user_profile SELECT lpad(n::pg_catalog.text, 32, '0')::pg_catalog.uuid::pg_catalog.text:: :type, lpad(n::pg_catalog.text, 32, '0')::pg_catalog.uuid, n FROM generate_series(1, 3) AS n;
INSERT INTO user_role SELECT row_number() OVER (), handle, 1 FROM user_profile;
GRANT SELECT, UPDATE (email) ON user_profile TO regress_whom_web;
GRANT INSERT ON user_role TO regress_whom_web;
SET ROLE regress_whom_dbo;
SELECT profile_cache.attach('app.user_profile') \g /dev/null
CALL profile_cache.refresh();
-- A child without a parent, as bulk loaders may have it for a while: its key stays pending.
RESET ROLE;
SET session_replication_role = replica;
INSERT INTO user_role VALUES (9, '00000000-0000-0000-0000-000000000009', 1);
RESET session_replication_role;
SELECT key_columns, key_values FROM profile_cache.pending WHERE kind = 'key';

\c -
SET client_min_messages = warning;
SET search_path = app, public;
SET ROLE regress_whom_web;
CREATE FUNCTION pg_temp.evil(pg_catalog.text) RETURNS pg_catalog.bool LANGUAGE plpgsql AS $$
BEGIN
    IF current_user OPERATOR(pg_catalog.<>) 'regress_whom_web'::pg_catalog.name THEN
        RAISE WARNING 'web''s code ran as %', current_user;
    END IF;
    RETURN true;
END $$;
DO $$
DECLARE
    t pg_catalog.text;
BEGIN
    FOREACH t IN ARRAY '{uuid,text,name,oid,regclass,regtype,regrole,regproc,regprocedure,regnamespace,jsonb,timestamptz,tid,xid,xid8,int2,int4,int8,bool,float8,record}'::pg_catalog.text[] LOOP
        EXECUTE pg_catalog.format('CREATE DOMAIN pg_temp.%1$I AS pg_catalog.%2$I CHECK (pg_temp.evil(value::pg_catalog.text))', t, CASE t WHEN 'record' THEN 'text' ELSE t END);
    END LOOP;
    CREATE DOMAIN pg_temp.citext AS ext.citext CHECK (pg_temp.evil(value::pg_catalog.text));
END $$;
\echo -- web reads
SELECT public.get_profile('00000000-0000-0000-0000-000000000001') OPERATOR(pg_catalog.->>) 'email';
SELECT profile_cache.explain('00000000-0000-0000-0000-000000000001') OPERATOR(pg_catalog.->>) 'served_from';
SELECT public.get_profile('00000000-0000-0000-0000-000000000009') IS NULL;
PREPARE p AS SELECT public.get_profile('00000000-0000-0000-0000-000000000002') OPERATOR(pg_catalog.->>) 'email';
EXECUTE p;
EXECUTE p;
DEALLOCATE p;
SET profile_cache.enabled = off;
SELECT public.get_profile('00000000-0000-0000-0000-000000000001') OPERATOR(pg_catalog.->>) 'email';
SELECT pg_catalog.count(profile) FROM public.get_profiles('{00000000-0000-0000-0000-000000000001, 00000000-0000-0000-0000-000000000002}');
RESET profile_cache.enabled;
\echo -- web writes
UPDATE app.user_profile SET email = 'by web' WHERE supabase_user_id OPERATOR(pg_catalog.=) '00000000-0000-0000-0000-000000000002';
SELECT public.get_profile('00000000-0000-0000-0000-000000000002') OPERATOR(pg_catalog.->>) 'email';
INSERT INTO app.user_role VALUES (4, '00000000-0000-0000-0000-000000000002', 1);
\echo -- others in that session
RESET ROLE;
SET ROLE regress_whom_dbo;
UPDATE app.role SET name = 'changed';
SELECT public.get_profile('00000000-0000-0000-0000-000000000001') OPERATOR(pg_catalog.->>) 'email';
SELECT profile_cache.explain('00000000-0000-0000-0000-000000000001') OPERATOR(pg_catalog.->>) 'served_from';
SELECT profile_cache.invalidate('00000000-0000-0000-0000-000000000001') \g /dev/null
CALL profile_cache.refresh();
SELECT pg_catalog.count(*) FROM profile_cache.verify();
SELECT profile, stale, pending_keys, warnings FROM profile_cache.status;
SELECT profile_cache.attach() \g /dev/null
SELECT profile_cache.attach('app.user_profile') \g /dev/null
SELECT profile_cache.invalidate_all() \g /dev/null
CALL profile_cache.refresh(1);
ALTER TABLE app.role ADD COLUMN more pg_catalog.int4;
CALL profile_cache.refresh();
SELECT profile_cache.detach() \g /dev/null
SELECT profile_cache.attach('app.user_profile') \g /dev/null
CALL profile_cache.refresh();
SELECT public.get_profile('00000000-0000-0000-0000-000000000002') OPERATOR(pg_catalog.->>) 'email';
SELECT profile_cache.detach() \g /dev/null
RESET ROLE;
DISCARD TEMP;
