-- What attach() makes of the conventional tables, and what detach() leaves: were a case here
-- to change, a frontend would get another document than its serializer gave it, or a migration
-- that repeats attach() would fail or throw the cache away.
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
\set ECHO all
CREATE EXTENSION profile_cache;

-- Active, trialing without an end, cancelled, expired, never subscribed.
SELECT profile_cache.attach();
SELECT d.document, d.valid_until FROM profile_document AS d ORDER BY d.supabase_user_id;
-- Nothing is cached before refresh, and reads say the same.
SELECT state();
SELECT * FROM wrong();
CALL profile_cache.refresh(2);
SELECT state();
SELECT * FROM wrong();

-- Once more: nothing changes and nothing is distrusted.
SELECT profile_cache.attach();
SELECT profile_cache.attach('user_profile', 'supabase_user_id', NULL, '{}');
SELECT profile_cache.attach(document => 'profile_document');
SELECT state();
SELECT * FROM pending();

-- A new column is not in the document until attach() is run again, which then distrusts.
ALTER TABLE user_profile ADD COLUMN theme text DEFAULT 'dark';
CALL profile_cache.refresh();
SELECT get_profile(u(1)) ? 'theme';
SELECT profile_cache.attach();
SELECT get_profile(u(1)) -> 'theme';
SELECT state();
CALL profile_cache.refresh();
SELECT * FROM wrong();

-- exclude: replaces what it was, and is forgotten when left out.
SELECT profile_cache.attach(exclude => '{theme,note}');
SELECT get_profile(u(1)) ?| '{theme,note}', get_profile(u(1)) ? 'email';
SELECT exclude FROM profile_cache.attachment;
SELECT profile_cache.attach();
SELECT get_profile(u(1)) ?& '{theme,note}';
SELECT exclude FROM profile_cache.attachment;
-- No column's value shows any more: the view is made anew without them.
ALTER TABLE user_profile DROP COLUMN theme;
SELECT profile_cache.attach(exclude => '{theme}');
ALTER TABLE user_profile DROP COLUMN theme;
\echo :SQLSTATE

-- Another foreign key: its column is followed from then on.
ALTER TABLE user_profile ADD COLUMN code bigint UNIQUE;
UPDATE user_profile SET code = id + 100;
ALTER TABLE user_role DROP CONSTRAINT user_role_user_id_fkey;
UPDATE user_role SET user_id = user_id + 100;
ALTER TABLE user_role ADD FOREIGN KEY (user_id) REFERENCES user_profile (code) ON UPDATE CASCADE;
SELECT profile_cache.attach();
CALL profile_cache.refresh();
SELECT get_profile(u(2)) -> 'roles';
INSERT INTO user_role VALUES (4, 105, 1);
SELECT get_profile(u(5)) -> 'roles';
SELECT state();
SELECT * FROM wrong();

-- A table that comes later, and one that goes.
SELECT profile_cache.detach();
CREATE TABLE kept AS SELECT * FROM user_role;
DROP TABLE user_role;
SELECT profile_cache.attach();
SELECT get_profile(u(1)) ? 'roles';
CREATE TABLE user_role (id bigint PRIMARY KEY, user_id bigint REFERENCES user_profile (code), role_id bigint REFERENCES role);
INSERT INTO user_role SELECT * FROM kept;
-- An index that computing would want is asked for, not made.
SELECT profile_cache.attach();
SELECT get_profile(u(1)) -> 'roles';
CREATE INDEX ON user_role (user_id);
CREATE INDEX ON user_role (role_id);
-- An index beside the unique one, as an ORM adds for LIKE, finds as few rows: no warning.
CREATE INDEX ON subscription_plan (id text_pattern_ops);
UPDATE pg_class SET reltuples = -1 WHERE oid = 'subscription_plan'::regclass; -- nobody knows yet how small it is
SELECT profile_cache.attach();
CALL profile_cache.refresh();
SELECT * FROM wrong();

