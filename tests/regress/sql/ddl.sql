-- DDL beside an attachment: renames carry over, whatever else touches what the document depends on
-- distrusts everything in its own transaction, and what has nothing to do with it distrusts nothing.
-- Nothing stale is served, the app's writes go through even where the attachment is broken, status
-- says what to do, and attach() mends it. Also for a backend that has read before ("other").
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
CREATE EXTENSION profile_cache;
CREATE EXTENSION dblink;
SELECT profile_cache.attach();
CALL profile_cache.refresh();
INSERT INTO profile_cache.last_refresh (began_at, completed_at) VALUES (now(), now()) ON CONFLICT DO NOTHING;
SELECT dblink_connect('other', format('host=%s port=%s dbname=%s user=%s', current_setting('unix_socket_directories'), current_setting('port'), current_database(), current_user)) AS connected \gset
-- What the other backend is served, by its own copy of the attachment.
CREATE FUNCTION other() RETURNS text LANGUAGE sql AS $$
    SELECT * FROM dblink('other', 'SELECT state() || '' wrong: '' || (SELECT count(*) FROM wrong())') AS t(state text) $$;
-- state(), pending and the difference to the view, here and there, before and after refresh.
\set check 'SELECT state(); SELECT * FROM pending(); SELECT what, user_id FROM wrong(); SELECT other(); CALL profile_cache.refresh(); SELECT state(); SELECT what, user_id FROM wrong(); SELECT other(); SELECT untimed(warnings) AS warnings FROM profile_cache.status;'
\set unchanged 'SELECT state(); SELECT * FROM pending(); SELECT * FROM wrong();'
\set ECHO all
:check

-- What has nothing to do with the document distrusts nothing.
CREATE TABLE unrelated (id int PRIMARY KEY, user_id bigint REFERENCES user_profile ON DELETE CASCADE);
:unchanged
CALL profile_cache.refresh();
CREATE TABLE another (id int PRIMARY KEY, t text);
CREATE INDEX ON another (t);
ALTER TABLE another ADD COLUMN u int DEFAULT 1;
CREATE TEMP TABLE user_subscription (id int);
CREATE TEMP TABLE temporary AS SELECT 1 AS id;
DROP TABLE pg_temp.user_subscription, temporary;
CREATE SCHEMA other;
CREATE TABLE other.user_role (id int);
DROP TABLE other.user_role;
CREATE FUNCTION unused() RETURNS int LANGUAGE sql AS 'SELECT 1';
DROP FUNCTION unused();
CREATE VIEW reads_profiles AS SELECT id, cached_profile FROM user_profile;
CREATE OR REPLACE VIEW reads_profiles AS SELECT id, cached_profile, email FROM user_profile;
DROP VIEW reads_profiles;
CREATE TYPE mood AS ENUM ('fine');
ALTER TYPE mood ADD VALUE 'so so';
DROP TYPE mood;
COMMENT ON TABLE user_profile IS 'the users';
COMMENT ON COLUMN user_profile.email IS 'an address';
CREATE ROLE regress_reader;
GRANT SELECT ON user_profile, user_role TO regress_reader;
REVOKE ALL ON user_profile, user_role FROM regress_reader;
DROP ROLE regress_reader;
CREATE INDEX by_email ON user_profile (email);
ANALYZE user_profile;
VACUUM user_profile;
REINDEX TABLE user_profile;
CREATE STATISTICS stats ON email, note FROM user_profile;
DROP STATISTICS stats;
CREATE MATERIALIZED VIEW m AS SELECT 1 AS one;
REFRESH MATERIALIZED VIEW m;
CREATE SEQUENCE s;
DO $$ BEGIN CREATE TEMP TABLE in_do (id int); DROP TABLE in_do; END $$;
DROP TABLE another;
:unchanged
DROP TABLE unrelated;
CALL profile_cache.refresh();

