-- What a transaction touched is computed at its end, behind its last deferred trigger: whatever it ends
-- with, whoever it is by then, and whatever it has done to its tables and to the attachment in between.
-- Reads on the way are the view's.
-- Rules: W2.
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
CREATE EXTENSION profile_cache;
SELECT profile_cache.attach() \g /dev/null
CALL profile_cache.refresh();
\set now 'SELECT state(); SELECT what, user_id FROM wrong();'
\set check 'SELECT state(); SELECT * FROM pending(); SELECT what, user_id FROM wrong();'
\set refresh 'CALL profile_cache.refresh(); SELECT state(); SELECT what, user_id FROM wrong();'
\set ECHO all

-- Many ways to the same profiles, and one version written of each.
BEGIN;
INSERT INTO user_role VALUES (10, 1, 2);
UPDATE user_role SET role_id = 3 WHERE id = 10;
UPDATE user_subscription SET status = 'trialing' WHERE user_id = 1;
INSERT INTO user_subscription VALUES (10, 2, 'pro', 'active') ON CONFLICT (id) DO NOTHING;
INSERT INTO user_subscription VALUES (1, 2, 'pro', 'active'), (11, 2, 'pro', 'active') ON CONFLICT (id) DO UPDATE SET user_id = excluded.user_id;
MERGE INTO user_role AS r USING (VALUES (1, 2), (12, 2)) AS n(id, user_id) ON r.id = n.id
    WHEN MATCHED THEN UPDATE SET user_id = n.user_id WHEN NOT MATCHED THEN INSERT VALUES (n.id, n.user_id, 1);
COPY user_role FROM stdin;
13	1	3
14	2	3
\.
DELETE FROM user_role WHERE id = 10;
:now
SELECT pg_current_xact_id() AS writer \gset
COMMIT;
SELECT id FROM user_profile WHERE xmin = :'writer'::xid ORDER BY id;
SELECT pg_stat_force_next_flush() \g /dev/null
SELECT n_tup_upd AS before FROM pg_stat_user_tables WHERE relname = 'user_profile' \gset
BEGIN;
UPDATE user_role SET role_id = 1 WHERE user_id = 2;
UPDATE user_subscription SET status = 'active' WHERE user_id = 2;
INSERT INTO user_role VALUES (15, 2, 2);
COMMIT;
SELECT pg_stat_force_next_flush() \g /dev/null
SELECT n_tup_upd - :before FROM pg_stat_user_tables WHERE relname = 'user_profile';
:check

-- Deferred triggers and foreign keys write members at the end, and read there.
CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO user_role VALUES (20 + NEW.id, NEW.user_id, 3);
    RAISE NOTICE '%', (SELECT string_agg(what, ', ') FROM wrong());
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON user_subscription DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late();
:refresh
SET client_min_messages = notice;
INSERT INTO user_subscription VALUES (21, 3, 'team', 'active');
SET client_min_messages = warning;
:check
BEGIN;
INSERT INTO user_subscription VALUES (22, 4, 'team', 'active');
SET CONSTRAINTS late IMMEDIATE;
INSERT INTO user_subscription VALUES (23, 5, 'team', 'active');
:now
COMMIT;
:check
DROP TRIGGER late ON user_subscription;
ALTER TABLE user_role DROP CONSTRAINT user_role_user_id_fkey,
    ADD CONSTRAINT user_role_user_id_fkey FOREIGN KEY (user_id) REFERENCES user_profile ON DELETE SET NULL ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED;
:refresh
BEGIN;
INSERT INTO user_role VALUES (30, 6, 1);
UPDATE user_profile SET id = 50 WHERE id = 5;
INSERT INTO user_profile (id, supabase_user_id) VALUES (6, u(6));
DELETE FROM user_profile WHERE id = 4;
:now
COMMIT;
:check