-- detach: nothing of ours is left on the tables; repeatable.
SET client_min_messages = notice;
SELECT profile_cache.detach();
SELECT profile_cache.detach();
SELECT profile_cache.detach(false);
SET client_min_messages = warning;
SELECT relname, tgname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid WHERE NOT tgisinternal AND relname <> 'attachment';
SELECT attname FROM pg_attribute WHERE attrelid = 'user_profile'::regclass AND attnum > 0 AND NOT attisdropped;
SELECT to_regclass('profile_document');
SELECT (SELECT count(*) FROM profile_cache.attachment), (SELECT count(*) FROM profile_cache.pending),
       (SELECT count(*) FROM profile_cache.epoch_progress), (SELECT count(*) FROM profile_cache.failure);
SELECT get_profile(u(1));
\echo :SQLSTATE

-- detach(false) keeps the columns; what is in them is not believed by the next attach.
SELECT profile_cache.attach();
CALL profile_cache.refresh();
SELECT profile_cache.detach(false);
SELECT count(cached_profile) FROM user_profile;
UPDATE user_profile SET email = 'changed while detached' WHERE id = 1;
SELECT profile_cache.attach();
SELECT state();
SELECT get_profile(u(1)) -> 'email';
CALL profile_cache.refresh();
SELECT state();
SELECT * FROM wrong();

-- A dump without data has the view, and nothing of the attachment: what the view left out is known by its comment.
ALTER TABLE user_profile ADD COLUMN "; exclude => [" text;
SELECT profile_cache.attach(exclude => '{note,"; exclude => ["}');
SELECT obj_description('profile_document'::regclass);
DELETE FROM profile_cache.attachment;
SELECT profile_cache.attach(exclude => '{"; exclude => ["}');
DELETE FROM profile_cache.attachment;
SELECT profile_cache.attach();
DELETE FROM profile_cache.attachment;
SELECT profile_cache.attach();
SELECT obj_description('profile_document'::regclass);
BEGIN;
SELECT profile_cache.detach();
ALTER TABLE user_profile DROP COLUMN "; exclude => [";
SELECT profile_cache.attach();
COMMIT;
CALL profile_cache.refresh();
SELECT * FROM wrong();

-- In one transaction with the app's own migration, and rolled back with it.
BEGIN;
SELECT profile_cache.detach();
ROLLBACK;
SELECT state();
BEGIN;
SELECT profile_cache.detach();
ALTER TABLE user_profile ALTER COLUMN note TYPE varchar(100);
SELECT profile_cache.attach();
SELECT get_profile(u(1)) -> 'email';
UPDATE user_profile SET email = 'in the migration' WHERE id = 1;
SELECT get_profile(u(1)) -> 'email';
COMMIT;
SELECT get_profile(u(1)) -> 'email';
SELECT * FROM wrong();
CALL profile_cache.refresh();
-- What such a transaction changes after attach is followed like any change.
BEGIN;
SELECT profile_cache.detach();
SELECT profile_cache.attach();
UPDATE user_profile SET note = 'computed' WHERE id = 1;
TRUNCATE user_role;
SELECT get_profile(u(1)) -> 'roles';
COMMIT;
SELECT * FROM wrong();

-- DROP EXTENSION: refused while attached (the triggers depend on it), CASCADE takes the triggers
-- and leaves the app's tables usable; after detach no CASCADE is needed.
\set VERBOSITY terse
DROP EXTENSION profile_cache;
\echo :SQLSTATE
DROP EXTENSION profile_cache CASCADE;
\set VERBOSITY default
UPDATE user_profile SET email = 'after the drop' WHERE id = 1;
INSERT INTO user_profile (id, supabase_user_id) VALUES (6, u(6));
DELETE FROM user_profile WHERE id = 6;
SELECT tgname FROM pg_trigger WHERE NOT tgisinternal;
-- What is left behind is taken over, not trusted.
CREATE SCHEMA elsewhere;
CREATE EXTENSION profile_cache SCHEMA elsewhere;
SELECT to_regprocedure('get_profile(uuid)'), to_regprocedure('elsewhere.get_profile(uuid)');
SELECT profile_cache.attach();
SELECT profile_cache.explain(u(1)) ->> 'reason';
SELECT elsewhere.get_profile(u(1)) -> 'email';
SELECT profile_cache.detach();
DROP EXTENSION profile_cache;
DROP SCHEMA elsewhere;