-- Renames carry over.
ALTER TABLE user_profile RENAME COLUMN email TO mail;
:check
UPDATE user_profile SET mail = 'renamed' WHERE id = 1;
SELECT get_profile(u(1)) -> 'email', get_profile(u(1)) ? 'mail';
SELECT state();
SELECT other();
SELECT profile_cache.attach();
SELECT get_profile(u(1)) -> 'mail', get_profile(u(1)) ? 'email';
:check
ALTER TABLE user_role RENAME COLUMN user_id TO member_id;
INSERT INTO user_role VALUES (10, 5, 1);
:check
ALTER TABLE user_role RENAME COLUMN member_id TO user_id;
ALTER TABLE user_role RENAME TO memberships;
INSERT INTO memberships VALUES (11, 5, 2);
:check
ALTER TABLE memberships RENAME TO user_role;
ALTER TABLE user_profile RENAME COLUMN supabase_user_id TO auth_id;
SELECT get_profile(u(5)) -> 'roles' -> 0;
UPDATE user_profile SET note = 'key renamed' WHERE id = 5;
SELECT get_profile(u(5)) -> 'note';
CALL profile_cache.refresh();
SELECT profile_cache.explain(u(5)) ->> 'served_from';
SELECT * FROM profile_cache.verify();
ALTER TABLE user_profile RENAME COLUMN auth_id TO supabase_user_id;
ALTER TABLE user_profile RENAME TO people;
UPDATE people SET note = 'table renamed' WHERE id = 5;
SELECT get_profile(u(5)) -> 'note';
CALL profile_cache.refresh();
SELECT profile_cache.explain(u(5)) ->> 'served_from', (SELECT count(*) FROM profile_cache.verify());
SELECT profile, untimed(warnings) AS warnings FROM profile_cache.status;
ALTER TABLE people RENAME TO user_profile;
CREATE SCHEMA moved;
ALTER TABLE user_subscription SET SCHEMA moved;
UPDATE moved.user_subscription SET status = 'cancelled' WHERE id = 1;
:check
ALTER SCHEMA moved RENAME TO moved_again;
UPDATE moved_again.user_subscription SET status = 'active' WHERE id = 1;
:check
ALTER TABLE moved_again.user_subscription SET SCHEMA public;
ALTER VIEW profile_document RENAME TO user_document;
SELECT get_profile(u(1)) -> 'mail';
UPDATE user_profile SET note = 'view renamed' WHERE id = 1;
CALL profile_cache.refresh();
SELECT state(), (SELECT count(*) FROM profile_cache.verify()), (SELECT document FROM profile_cache.status);
ALTER VIEW user_document RENAME TO profile_document;
-- A table takes the name of another in one transaction; nobody is fooled by the name.
BEGIN;
ALTER TABLE role RENAME TO old_role;
CREATE TABLE role (id bigint, name text, permissions jsonb);
COMMIT;
UPDATE old_role SET name = 'followed' WHERE id = 1;
:check
DROP TABLE role;
ALTER TABLE old_role RENAME TO role;
ALTER TRIGGER profile_cache_update ON user_role RENAME TO mine;
SELECT state();
SELECT disabled_triggers, untimed(warnings) AS warnings FROM profile_cache.status;
UPDATE user_role SET role_id = 3 WHERE id = 10;
SELECT what, user_id FROM wrong();
ALTER TRIGGER mine ON user_role RENAME TO profile_cache_update;
:check

-- PostgreSQL itself refuses what the view uses.
ALTER TABLE user_profile DROP COLUMN mail;
ALTER TABLE user_profile ALTER COLUMN mail TYPE varchar(300);
ALTER TABLE user_subscription ALTER COLUMN plan_id TYPE varchar(10);
DROP TABLE user_role;
DROP TABLE role;
DROP FUNCTION profile_cache.iso8601(timestamptz);
:unchanged

-- Columns that the view does not use may change, with an epoch at most.
ALTER TABLE role DROP COLUMN description;
ALTER TABLE user_subscription ALTER COLUMN memo TYPE varchar(100);
ALTER TABLE user_profile ADD COLUMN extra int DEFAULT 1;
:check

