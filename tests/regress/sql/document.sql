-- What the generated document holds where the tables are not quite the conventional ones: each
-- case its own schema. A change here changes what an app's frontend receives.
\set ECHO none
\i include/output.sql
CREATE EXTENSION profile_cache;
CREATE FUNCTION u(n integer) RETURNS uuid LANGUAGE sql IMMUTABLE
    AS $$SELECT pg_catalog.lpad(n::text, 32, '0')::uuid$$;
-- Every document before and after refresh, whether refresh made it the cached one, and verify().
CREATE FUNCTION documents() RETURNS TABLE (document jsonb) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE pg_catalog.format('SELECT public.get_profile(%I) FROM %s WHERE %1$I IS NOT NULL ORDER BY %1$I',
        definition ->> 'key', profile) FROM profile_cache.attachment;
END
$$;
CREATE FUNCTION check_cached() RETURNS TABLE (served_from text, same boolean, problems bigint) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE pg_catalog.format(
        'SELECT profile_cache.explain(v.%I) ->> ''served_from'', public.get_profile(v.%1$I)::text IS NOT DISTINCT FROM v.document::text, (SELECT count(*) FROM profile_cache.verify()) FROM %s AS v WHERE v.%1$I IS NOT NULL ORDER BY v.%1$I',
        definition ->> 'view_key', document) FROM profile_cache.attachment;
END
$$;
\set show 'SELECT * FROM documents(); SET client_min_messages = warning; CALL profile_cache.refresh(); RESET client_min_messages; SELECT * FROM check_cached(); SELECT profile_cache.detach();'
\set ECHO all

-- Only the profile: no part of the others. The primary key is left out, it is not the key.
CREATE SCHEMA alone;
SET search_path = alone, public;
CREATE TABLE user_profile (id bigint PRIMARY KEY, supabase_user_id uuid UNIQUE, email text);
INSERT INTO user_profile VALUES (1, u(1), 'a'), (2, NULL, 'no key: no document');
SELECT profile_cache.attach();
:show

-- The key is the primary key: it is shown. By search_path, not by schema.
CREATE SCHEMA pk;
SET search_path = pk, public;
CREATE TABLE user_profile (supabase_user_id uuid PRIMARY KEY, email text);
INSERT INTO user_profile VALUES (u(1), 'a');
SELECT profile_cache.attach();
:show

-- A uuid primary key beside the key; members refer to it.
CREATE SCHEMA pk_uuid;
SET search_path = pk_uuid, public;
CREATE TABLE user_profile (id uuid PRIMARY KEY, supabase_user_id uuid NOT NULL, email text);
CREATE UNIQUE INDEX ON user_profile (supabase_user_id) INCLUDE (email);
CREATE TABLE role (id bigint PRIMARY KEY, name text);
CREATE TABLE user_role (user_id uuid REFERENCES user_profile, role_id bigint REFERENCES role, PRIMARY KEY (user_id, role_id));
CREATE INDEX ON user_role (role_id);
INSERT INTO user_profile VALUES (u(77), u(1), 'a');
INSERT INTO role VALUES (1, 'b'), (2, 'C'), (3, 'A');
INSERT INTO user_role SELECT u(77), id FROM role;
SELECT profile_cache.attach();
:show

-- Another key column by its name; a composite primary key, all of it left out; a column that a
-- member refers to is just unique.
CREATE SCHEMA composite;
SET search_path = composite, public;
CREATE TABLE user_profile (tenant int, id int UNIQUE, auth_id uuid UNIQUE, email text, PRIMARY KEY (tenant, id));
CREATE TABLE user_subscription (user_id int REFERENCES user_profile (id), plan_id text, status text);
CREATE INDEX ON user_subscription (user_id);
INSERT INTO user_profile VALUES (1, 10, u(1), 'a'), (2, 20, u(2), 'b');
INSERT INTO user_subscription VALUES (10, 'gold', 'active');
SELECT profile_cache.attach(key => 'auth_id');
:show

