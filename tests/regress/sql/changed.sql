-- changed_since: whose document may have changed since a position, for whoever keeps copies and was away; and who may ask.
-- Rules: R13.
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
CREATE EXTENSION profile_cache;
SELECT profile_cache.attach();
CALL profile_cache.refresh();
-- changed(): the ids of those who are named; all: a null.
CREATE FUNCTION changed(since xid8) RETURNS text LANGUAGE sql AS
    $$ SELECT string_agg(coalesce(p.id::text, 'all'), ' ' ORDER BY p.id) FROM profile_cache.changed_since(since) AS c(key) LEFT JOIN user_profile AS p ON p.supabase_user_id = c.key $$;
\set ask 'SELECT profile_cache.changes_position() AS position \\gset'
\set ECHO all

-- Nothing, a profile, a member, in a savepoint, and a column that is not shown, whose row is another one too.
:ask
SELECT changed(:'position');
UPDATE user_profile SET email = 'new' WHERE id = 2;
SELECT changed(:'position');
BEGIN;
SAVEPOINT s;
UPDATE user_subscription SET status = 'trialing' WHERE user_id = 1;
RELEASE s;
SAVEPOINT s;
DELETE FROM user_role WHERE user_id = 3;
ROLLBACK TO s;
COMMIT;
SELECT changed(:'position');
:ask
SELECT changed(:'position');
-- What many may show: everybody as long as it is pending, and then those whose document was made anew.
UPDATE subscription_plan SET ai_daily_limit = ai_daily_limit + 1 WHERE id = 'pro';
SELECT changed(:'position');
-- Who asked for a position after it was told of it.
SELECT profile_cache.changes_position() AS later \gset
SELECT changed(:'later');
CALL profile_cache.refresh();
SELECT changed(:'position');
:ask
SELECT profile_cache.invalidate(u(4));
SELECT changed(:'position');
CALL profile_cache.refresh();
SELECT changed(:'position');
-- A row that is frozen is as old as it was.
:ask
VACUUM FREEZE user_profile;
SELECT changed(:'position');
UPDATE user_profile SET email = 'newer' WHERE id = 2;
VACUUM FREEZE user_profile;
SELECT changed(:'position');
-- Positions of another server, and none.
SELECT changed('0'), changed('18446744073709551615'), changed(NULL);
SELECT changed((profile_cache.changes_position()::text::int8 + 100000)::text::xid8);
SELECT DISTINCT key FROM profile_cache.changed_since((profile_cache.changes_position()::text::int8 - 1)::text::xid8) AS c(key) WHERE key IS NULL;
-- In one snapshot it goes by that.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT changed(:'position');
COMMIT;

-- A profile that cannot be written: what is pending for it is of the last change.
CREATE INDEX bad ON user_profile ((1 / CASE WHEN cached_profile ->> 'email' LIKE 'bad%' THEN 0 ELSE 1 END));
UPDATE user_profile SET email = 'bad' WHERE id = 5;
CALL profile_cache.refresh();
:ask
INSERT INTO user_role VALUES (100, 5, 2);
CALL profile_cache.refresh();
SELECT changed(:'position');
DROP INDEX bad;
CALL profile_cache.refresh();
-- Changes that are not followed.
ALTER TABLE user_role DISABLE TRIGGER USER;
:ask
DELETE FROM user_role WHERE id = 100;
SELECT changed(:'position');
SELECT profile_cache.attach();
CALL profile_cache.refresh();

-- Who may read a profile is told whether it has changed; nobody is told of others.
CREATE ROLE web;
GRANT USAGE ON SCHEMA public TO web;
SET ROLE web;
SELECT count(*) FROM profile_cache.changed_since(:'position');
SELECT profile_cache.changes_position() IS NOT NULL;
RESET ROLE;
GRANT SELECT (supabase_user_id, cached_profile) ON user_profile TO web;
SET ROLE web;
SELECT count(*) > 0 FROM profile_cache.changed_since('0');
RESET ROLE;
GRANT SELECT ON user_profile TO web;
ALTER TABLE user_profile ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON user_profile TO web USING (id = 1);
UPDATE user_profile SET email = 'newest' WHERE id < 3;
SET ROLE web;
SELECT count(*), count(*) FILTER (WHERE c = u(1)) FROM profile_cache.changed_since(:'position') AS c;
RESET ROLE;
DROP OWNED BY web;
DROP ROLE web;
SELECT profile_cache.detach();
SELECT changed(:'position');