-- Triggers disabled, enabled, dropped.
ALTER TABLE user_role DISABLE TRIGGER profile_cache_insert;
INSERT INTO user_role VALUES (20, 1, 2);
SELECT state();
SELECT other();
SELECT disabled_triggers, untimed(warnings) AS warnings FROM profile_cache.status;
SELECT what, user_id FROM wrong();
CALL profile_cache.refresh();
SELECT state();
ALTER TABLE user_role ENABLE TRIGGER profile_cache_insert;
SELECT state();
ALTER TABLE user_role ENABLE REPLICA TRIGGER profile_cache_insert;
SELECT state();
ALTER TABLE user_role ENABLE ALWAYS TRIGGER profile_cache_insert;
:check
ALTER TABLE user_profile DISABLE TRIGGER ALL;
UPDATE user_profile SET note = 'unseen' WHERE id = 1;
SELECT state();
SELECT disabled_triggers FROM profile_cache.status;
SELECT what, user_id FROM wrong();
SELECT profile_cache.attach();
ALTER TABLE user_profile ENABLE TRIGGER ALL;
SELECT disabled_triggers FROM profile_cache.status;
SELECT profile_cache.attach();
:check
DROP TRIGGER zz_profile_cache_distrust ON user_profile;
DROP TRIGGER profile_cache_truncate ON role;
UPDATE user_profile SET cached_profile = '{"forged": true}', cached_profile_epoch = (SELECT current FROM profile_cache.epoch) WHERE id = 2;
TRUNCATE user_role;
SELECT state();
SELECT other();
SELECT what, user_id FROM wrong();
SELECT disabled_triggers FROM profile_cache.status;
SELECT profile_cache.attach();
:check
-- Disabled and enabled again in one transaction, with a change in between.
BEGIN;
ALTER TABLE user_role DISABLE TRIGGER USER;
INSERT INTO user_role VALUES (30, 1, 1);
ALTER TABLE user_role ENABLE ALWAYS TRIGGER profile_cache_insert;
SELECT state();
COMMIT;
SELECT profile_cache.attach();
:check
-- A WHEN condition or another function under one of our triggers' names counts as none of ours.
CREATE OR REPLACE TRIGGER profile_cache_insert AFTER INSERT ON user_role REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (false) EXECUTE FUNCTION profile_cache.after_statement();
SELECT disabled_triggers FROM profile_cache.status;
INSERT INTO user_role VALUES (31, 1, 2);
SELECT what, user_id FROM wrong();
SELECT profile_cache.attach();
:check
CREATE OR REPLACE TRIGGER profile_cache_insert BEFORE INSERT ON user_role FOR EACH STATEMENT EXECUTE FUNCTION profile_cache.before_statement();
ALTER TABLE user_role ENABLE ALWAYS TRIGGER profile_cache_insert;
SELECT disabled_triggers FROM profile_cache.status;
INSERT INTO user_role VALUES (32, 1, 3);
SELECT what, user_id FROM wrong();
SELECT profile_cache.attach();
:check

-- Foreign keys dropped, added, not valid.
ALTER TABLE user_role DROP CONSTRAINT user_role_user_id_fkey;
INSERT INTO user_role VALUES (40, 2, 1);
SELECT state();
SELECT what, user_id FROM wrong();
SELECT untimed(warnings) AS warnings FROM profile_cache.status;
CALL profile_cache.refresh();
SELECT state();
SELECT other();
SELECT profile_cache.attach();
ALTER TABLE user_role ADD CONSTRAINT user_role_user_id_fkey FOREIGN KEY (user_id) REFERENCES user_profile ON DELETE CASCADE ON UPDATE CASCADE NOT VALID;
SELECT state();
ALTER TABLE user_role VALIDATE CONSTRAINT user_role_user_id_fkey;
:check

-- The key's unique index goes; duplicates of a key cannot be served from the cache.
ALTER TABLE user_profile DROP CONSTRAINT user_profile_supabase_user_id_key;
SELECT state();
SELECT untimed(warnings) AS warnings FROM profile_cache.status;
INSERT INTO user_profile (id, supabase_user_id, mail) VALUES (6, u(1), 'twice');
SELECT get_profile(u(1));
\echo :SQLSTATE
CALL profile_cache.refresh();
DELETE FROM user_profile WHERE id = 6;
SELECT profile_cache.attach();
ALTER TABLE user_profile ADD UNIQUE (supabase_user_id);
:check
ALTER TABLE user_profile ALTER COLUMN supabase_user_id DROP NOT NULL;
:check

