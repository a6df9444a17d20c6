-- Equality is of images, and storage is the table's own affair: values that compare as equal but
-- print otherwise, big values out of line, generated columns, domains, indexes of all kinds. What
-- is stored must be the view's document to the byte.
\set ECHO none
\i include/check.sql
\i include/output.sql
CREATE EXTENSION profile_cache;
CREATE EXTENSION citext;
CREATE FUNCTION u(n integer) RETURNS uuid LANGUAGE sql IMMUTABLE
    AS $$SELECT pg_catalog.lpad(n::text, 32, '0')::uuid$$;
\set check 'SELECT state(); SELECT * FROM pending(); SELECT * FROM wrong();'
\set ECHO all

CREATE COLLATION ignore_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE DOMAIN positive AS int CHECK (value > 0);
CREATE DOMAIN label AS citext;
CREATE TABLE user_profile (
    id bigint PRIMARY KEY,
    supabase_user_id uuid NOT NULL UNIQUE,
    n numeric DEFAULT 1.0, f double precision DEFAULT 0, c citext DEFAULT 'a', l label DEFAULT 'a', ci text COLLATE ignore_case DEFAULT 'a',
    j jsonb DEFAULT '{"n": 1.0}', js json DEFAULT '{"a": 1}', i interval DEFAULT '1 day', p positive DEFAULT 1, b char(4) DEFAULT 'a', r int4range DEFAULT '[1,5)',
    base text DEFAULT 'base', derived text GENERATED ALWAYS AS (upper(base) || 'x') STORED,
    big text, arr text[]);
CREATE TABLE subscription_plan (id citext PRIMARY KEY, display_name text, ai_daily_limit int, features jsonb);
CREATE TABLE user_subscription (id int PRIMARY KEY, user_id bigint UNIQUE REFERENCES user_profile, plan_id citext REFERENCES subscription_plan ON UPDATE CASCADE, status text, current_period_end timestamptz);
CREATE TABLE role (id numeric PRIMARY KEY, name text, permissions jsonb);
-- A foreign key whose two sides are of different types.
CREATE TABLE user_role (id int PRIMARY KEY, user_id int REFERENCES user_profile, role_id int REFERENCES role);
CREATE INDEX ON user_subscription (plan_id);
CREATE INDEX ON user_role (user_id);
CREATE INDEX ON user_role (role_id);
INSERT INTO user_profile (id, supabase_user_id) SELECT n, u(n) FROM generate_series(1, 3) AS n;
INSERT INTO subscription_plan VALUES ('Pro', 'Pro', 1, '{}'), ('FREE', 'Free', 2, '{}');
INSERT INTO user_subscription VALUES (1, 1, 'pro', 'active', NULL);
INSERT INTO role VALUES (1.00, 'one'), (2, 'two');
INSERT INTO user_role VALUES (1, 1, 1), (2, 2, 2);
SELECT profile_cache.attach();
CALL profile_cache.refresh();
:check
SELECT get_profile(u(1)) - '{arr,big}'::text[];

-- Equal by their types' equality, other in print.
UPDATE user_profile SET n = 1.00;
SELECT get_profile(u(1)) -> 'n';
UPDATE user_profile SET f = '-0';
SELECT get_profile(u(1)) -> 'f';
UPDATE user_profile SET c = 'A', l = 'A', ci = 'A';
SELECT get_profile(u(1)) -> 'c', get_profile(u(1)) -> 'l', get_profile(u(1)) -> 'ci';
UPDATE user_profile SET j = '{"n": 1.00}';
SELECT get_profile(u(1)) -> 'j';
UPDATE user_profile SET js = '{"a":  1.0}';
SELECT get_profile(u(1)) -> 'js';
UPDATE user_profile SET i = '24 hours';
SELECT get_profile(u(1)) -> 'i';
UPDATE user_profile SET b = 'b';
UPDATE user_profile SET p = 2, r = '(0,5)';
:check
-- A domain's check fails the statement and nothing else.
UPDATE user_profile SET p = -1;
:check

-- A generated column changes with its base.
UPDATE user_profile SET base = 'other' WHERE id = 1;
SELECT get_profile(u(1)) -> 'derived';
SELECT profile_cache.attach(exclude => '{base}');
CALL profile_cache.refresh();
UPDATE user_profile SET base = 'once more' WHERE id = 1;
SELECT get_profile(u(1)) -> 'derived', get_profile(u(1)) ? 'base';
:check