-- No primary key at all.
CREATE SCHEMA no_pk;
SET search_path = no_pk, public;
CREATE TABLE user_profile (id int, supabase_user_id uuid UNIQUE, email text);
INSERT INTO user_profile VALUES (1, u(1), 'a');
SELECT profile_cache.attach();
:show

-- No plan table: what the subscription itself says. No period: it does not end.
CREATE SCHEMA no_plan;
SET search_path = no_plan, public;
CREATE TABLE user_profile (id int PRIMARY KEY, supabase_user_id uuid UNIQUE);
CREATE TABLE user_subscription (id int PRIMARY KEY, user_id int REFERENCES user_profile, plan_id int, status text);
CREATE INDEX ON user_subscription (user_id);
INSERT INTO user_profile SELECT n, u(n) FROM generate_series(1, 3) AS n;
INSERT INTO user_subscription VALUES (1, 1, 7, 'active'), (2, 2, NULL, 'active'), (3, 3, 7, 'past_due');
SELECT profile_cache.attach();
:show

-- A plan whose id is no text: nothing can be the plan called free. The status is an enum; of
-- several active subscriptions the one that lasts longest, then the first plan. The plan of a
-- subscription may be missing.
CREATE SCHEMA numbered;
SET search_path = numbered, public;
CREATE TYPE status AS ENUM ('active', 'trialing', 'cancelled');
CREATE TABLE user_profile (id int PRIMARY KEY, supabase_user_id uuid UNIQUE);
CREATE TABLE subscription_plan (id int PRIMARY KEY, display_name text, ai_daily_limit int, features text[]);
CREATE TABLE user_subscription (id int PRIMARY KEY, user_id int REFERENCES user_profile, plan_id int REFERENCES subscription_plan,
    status status, current_period_end timestamptz);
CREATE INDEX ON user_subscription (user_id);
CREATE INDEX ON user_subscription (plan_id);
INSERT INTO subscription_plan VALUES (1, 'One', 1, '{a,b}'), (2, 'Two', 2, NULL), (3, NULL, NULL, '{}');
INSERT INTO user_profile SELECT n, u(n) FROM generate_series(1, 6) AS n;
INSERT INTO user_subscription VALUES
    (1, 1, 1, 'active', '2100-01-01'), (2, 1, 2, 'trialing', '2101-01-01'), (3, 1, 3, 'cancelled', NULL),
    (4, 2, 2, 'active', NULL), (5, 2, 1, 'active', NULL), (6, 2, 3, 'active', '2100-01-01'),
    (7, 3, NULL, 'active', '2100-01-01'), (8, 4, 3, 'active', 'infinity'), (9, 5, 1, 'active', '-infinity');
SELECT profile_cache.attach();
SELECT supabase_user_id, valid_until AT TIME ZONE 'UTC' FROM profile_document ORDER BY 1;
:show

-- The plan has only some columns.
CREATE SCHEMA bare_plan;
SET search_path = bare_plan, public;
CREATE TABLE user_profile (id int PRIMARY KEY, supabase_user_id uuid UNIQUE);
CREATE TABLE subscription_plan (id varchar(20) PRIMARY KEY, features json);
CREATE TABLE user_subscription (id int PRIMARY KEY, user_id int UNIQUE REFERENCES user_profile, plan_id varchar(20) REFERENCES subscription_plan, status varchar(20), current_period_end date);
CREATE INDEX ON user_subscription (plan_id);
INSERT INTO subscription_plan VALUES ('pro', '{"b": 1, "a": 2}'), ('free', '{"unseen": true}');
INSERT INTO user_profile VALUES (1, u(1)), (2, u(2));
INSERT INTO user_subscription VALUES (1, 1, 'pro', 'active');
SELECT profile_cache.attach();
:show

-- Secrets are left out by their names, with a notice; exclude goes first, without one.
CREATE SCHEMA secrets;
SET search_path = secrets, public;
CREATE TABLE user_profile (id int PRIMARY KEY, supabase_user_id uuid UNIQUE, password text, "passwordHash" text,
    totp_secret text, "Refresh_Token" text, email_hash text, token_count int, secretary text, hidden text, api_token text);