-- The view replaced by hand, or with another column: not ours any more, not trusted.
CREATE OR REPLACE VIEW profile_document AS SELECT supabase_user_id, '{"by": "hand"}'::jsonb AS document, NULL::timestamptz AS valid_until FROM user_profile;
SELECT get_profile(u(1));
SELECT state();
SELECT what, user_id FROM wrong();
SELECT untimed(warnings) AS warnings FROM profile_cache.status;
CALL profile_cache.refresh();
SELECT state();
UPDATE user_profile SET note = 'goes through' WHERE id = 1;
SELECT profile_cache.attach();
:check

-- The view dropped by CASCADE: writes go through, reads say what is wrong, attach() writes it anew.
\set VERBOSITY terse
DROP VIEW profile_document CASCADE;
\set VERBOSITY default
SELECT get_profile(u(1));
\echo :SQLSTATE
SELECT profile_cache.explain(u(1));
SELECT dblink_exec('other', 'DO $$ BEGIN PERFORM get_profile(u(1)); EXCEPTION WHEN object_not_in_prerequisite_state THEN RAISE NOTICE ''as here''; END $$');
UPDATE user_profile SET note = 'without a view' WHERE id = 1;
INSERT INTO user_role VALUES (50, 1, 1);
INSERT INTO user_profile (id, supabase_user_id) VALUES (7, u(7));
DELETE FROM user_profile WHERE id = 7;
UPDATE subscription_plan SET display_name = 'without a view' WHERE id = 'pro';
TRUNCATE user_role;
SELECT profile, document, cached, untimed(warnings) AS warnings FROM profile_cache.status;
CALL profile_cache.refresh();
SELECT * FROM profile_cache.verify();
SELECT profile_cache.invalidate_all();
SELECT profile_cache.attach();
SELECT get_profile(u(1)) -> 'note';
:check
\set VERBOSITY terse
ALTER TABLE user_profile DROP COLUMN note CASCADE;
\set VERBOSITY default
UPDATE user_profile SET mail = 'without note' WHERE id = 1;
SELECT get_profile(u(1));
SELECT profile_cache.attach();
SELECT get_profile(u(1)) ? 'note';
:check

-- One of our columns dropped, and all of them.
ALTER TABLE user_profile DROP COLUMN cached_profile_epoch;
UPDATE user_profile SET mail = 'no epoch' WHERE id = 1;
SELECT get_profile(u(1)) -> 'mail';
\echo :SQLSTATE
SELECT untimed(warnings) AS warnings FROM profile_cache.status;
SELECT profile_cache.attach();
:check
-- Of another type: nothing is written into it, attach() says what to do.
ALTER TABLE user_profile ALTER COLUMN cached_profile_epoch TYPE text;
UPDATE user_profile SET mail = 'text' WHERE id = 1;
INSERT INTO user_profile (id, supabase_user_id) VALUES (7, u(7));
DELETE FROM user_profile WHERE id = 7;
SELECT count(cached_profile_epoch) FROM user_profile;
SELECT get_profile(u(1)) -> 'mail';
SELECT untimed(warnings) AS warnings FROM profile_cache.status;
SELECT profile_cache.attach();
ALTER TABLE user_profile DROP COLUMN cached_profile_epoch;
SELECT profile_cache.attach();
:check
ALTER TABLE user_profile ALTER COLUMN cached_profile TYPE json USING cached_profile::json;
UPDATE user_profile SET mail = 'json' WHERE id = 1;
SELECT get_profile(u(1)) -> 'mail';
ALTER TABLE user_profile ALTER COLUMN cached_profile TYPE jsonb USING cached_profile::jsonb;
:check
ALTER TABLE user_profile RENAME COLUMN cached_profile TO stolen;
UPDATE user_profile SET mail = 'renamed ours' WHERE id = 1;
SELECT get_profile(u(1)) -> 'mail';
ALTER TABLE user_profile RENAME COLUMN stolen TO cached_profile;
:check