-- A foreign key's own equality leads from a plan or role to its profiles: citext, numeric to int.
UPDATE subscription_plan SET ai_daily_limit = 10 WHERE id = 'PRO';
:check
CALL profile_cache.refresh();
:check
SELECT get_profile(u(1)) -> 'ai_daily_limit', get_profile(u(1)) -> 'subscription_plan', get_profile(u(2)) -> 'ai_daily_limit';
UPDATE subscription_plan SET ai_daily_limit = 20 WHERE id = 'free';
:check
CALL profile_cache.refresh();
SELECT get_profile(u(2)) -> 'ai_daily_limit';
UPDATE subscription_plan SET id = 'PRO' WHERE id = 'pro';
CALL profile_cache.refresh();
:check
UPDATE role SET name = 'uno' WHERE id = 1;
CALL profile_cache.refresh();
:check
SELECT get_profile(u(1)) -> 'roles';
UPDATE role SET id = 1.0 WHERE id = 1;
CALL profile_cache.refresh();
:check
UPDATE user_role SET user_id = 3 WHERE id = 2;
:check

-- Big values, compressed and out of line, that stay, change at their end, or come from a default.
UPDATE user_profile SET big = repeat('0123456789', 100000), arr = array_fill('x'::text, '{1000}') WHERE id = 1;
UPDATE user_profile SET big = (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 5000) AS n) WHERE id = 2;
:check
UPDATE user_profile SET n = 2 WHERE id <= 2;
:check
UPDATE user_profile SET big = big || 'x' WHERE id <= 2;
:check
SELECT id, length(get_profile(supabase_user_id) ->> 'big') FROM user_profile ORDER BY id;
ALTER TABLE user_profile ALTER COLUMN big SET STORAGE EXTERNAL;
UPDATE user_profile SET big = left(big, 50000) WHERE id <= 2;
CALL profile_cache.refresh();
:check
UPDATE role SET permissions = (SELECT jsonb_agg(md5(n::text)) FROM generate_series(1, 5000) AS n) WHERE id = 1;
CALL profile_cache.refresh();
:check
UPDATE user_profile SET big = NULL, arr = NULL;
:check

-- Columns that come with a default that is in no row yet, and dropped ones before ours.
SELECT profile_cache.detach();
ALTER TABLE user_profile DROP COLUMN js, ADD COLUMN late text DEFAULT 'late';
SELECT profile_cache.attach();
CALL profile_cache.refresh();
ALTER TABLE user_profile ADD COLUMN later text DEFAULT 'later' NOT NULL;
SELECT profile_cache.attach();
UPDATE user_profile SET n = 3 WHERE id = 1;
CALL profile_cache.refresh();
:check
SELECT get_profile(u(1)) -> 'late', get_profile(u(1)) -> 'later';

-- Indexes of every kind on the profile table go along with our write: reading by them finds the
-- row, and where none holds one of our columns the write is a HOT update.
CREATE INDEX brin ON user_profile USING brin (id);
CREATE INDEX expression ON user_profile (upper(base));
CREATE INDEX partial ON user_profile (n) WHERE base <> '';
CREATE INDEX gin ON user_profile USING gin (j);
CREATE INDEX hash ON user_profile USING hash (c);
CREATE INDEX covering ON user_profile (n) INCLUDE (f);
ALTER TABLE user_profile SET (fillfactor = 20);
VACUUM FULL user_profile;
CALL profile_cache.refresh();
UPDATE user_profile SET base = 'indexed', n = 4, c = 'indexed', j = '{"k": 1}';
:check
SET enable_seqscan = off;
SELECT count(*) FILTER (WHERE upper(base) = 'INDEXED') FROM user_profile WHERE upper(base) = 'INDEXED';
SELECT count(*) FROM user_profile WHERE n = 4 AND base <> '';
SELECT count(*) FROM user_profile WHERE j @> '{"k": 1}';
SELECT count(*) FROM user_profile WHERE c = 'INDEXED';
SELECT count(*) FROM user_profile WHERE id BETWEEN 1 AND 2;
RESET enable_seqscan;
-- An index on one of our columns is unwise, and is kept right all the same.
CREATE INDEX unwise ON user_profile (cached_profile_epoch) WHERE cached_profile_epoch IS NOT NULL;
CREATE INDEX unwise_gin ON user_profile USING gin (cached_profile);
UPDATE user_profile SET base = 'in gin' WHERE id = 1;
SELECT profile_cache.invalidate_all();
CALL profile_cache.refresh();
SET enable_seqscan = off;
SELECT count(*) FROM user_profile WHERE cached_profile @> '{"derived": "IN GINx"}';
SELECT count(*) FROM user_profile WHERE cached_profile_epoch IS NOT NULL;
RESET enable_seqscan;
:check
-- The write itself: one row version of ours a profile, and a HOT one.
DROP INDEX unwise, unwise_gin;

SELECT pg_stat_force_next_flush();
SELECT n_tup_upd AS upd, n_tup_hot_upd AS hot FROM pg_stat_user_tables WHERE relname = 'user_profile' \gset
UPDATE user_subscription SET status = 'trialing' WHERE id = 1;
SELECT pg_stat_force_next_flush();
SELECT n_tup_upd - :upd AS updates, n_tup_hot_upd - :hot AS hot FROM pg_stat_user_tables WHERE relname = 'user_profile';
:check