INSERT INTO user_profile SELECT 1, u(1), 's', 's', 's', 's', 's', 2, 'shown', 's', 's';
SELECT profile_cache.attach(exclude => '{hidden,api_token}');
:show

-- Tables of a conventional name that lack what their part needs, or lie in another schema.
CREATE SCHEMA unlike;
SET search_path = unlike, alone, public;
CREATE TABLE user_profile (id int PRIMARY KEY, supabase_user_id uuid UNIQUE);
CREATE TABLE user_subscription (user_id int, plan_id text);
CREATE TABLE user_role (user_id int REFERENCES user_profile, role_id int);
CREATE TABLE role (id int, title text);
INSERT INTO user_profile VALUES (1, u(1));
SELECT profile_cache.attach();
:show
SET search_path = secrets, public;

-- Columns that are called like what the view calls its own, and like the computed parts, which win.
CREATE SCHEMA named;
SET search_path = named, public;
CREATE TABLE user_profile (id int PRIMARY KEY, supabase_user_id uuid UNIQUE, document text, valid_until timestamptz, p text, s text, active text,
    expiry text, plan text, free text, role_list text, roles text, subscription_plan text, subscription_data text, "cached_profile " text);
CREATE TABLE user_subscription (id int PRIMARY KEY, user_id int UNIQUE REFERENCES user_profile, plan_id text, status text, current_period_end timestamptz);
CREATE TABLE role (id int PRIMARY KEY, name text);
CREATE TABLE user_role (user_id int REFERENCES user_profile, role_id int REFERENCES role, PRIMARY KEY (user_id, role_id));
CREATE INDEX ON user_role (role_id);
INSERT INTO user_profile SELECT 1, u(1), 'd', '2024-05-01 12:00:00+00', 'p', 's', 'a', 'e', 'pl', 'f', 'rl', 'r', 'sp', 'sd', 'c';
SELECT profile_cache.attach();
:show
SET search_path = secrets, public;

-- Excluding the key itself, or everything else: the document is what is left.
SELECT profile_cache.attach(exclude => '{supabase_user_id,token_count,secretary,hidden}');
:show

-- Values: timestamps as the serializer prints them, numbers digit for digit, and the rest as
-- to_jsonb has it, whatever the session's settings are.
CREATE SCHEMA types;
SET search_path = types, public;
CREATE TYPE mood AS ENUM ('fine', 'so so');
CREATE DOMAIN moment AS timestamptz;
CREATE DOMAIN words AS text CHECK (value <> '');
CREATE TABLE user_profile (id int PRIMARY KEY, supabase_user_id uuid UNIQUE,
    at timestamptz, at_micro timestamptz, at_bc timestamptz, at_ever timestamptz, at_domain moment, naive timestamp, naive_micro timestamp,
    at_precise timestamptz(0), ats timestamptz[], day date, clock time, span interval,
    exact numeric, scaled numeric(10, 3), huge numeric, not_a_number numeric, single real, double double precision, cash money, big bigint,
    flag boolean, fixed char(5), named name, word words, bits bit(3), bytes bytea, mood mood, list text[], matrix int[],
    j json, jb jsonb, x xml, net inet, r int4range, nothing text, generated text GENERATED ALWAYS AS (upper(word)) STORED);
INSERT INTO user_profile SELECT 1, u(1),
    '2024-05-01 12:00:00+00', '2024-05-01 12:00:00.5+02', '0044-03-15 00:00:00+00 BC', 'infinity', '2024-02-29 23:59:59.999999+00', '2024-05-01 12:00:00', '2024-05-01 12:00:00.000001',
    '2024-05-01 12:00:00+00', '{2024-05-01 12:00:00+00}', '2024-05-01', '12:30', '1 day 02:03:04',
    1.10, 1.5, 123456789012345678901234567890.123456789, 'NaN', 0.1, 0.1, 12.34, 9223372036854775807,
    true, 'ab', 'n', 'wörd "quoted" \ 