-- The table becomes unfit.
ALTER TABLE user_role ENABLE ROW LEVEL SECURITY;
ALTER TABLE user_role FORCE ROW LEVEL SECURITY;
SELECT what, user_id FROM wrong();
ALTER TABLE user_role NO FORCE ROW LEVEL SECURITY;
ALTER TABLE user_role DISABLE ROW LEVEL SECURITY;
:check
CREATE TABLE heir () INHERITS (user_role);
INSERT INTO heir VALUES (60, 1, 1);
SELECT what, user_id FROM wrong();
INSERT INTO heir VALUES (61, 1, 2);
SELECT what, user_id FROM wrong();
SELECT untimed(warnings) AS warnings FROM profile_cache.status;
CALL profile_cache.refresh();
INSERT INTO heir VALUES (62, 1, 2);
SELECT what, user_id FROM wrong();
DROP TABLE heir;
:check
CREATE TABLE parent (LIKE user_role INCLUDING DEFAULTS) PARTITION BY RANGE (id);
ALTER TABLE parent ATTACH PARTITION user_role FOR VALUES FROM (0) TO (1000);
CALL profile_cache.refresh();
INSERT INTO parent VALUES (500, 1, 2);
SELECT what, user_id FROM wrong();
SELECT state();
ALTER TABLE parent DETACH PARTITION user_role;
DROP TABLE parent;
CREATE TABLE base (id bigint NOT NULL, user_id bigint, role_id bigint);
ALTER TABLE user_role INHERIT base;
CALL profile_cache.refresh();
UPDATE base SET role_id = 3 WHERE user_id = 1;
SELECT what, user_id FROM wrong();
SELECT state();
ALTER TABLE user_role NO INHERIT base;
DROP TABLE base;
:check
CREATE ROLE regress_other;
ALTER TABLE user_role OWNER TO regress_other;
CALL profile_cache.refresh();
SELECT state();
SELECT untimed(warnings) AS warnings FROM profile_cache.status;
ALTER TABLE user_role OWNER TO CURRENT_USER;
DROP ROLE regress_other;
:check
ALTER TABLE user_profile SET UNLOGGED;
ALTER TABLE user_subscription SET UNLOGGED;
CALL profile_cache.refresh();
SELECT state();
ALTER TABLE user_subscription SET LOGGED;

-- An enum label renamed: documents print it.
CREATE TYPE kind AS ENUM ('active', 'off');
SELECT profile_cache.detach();
ALTER TABLE user_subscription ALTER COLUMN status TYPE kind USING CASE WHEN status = 'active' THEN 'active' ELSE 'off' END::kind;
SELECT profile_cache.attach();
CALL profile_cache.refresh();
SELECT get_profile(u(1)) -> 'subscription_status';
ALTER TYPE kind RENAME VALUE 'active' TO 'trialing';
SELECT get_profile(u(1)) -> 'subscription_status';
:check
ALTER TYPE kind ADD VALUE 'paused';
:check
-- A domain's or composite type's change deep below a column.
CREATE TYPE inner_type AS (a int);
CREATE TYPE outer_type AS (i inner_type);
ALTER TABLE user_profile ADD COLUMN deep outer_type;
UPDATE user_profile SET deep = ROW(ROW(1))::outer_type;
SELECT profile_cache.attach();
CALL profile_cache.refresh();
SELECT get_profile(u(1)) -> 'deep';
ALTER TYPE inner_type RENAME ATTRIBUTE a TO b;
SELECT get_profile(u(1)) -> 'deep';
:check
-- A cast to json of the app's own changes how a type prints.
CREATE TYPE shown AS ENUM ('x');
ALTER TABLE user_profile ADD COLUMN shown shown DEFAULT 'x';
SELECT profile_cache.attach();
CALL profile_cache.refresh();
CREATE FUNCTION shown_json(shown) RETURNS json LANGUAGE sql IMMUTABLE RETURN '"cast"'::json;
CREATE CAST (shown AS json) WITH FUNCTION shown_json(shown);
SELECT get_profile(u(1)) -> 'shown';
SELECT what, user_id FROM wrong();
CREATE OR REPLACE FUNCTION shown_json(shown) RETURNS json LANGUAGE sql IMMUTABLE RETURN '"another"'::json;
SELECT get_profile(u(1)) -> 'shown';
SELECT what, user_id FROM wrong();
DROP CAST (shown AS json);
SELECT what, user_id FROM wrong();