-- Made read only since, in another role, in a session with another isolation level.
BEGIN;
INSERT INTO user_role VALUES (31, 1, 2);
SET CONSTRAINTS ALL IMMEDIATE;
SET TRANSACTION READ ONLY;
:now
COMMIT;
:check
BEGIN;
SET LOCAL profile_cache.max_immediate = 1;
INSERT INTO user_role VALUES (32, 2, 2);
INSERT INTO user_role VALUES (33, 3, 2);
SET CONSTRAINTS ALL IMMEDIATE;
SET TRANSACTION READ ONLY;
COMMIT;
:check
:refresh
CREATE ROLE regress_reader;
CREATE FUNCTION writes(role bigint) RETURNS void LANGUAGE sql SECURITY DEFINER AS 'INSERT INTO public.user_role VALUES (300 + role, 2, role)';
BEGIN;
SELECT writes(1);
SET LOCAL ROLE regress_reader;
COMMIT;
:check
SET ROLE regress_reader;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT writes(2);
COMMIT;
SELECT writes(3);
RESET ROLE;
:check
BEGIN ISOLATION LEVEL REPEATABLE READ;
DELETE FROM user_role WHERE id > 300;
COMMIT AND CHAIN;
SHOW transaction_isolation;
INSERT INTO user_role VALUES (301, 3, 3);
COMMIT;
:check

-- Procedures that commit, in blocks with and without exception handlers, and in loops over a query.
CREATE PROCEDURE commits(n bigint) LANGUAGE plpgsql AS $$
DECLARE
    r record;
BEGIN
    INSERT INTO user_role VALUES (n, 1, 1);
    COMMIT;
    RAISE NOTICE 'committed: %', state();
    INSERT INTO user_role VALUES (n + 1, 2, 1);
    ROLLBACK;
    BEGIN
        INSERT INTO user_role VALUES (n + 2, 3, 1);
        INSERT INTO user_role VALUES (n, 1, 1);
    EXCEPTION WHEN unique_violation THEN
        INSERT INTO user_role VALUES (n + 3, 3, 2);
    END;
    COMMIT AND CHAIN;
    FOR r IN SELECT id FROM user_profile ORDER BY id LOOP
        INSERT INTO user_role VALUES (n + 10 + r.id, r.id, 1);
        COMMIT;
        RAISE NOTICE '%: %', r.id, (SELECT count(*) FROM wrong());
    END LOOP;
END $$;
SET client_min_messages = notice;
CALL commits(100);
DO $$ BEGIN
    UPDATE user_role SET role_id = 2 WHERE id = 100;
    CALL commits(200);
    DELETE FROM user_role WHERE id = 100;
    COMMIT;
    DELETE FROM user_role WHERE id = 200;
END $$;
SET client_min_messages = warning;
:check
DELETE FROM user_role WHERE id > 15;