two', '101', '\x00ff', 'so so', '{a,NULL,"b c"}', '{{1,2},{3,4}}',
    '{"b": 1, "a": 1.0, "b": 2}', '{"b": 1, "a": 1.0, "b": 2}', '<a>1</a>', '10.0.0.0/8', '[1,5)', NULL;
SELECT profile_cache.attach();
SET TimeZone = 'Asia/Tokyo';
SET DateStyle = 'SQL, DMY';
SET IntervalStyle = 'iso_8601';
SET extra_float_digits = -5;
SET bytea_output = 'escape';
SELECT jsonb_pretty(document) FROM documents() AS d;
RESET ALL;
SET search_path = types, public;
SET client_min_messages = warning;
CALL profile_cache.refresh();
RESET client_min_messages;
SET TimeZone = 'UTC';
SET IntervalStyle = 'postgres';
SELECT * FROM check_cached();
SELECT profile_cache.detach();

-- More columns than one function call takes arguments.
CREATE SCHEMA wide;
SET search_path = wide, public;
DO $$ BEGIN
    EXECUTE (SELECT format('CREATE TABLE user_profile (id int PRIMARY KEY, supabase_user_id uuid UNIQUE, %s)', string_agg('c' || n || ' int DEFAULT ' || n, ', '))
             FROM generate_series(1, 150) AS n);
END $$;
INSERT INTO user_profile VALUES (1, u(1));
SELECT profile_cache.attach();
SELECT count(*), sum(value::int) FROM documents() AS d, jsonb_each_text(document) WHERE key <> 'supabase_user_id';
SET client_min_messages = warning;
CALL profile_cache.refresh();
RESET client_min_messages;
UPDATE user_profile SET c150 = 0;
SELECT (SELECT document -> 'c150' FROM documents() AS d);
SELECT served_from, same, problems FROM check_cached();
SELECT profile_cache.detach();

-- Names that need quoting, of 63 bytes, with dots, backslashes and percent signs, reserved words.
CREATE SCHEMA "Sche.ma ""x"" \ %s $1";
SET search_path = "Sche.ma ""x"" \ %s $1", public;
CREATE TABLE "Profil's Tabelle äöü 012345678901234567890123456789012345678" (
    "Id" int PRIMARY KEY, "select" uuid UNIQUE, "it's %I" text, "back\slash" text, "dot.ted" timestamptz, "日本" text);
CREATE TABLE user_subscription (id int, user_id int UNIQUE REFERENCES "Profil's Tabelle äöü 012345678901234567890123456789012345678",
    plan_id text, status text, current_period_end timestamptz);
INSERT INTO "Profil's Tabelle äöü 012345678901234567890123456789012345678" VALUES (1, u(1), '''', '\', '2024-05-01 12:00:00+00', '"');
INSERT INTO user_subscription VALUES (1, 1, 'it''s', 'active', NULL);
SELECT profile_cache.attach(to_regclass('"Profil''s Tabelle äöü 012345678901234567890123456789012345678"'), 'select', exclude => '{dot.ted}');
SELECT profile, document, tables FROM profile_cache.status;
SET client_min_messages = warning;
CALL profile_cache.refresh();
RESET client_min_messages;
UPDATE "Profil's Tabelle äöü 012345678901234567890123456789012345678" SET "it's %I" = 'changed';
UPDATE user_subscription SET plan_id = 'changed';
SELECT * FROM check_cached();
DELETE FROM user_subscription;
SELECT * FROM check_cached();
:show

-- Columns that print names of other objects: shown, a rename elsewhere would make the document stale.
CREATE SCHEMA refers;
SET search_path = refers, public;
CREATE TABLE user_profile (id int PRIMARY KEY, supabase_user_id uuid UNIQUE, relation regclass, roles regrole[], rights aclitem, name text);
INSERT INTO user_profile VALUES (1, u(1), 'pg_class', '{postgres}', NULL, 'one');
SELECT profile_cache.attach();
SELECT document FROM profile_document;