-- DDL rolled back distrusts nothing; in a savepoint likewise.
CALL profile_cache.refresh();
BEGIN;
ALTER TABLE user_profile RENAME COLUMN mail TO other_mail;
SAVEPOINT a;
ALTER TABLE user_role RENAME TO other_role;
SELECT state();
ROLLBACK TO a;
SELECT state();
ROLLBACK;
:unchanged

-- The profile table dropped: everything says so, and another can be attached.
\set VERBOSITY terse
DROP TABLE user_profile CASCADE;
\set VERBOSITY default
SELECT get_profile(u(1));
\echo :SQLSTATE
SELECT profile, document, untimed(warnings) AS warnings FROM profile_cache.status;
INSERT INTO user_role VALUES (70, 1, 1);
UPDATE subscription_plan SET display_name = 'no profile table' WHERE id = 'pro';
TRUNCATE user_role;
CALL profile_cache.refresh();
CREATE TABLE user_profile (id bigint PRIMARY KEY, supabase_user_id uuid UNIQUE, email text);
INSERT INTO user_profile VALUES (1, u(1), 'a new table');
SELECT profile_cache.detach();
SELECT relname, tgname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid WHERE NOT tgisinternal AND relname <> 'attachment';
TRUNCATE user_subscription;
ALTER TABLE user_subscription ADD FOREIGN KEY (user_id) REFERENCES user_profile;
ALTER TABLE user_role ADD FOREIGN KEY (user_id) REFERENCES user_profile;
SELECT profile_cache.attach();
CALL profile_cache.refresh();
SELECT get_profile(u(1)) -> 'email';
SELECT what, user_id FROM wrong();
SELECT other();
-- Dropped and made anew without a detach in between.
\set VERBOSITY terse
DROP TABLE user_profile CASCADE;
\set VERBOSITY default
CREATE TABLE user_profile (id bigint PRIMARY KEY, supabase_user_id uuid UNIQUE, email text);
INSERT INTO user_profile VALUES (1, u(1), 'one more');
ALTER TABLE user_subscription ADD FOREIGN KEY (user_id) REFERENCES user_profile;
ALTER TABLE user_role ADD FOREIGN KEY (user_id) REFERENCES user_profile;
SELECT profile_cache.attach();
CALL profile_cache.refresh();
SELECT get_profile(u(1)) -> 'email';
SELECT what, user_id FROM wrong();
SELECT other();
-- Another foreign key in the place of one: it is what is gone by from then on, and missed when it goes.
ALTER TABLE user_role DROP CONSTRAINT user_role_user_id_fkey, ADD CONSTRAINT instead FOREIGN KEY (user_id) REFERENCES user_profile ON DELETE CASCADE;
SELECT state();
ALTER TABLE user_role DROP CONSTRAINT instead;
SELECT state();
SELECT problem FROM profile_cache.attachment;
ALTER TABLE user_role ADD CONSTRAINT instead FOREIGN KEY (user_id) REFERENCES user_profile ON DELETE CASCADE;
CALL profile_cache.refresh();
SELECT state();
-- One of our columns goes, and comes again with something in it.
ALTER TABLE user_profile DROP COLUMN cached_profile;
SELECT * FROM pending();
ALTER TABLE user_profile ADD COLUMN cached_profile jsonb DEFAULT '{"forged": 1}';
SELECT what, user_id FROM wrong();
SELECT other();
CALL profile_cache.refresh();
SELECT what, user_id FROM wrong();
SELECT other();
-- The extension's schema stays where it is.
ALTER EXTENSION profile_cache SET SCHEMA other;
\set VERBOSITY terse
DROP SCHEMA profile_cache CASCADE;
DROP FUNCTION get_profile;
DROP EVENT TRIGGER profile_cache_ddl;
DROP TABLE profile_cache.pending_key CASCADE;
\set VERBOSITY default
-- Our event triggers disabled: DDL may go unnoticed, so nothing is trusted.
ALTER EVENT TRIGGER profile_cache_ddl DISABLE;
SELECT state();
SELECT untimed(warnings) AS warnings FROM profile_cache.status;
ALTER EVENT TRIGGER profile_cache_ddl ENABLE ALWAYS;
SELECT state();
SELECT dblink_disconnect('other');
