-- Columns of different collations on one route. A foreign key between them is by the values, byte by byte, as long as
-- both collations are deterministic; PostgreSQL chooses none of the two by itself, so every comparison of ours says one.
\set ECHO none
\i include/output.sql
SET client_min_messages = warning;
CREATE EXTENSION profile_cache;
CREATE SCHEMA "Odd";
CREATE COLLATION "Odd"."By ""C""" FROM "C";
CREATE FUNCTION u(n int) RETURNS uuid IMMUTABLE RETURN ('00000000-0000-4000-8000-00000000000' || n)::uuid;
\set check 'SELECT count(*) FILTER (WHERE get_profile(d.supabase_user_id) IS DISTINCT FROM d.document) AS wrong, count(*) FILTER (WHERE profile_cache.explain(d.supabase_user_id) ->> ''served_from'' = ''cache'') AS cached FROM profile_document AS d;'
\set ECHO all

-- The conventional tables, each foreign key between two collations.
CREATE TABLE user_profile (id text COLLATE "C" PRIMARY KEY, supabase_user_id uuid NOT NULL UNIQUE);
CREATE TABLE subscription_plan (id text COLLATE "Odd"."By ""C""" PRIMARY KEY, display_name text, ai_daily_limit int);
CREATE TABLE user_subscription (id int PRIMARY KEY, user_id text COLLATE "Odd"."By ""C""" REFERENCES user_profile, plan_id text COLLATE "POSIX" REFERENCES subscription_plan, status text);
CREATE TABLE role (id text COLLATE "Odd"."By ""C""" PRIMARY KEY, name text);
CREATE TABLE user_role (user_id text COLLATE "POSIX" REFERENCES user_profile, role_id text COLLATE "POSIX" REFERENCES role, PRIMARY KEY (user_id, role_id));
CREATE INDEX ON user_subscription (user_id);
CREATE INDEX ON user_subscription (plan_id);
CREATE INDEX ON user_role (role_id);
INSERT INTO user_profile SELECT 'u' || i, u(i) FROM generate_series(1, 4) AS i;
INSERT INTO subscription_plan VALUES ('free', 'Free', 1), ('pro', 'Pro', 10);
INSERT INTO user_subscription VALUES (1, 'u1', 'pro', 'active'), (2, 'u2', 'free', 'active');
INSERT INTO role VALUES ('r1', 'editor'), ('r2', 'admin');
INSERT INTO user_role VALUES ('u1', 'r1'), ('u3', 'r2');
SELECT profile_cache.attach();
SELECT regexp_replace(d, '.* ON |WHERE ', '') FROM regexp_split_to_table(pg_get_viewdef('profile_document'), '\n') AS d WHERE d ~ 'COLLATE' ORDER BY 1;
CALL profile_cache.refresh();
:check
-- A dimension leads by a route through two more.
UPDATE subscription_plan SET display_name = 'Pro+' WHERE id = 'pro';
UPDATE role SET name = 'chief' WHERE id = 'r2';
:check
CALL profile_cache.refresh();
:check
-- A member leads to the profile itself, old and new; and names one that cannot be locked.
UPDATE user_subscription SET user_id = 'u4' WHERE id = 1;
UPDATE user_role SET role_id = 'r2' WHERE user_id = 'u1';
:check
SET profile_cache.max_immediate = 1;
UPDATE user_subscription SET status = 'trialing';
:check
CALL profile_cache.refresh();
:check
RESET profile_cache.max_immediate;
SELECT * FROM profile_cache.failure;
SELECT count(*) FROM profile_cache.verify();
-- The definition has the collation, where there are two.
SELECT DISTINCT s -> 'columns' FROM profile_cache.attachment AS a, jsonb_path_query(a.definition, '$.tables[*].links[*].route[*]') AS s WHERE s::text ~ 'collation' ORDER BY 1;
-- It is a name there and nothing else, whoever has written it.
CREATE FUNCTION evil() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'the definition ran as %', current_user; RETURN 1; END $$;
BEGIN;
UPDATE profile_cache.attachment SET definition = replace(definition::text, to_json('pg_catalog."POSIX"'::text)::text, to_json('pg_catalog."POSIX" OR public.evil() = 1'::text)::text)::jsonb;
COMMIT;
UPDATE subscription_plan SET display_name = 'Pro' WHERE id = 'pro';
CALL profile_cache.refresh();
:check
SELECT profile_cache.attach();
CALL profile_cache.refresh();
:check
-- A renamed collation carries over.
ALTER COLLATION "Odd"."By ""C""" RENAME TO renamed;
ALTER SCHEMA "Odd" RENAME TO even;
UPDATE subscription_plan SET display_name = 'Pro++' WHERE id = 'pro';
CALL profile_cache.refresh();
:check

-- A view of the app's own has to say one itself; its routes are the same.
CREATE VIEW own AS SELECT p.supabase_user_id, jsonb_build_object('plans', (SELECT jsonb_agg(l.display_name ORDER BY l.id)
    FROM user_subscription AS s JOIN subscription_plan AS l ON l.id = s.plan_id COLLATE even.renamed WHERE s.user_id = p.id COLLATE even.renamed)) AS document FROM user_profile AS p;
SELECT profile_cache.detach();
SELECT profile_cache.attach(document => 'own');
DROP VIEW IF EXISTS profile_document;
CREATE VIEW profile_document AS TABLE own;
CALL profile_cache.refresh();
:check
UPDATE subscription_plan SET display_name = 'Pro!' WHERE id = 'pro';
:check
CALL profile_cache.refresh();
:check
-- One that does not fails where it is read, here as anywhere.
CREATE OR REPLACE VIEW own AS SELECT p.supabase_user_id, jsonb_build_object('plans', (SELECT jsonb_agg(l.display_name ORDER BY l.id)
    FROM user_subscription AS s JOIN subscription_plan AS l ON l.id = s.plan_id WHERE s.user_id = p.id)) AS document FROM user_profile AS p;
SELECT get_profile(u(1));
CALL profile_cache.refresh();
SELECT DISTINCT sqlstate FROM profile_cache.failure;