-- Everything that makes what was touched mean something else, or nothing, before the end.
BEGIN;
INSERT INTO user_role VALUES (51, 1, 1);
SET CONSTRAINTS ALL IMMEDIATE;
TRUNCATE user_role;
COMMIT;
:check
:refresh
BEGIN;
INSERT INTO user_role VALUES (51, 1, 1);
SELECT profile_cache.invalidate(u(1)) \g /dev/null
SELECT profile_cache.invalidate(u(2)) \g /dev/null
COMMIT;
:check
:refresh
BEGIN;
INSERT INTO user_role VALUES (52, 1, 2);
SELECT profile_cache.invalidate_all() \g /dev/null
COMMIT;
:check
:refresh
BEGIN;
INSERT INTO user_role VALUES (53, 1, 3);
SET CONSTRAINTS ALL IMMEDIATE;
ALTER TABLE user_role RENAME TO user_roles;
ALTER TABLE user_roles RENAME COLUMN user_id TO owner;
ALTER TABLE user_profile RENAME id TO number;
COMMIT;
SELECT profile_cache.explain(u(1)) ->> 'reason';
CALL profile_cache.refresh();
SELECT profile_cache.explain(u(1)) ->> 'served_from', get_profile(u(1)) -> 'roles';
BEGIN;
ALTER TABLE user_profile RENAME number TO id;
ALTER TABLE user_roles RENAME owner TO user_id;
ALTER TABLE user_roles RENAME TO user_role;
INSERT INTO user_role VALUES (54, 1, 3);
COMMIT;
:refresh
BEGIN;
INSERT INTO user_role VALUES (55, 1, 2);
SET CONSTRAINTS ALL IMMEDIATE;
ALTER TABLE user_role DISABLE TRIGGER USER;
DELETE FROM user_role WHERE id = 55;
ALTER TABLE user_role ENABLE TRIGGER USER;
SELECT profile_cache.attach() \g /dev/null
COMMIT;
:refresh
BEGIN;
INSERT INTO user_role VALUES (56, 1, 2);
SET CONSTRAINTS ALL IMMEDIATE;
SELECT profile_cache.detach() \g /dev/null
DELETE FROM user_role WHERE id = 56;
COMMIT;
BEGIN;
INSERT INTO user_role VALUES (57, 1, 2);
SET CONSTRAINTS ALL IMMEDIATE;
SELECT profile_cache.attach() \g /dev/null
INSERT INTO user_role VALUES (58, 1, 2);
COMMIT;
:check
:refresh
-- Attached again, with other columns, and as it was.
BEGIN;
INSERT INTO user_role VALUES (59, 2, 2);
SET CONSTRAINTS ALL IMMEDIATE;
SELECT profile_cache.detach(false) \g /dev/null
SELECT profile_cache.attach(exclude => '{note}') \g /dev/null
UPDATE user_profile SET email = 'again' WHERE id = 2;
COMMIT;
:check
:refresh
BEGIN;
INSERT INTO user_role VALUES (60, 2, 3);
SET CONSTRAINTS ALL IMMEDIATE;
SELECT profile_cache.detach(false) \g /dev/null
SELECT profile_cache.attach(exclude => '{note}') \g /dev/null
COMMIT;
:check
:refresh
-- With other tables.
BEGIN;
INSERT INTO user_subscription VALUES (61, 3, 'team', 'active');
INSERT INTO user_role VALUES (62, 3, 2);
SET CONSTRAINTS ALL IMMEDIATE;
SELECT profile_cache.detach() \g /dev/null
ALTER TABLE user_subscription RENAME TO subscriptions;
SELECT profile_cache.attach() \g /dev/null
COMMIT;
:check
:refresh
BEGIN;
ALTER TABLE subscriptions RENAME TO user_subscription;
INSERT INTO user_role VALUES (63, 3, 1);
SET CONSTRAINTS ALL IMMEDIATE;
SELECT profile_cache.detach() \g /dev/null
SELECT profile_cache.attach() \g /dev/null
COMMIT;
:check
:refresh
BEGIN;
INSERT INTO user_role VALUES (64, 3, 3);
SET CONSTRAINTS ALL IMMEDIATE;
DROP EXTENSION profile_cache CASCADE;
COMMIT;
CREATE EXTENSION profile_cache;
DROP VIEW IF EXISTS profile_document;
SELECT profile_cache.attach() \g /dev/null
:refresh

-- What fails at the end: an index function of the app's that only some roles may use; a view.
CREATE TABLE allowed (who name);
INSERT INTO allowed VALUES (current_user);
CREATE FUNCTION picky(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM public.allowed WHERE who = current_user) THEN RAISE 'not for you'; END IF;
    RETURN $1;
END $$;
CREATE INDEX picky ON user_profile (picky(email)) WHERE profile_cache_updated_at IS NOT NULL;
:refresh
BEGIN;
INSERT INTO user_role VALUES (71, 1, 2);
SET LOCAL ROLE regress_reader;
COMMIT;
:check
SELECT user_id, sqlstate FROM profile_cache.failure;
:refresh
DROP INDEX picky;
ALTER TABLE user_profile ADD COLUMN extra json;
SELECT profile_cache.attach() \g /dev/null
:refresh
BEGIN;
UPDATE user_profile SET extra = '"\u0000"' WHERE id = 3;
INSERT INTO user_role VALUES (72, 2, 2), (73, 3, 2);
COMMIT;
SELECT id FROM user_role WHERE id > 71 ORDER BY id;
SELECT state();
SELECT user_id, sqlstate FROM profile_cache.failure;
UPDATE user_profile SET extra = NULL WHERE id = 3;
:refresh

-- An error behind it all leaves nothing.
CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
CREATE CONSTRAINT TRIGGER fails AFTER INSERT ON user_role DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fails();
:refresh
BEGIN;
UPDATE user_subscription SET status = 'gone';
INSERT INTO user_role VALUES (81, 1, 2);
COMMIT;
:check
DROP TRIGGER fails ON user_role;
DROP ROLE regress_reader;
