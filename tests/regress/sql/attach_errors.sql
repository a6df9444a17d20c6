-- Every wrong call says what is wrong, with its SQLSTATE, and what to do; a failed attach changes
-- nothing. An error that is no longer reached, or reached as another one, shows up here.
\set ECHO none
\i include/output.sql
CREATE FUNCTION u(n integer) RETURNS uuid LANGUAGE sql IMMUTABLE
    AS $$SELECT pg_catalog.lpad(n::text, 32, '0')::uuid$$;
\set ECHO all
CREATE EXTENSION profile_cache;

-- Nothing attached: 55000 from whatever needs an attachment, NULL arguments notwithstanding.
SELECT get_profile(u(1));
\echo :SQLSTATE
SELECT get_profile(NULL);
SELECT profile_cache.explain(u(1));
SELECT profile_cache.explain(NULL);
SELECT profile_cache.invalidate(u(1));
SELECT profile_cache.invalidate_all();
SELECT * FROM profile_cache.verify();
CALL profile_cache.refresh();
\echo :SQLSTATE
SELECT profile_cache.refresh_begin(1);
SELECT profile_cache.refresh_step(1, 'epochs', NULL);
SELECT profile, warnings FROM profile_cache.status;

-- No table.
SELECT profile_cache.attach();
\echo :SQLSTATE
SELECT profile_cache.attach('no_such_table');
SELECT profile_cache.attach(0::regclass);
\echo :SQLSTATE
SELECT profile_cache.attach(4294967295::regclass);

-- Not a table that can be attached.
CREATE TABLE base (id int PRIMARY KEY, supabase_user_id uuid UNIQUE);
CREATE VIEW user_profile AS SELECT * FROM base;
SELECT profile_cache.attach();
\echo :SQLSTATE
DROP VIEW user_profile;
CREATE MATERIALIZED VIEW m AS SELECT * FROM base;
SELECT profile_cache.attach('m');
DROP MATERIALIZED VIEW m;
CREATE SEQUENCE s;
SELECT profile_cache.attach('s');
SELECT profile_cache.attach('base_pkey');
CREATE TYPE composite AS (supabase_user_id uuid);
SELECT profile_cache.attach('composite');
SELECT profile_cache.attach('pg_catalog.pg_class');
SELECT profile_cache.attach('information_schema.tables');
SELECT profile_cache.attach('profile_cache.attachment');
SELECT profile_cache.attach(('pg_toast.' || relname)::regclass) FROM pg_class WHERE oid = (SELECT reltoastrelid FROM pg_class WHERE relname = 'pg_proc');
CREATE UNLOGGED TABLE user_profile (supabase_user_id uuid UNIQUE);
SELECT profile_cache.attach();
\echo :SQLSTATE
DROP TABLE user_profile;
CREATE TEMP TABLE user_profile (supabase_user_id uuid UNIQUE);
\set VERBOSITY sqlstate
SELECT profile_cache.attach();
\set VERBOSITY default
DROP TABLE user_profile;
CREATE TABLE user_profile (supabase_user_id uuid UNIQUE) PARTITION BY HASH (supabase_user_id);
SELECT profile_cache.attach();
\echo :SQLSTATE
CREATE TABLE one PARTITION OF user_profile FOR VALUES WITH (MODULUS 1, REMAINDER 0);
SELECT profile_cache.attach('one');
DROP TABLE user_profile;
CREATE TABLE user_profile (supabase_user_id uuid UNIQUE);
CREATE TABLE child () INHERITS (user_profile);
SELECT profile_cache.attach();
\echo :SQLSTATE
SELECT profile_cache.attach('child');
DROP TABLE child;
ALTER TABLE user_profile FORCE ROW LEVEL SECURITY;
SELECT profile_cache.attach();
\echo :SQLSTATE
ALTER TABLE user_profile NO FORCE ROW LEVEL SECURITY;

-- The key.
SELECT profile_cache.attach(key => 'auth "id"');
\echo :SQLSTATE
SELECT profile_cache.attach(key => '');
SELECT profile_cache.attach(key => 'ctid');
SELECT profile_cache.attach(key => NULL);
\echo :SQLSTATE
ALTER TABLE user_profile ADD COLUMN email text UNIQUE;
SELECT profile_cache.attach(key => 'email');
\echo :SQLSTATE
CREATE DOMAIN user_id AS uuid;
ALTER TABLE user_profile ADD COLUMN domain_key user_id UNIQUE;
SELECT profile_cache.attach(key => 'domain_key');
ALTER TABLE user_profile DROP COLUMN domain_key;
ALTER TABLE user_profile ADD COLUMN k uuid;
SELECT profile_cache.attach(key => 'k');
\echo :SQLSTATE
CREATE INDEX plain ON user_profile (k);
SELECT profile_cache.attach(key => 'k');
CREATE UNIQUE INDEX partial ON user_profile (k) WHERE k IS NOT NULL;
SELECT profile_cache.attach(key => 'k');
DROP INDEX partial;
CREATE UNIQUE INDEX wide ON user_profile (k, email);
SELECT profile_cache.attach(key => 'k');
DROP INDEX wide;
CREATE UNIQUE INDEX expression ON user_profile ((k::text));
SELECT profile_cache.attach(key => 'k');
DROP INDEX expression;
ALTER TABLE user_profile ADD CONSTRAINT later UNIQUE (k) DEFERRABLE;
SELECT profile_cache.attach(key => 'k');
ALTER TABLE user_profile DROP CONSTRAINT later;
CREATE UNIQUE INDEX invalid ON user_profile (k);
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'invalid'::regclass;
SELECT profile_cache.attach(key => 'k');
DROP INDEX invalid;

-- exclude.
SELECT profile_cache.attach(exclude => '{email,no such}');
\echo :SQLSTATE
SELECT profile_cache.attach(exclude => NULL);
\echo :SQLSTATE
SELECT profile_cache.attach(exclude => '{""}');
SELECT profile_cache.attach(exclude => '{ctid}');

-- What attach() would make, but is taken.
ALTER TABLE user_profile ADD COLUMN cached_profile json;
SELECT profile_cache.attach();
\echo :SQLSTATE
ALTER TABLE user_profile DROP COLUMN cached_profile;
ALTER TABLE user_profile ADD COLUMN cached_profile_epoch int;
SELECT profile_cache.attach();
ALTER TABLE user_profile DROP COLUMN cached_profile_epoch;
CREATE VIEW profile_document AS SELECT supabase_user_id, '{}'::jsonb AS document FROM user_profile;
SELECT profile_cache.attach();
\echo :SQLSTATE
COMMENT ON VIEW profile_document IS 'a view of the app''s';
SELECT profile_cache.attach(document => 'profile_document');
\echo :SQLSTATE
SELECT profile_cache.detach();
SELECT profile_cache.attach(document => 'user_profile');
SELECT profile_cache.attach(document => 0::regclass);
SELECT profile_cache.attach(document => 'pg_catalog.pg_class');
DROP VIEW profile_document;
CREATE TABLE profile_document (supabase_user_id uuid, document jsonb);
SELECT profile_cache.attach();
DROP TABLE profile_document;
-- Whatever its comment says.
CREATE TABLE profile_document (supabase_user_id uuid, document jsonb);
COMMENT ON TABLE profile_document IS 'Generated by profile_cache.attach(): forged';
SELECT profile_cache.attach();
SELECT profile_cache.attach(document => 'profile_document');
DROP TABLE profile_document;
CREATE MATERIALIZED VIEW profile_document AS SELECT supabase_user_id, '{}'::jsonb AS document FROM user_profile;
COMMENT ON MATERIALIZED VIEW profile_document IS 'Generated by profile_cache.attach(): forged';
SELECT profile_cache.attach();
DROP MATERIALIZED VIEW profile_document;
CREATE TYPE profile_document AS (supabase_user_id uuid);
SELECT profile_cache.attach();
DROP TYPE profile_document;
CREATE DOMAIN profile_document AS int;
SELECT profile_cache.attach();
\echo :SQLSTATE
DROP DOMAIN profile_document;

-- Members: a foreign key, on one column, validated; fit tables.
ALTER TABLE user_profile ADD COLUMN id int PRIMARY KEY;
CREATE TABLE user_subscription (id int PRIMARY KEY, user_id int, plan_id text, status text);
SELECT profile_cache.attach();
\echo :SQLSTATE
ALTER TABLE user_subscription ADD CONSTRAINT fk FOREIGN KEY (user_id) REFERENCES user_profile NOT VALID;
SELECT profile_cache.attach();
ALTER TABLE user_subscription VALIDATE CONSTRAINT fk;
CREATE TABLE subscription_plan (id text PRIMARY KEY, display_name text);
SELECT profile_cache.attach();
ALTER TABLE user_subscription ADD CONSTRAINT fk_plan FOREIGN KEY (plan_id) REFERENCES subscription_plan;
CREATE TABLE role (id int PRIMARY KEY, tenant int, name text, UNIQUE (tenant, id));
CREATE TABLE user_role (user_id int REFERENCES user_profile, tenant int, role_id int, FOREIGN KEY (tenant, role_id) REFERENCES role (tenant, id));
SELECT profile_cache.attach();
DROP TABLE user_role, role;
ALTER TABLE user_subscription FORCE ROW LEVEL SECURITY;
SELECT profile_cache.attach();
ALTER TABLE user_subscription NO FORCE ROW LEVEL SECURITY;
CREATE TABLE heir () INHERITS (user_subscription);
SELECT profile_cache.attach();
DROP TABLE heir;
CREATE ROLE regress_other;
ALTER TABLE subscription_plan OWNER TO regress_other;
SELECT profile_cache.attach();
\echo :SQLSTATE
ALTER TABLE subscription_plan OWNER TO CURRENT_USER;
DROP ROLE regress_other;

-- None of that has left anything behind.
SELECT attname FROM pg_attribute WHERE attrelid = 'user_profile'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY 1;
SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgname <> 'attachment_changed';
SELECT to_regclass('profile_document'), (SELECT count(*) FROM profile_cache.attachment), (SELECT count(*) FROM profile_cache.pending);

-- Attached: a second one is refused, and so are wrong arguments.
INSERT INTO user_profile (id, supabase_user_id, email) VALUES (1, u(1), 'a@example.com');
SET client_min_messages = error;
SELECT profile_cache.attach();
RESET client_min_messages;
CREATE TABLE another (supabase_user_id uuid UNIQUE);
SELECT profile_cache.attach('another');
\echo :SQLSTATE
SELECT profile_cache.detach(NULL);
\echo :SQLSTATE
SELECT profile_cache.invalidate(NULL);
\echo :SQLSTATE
SELECT * FROM profile_cache.verify(0);
\echo :SQLSTATE
SELECT * FROM profile_cache.verify(-9223372036854775808);
SELECT * FROM profile_cache.verify(9223372036854775807);
CALL profile_cache.refresh(0);
\echo :SQLSTATE
CALL profile_cache.refresh(-2147483648);
CALL profile_cache.refresh(100001);
CALL profile_cache.refresh(NULL);
\echo :SQLSTATE
BEGIN;
CALL profile_cache.refresh();
\echo :SQLSTATE
ROLLBACK;
SET client_min_messages = warning;
DO $$ BEGIN CALL profile_cache.refresh(); END $$;
RESET client_min_messages;
CREATE FUNCTION calls() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL profile_cache.refresh(); END $$;
SELECT calls();
\echo :SQLSTATE
CREATE PROCEDURE calls_with_set() LANGUAGE plpgsql SET search_path = public AS $$ BEGIN CALL profile_cache.refresh(); END $$;
CALL calls_with_set();
\echo :SQLSTATE
CREATE PROCEDURE catches() LANGUAGE plpgsql AS $$ BEGIN CALL profile_cache.refresh(); EXCEPTION WHEN division_by_zero THEN NULL; END $$;
CALL catches();
\echo :SQLSTATE
SET profile_cache.max_immediate = -1;
SET profile_cache.enabled = 'perhaps';

-- What is internal, called by hand.
SELECT profile_cache.distrust();
SELECT profile_cache.before_statement();
SELECT profile_cache.after_statement();
SELECT profile_cache.attachment_changed();
SELECT profile_cache.on_ddl();
SELECT profile_cache.refresh_begin(1);
\echo :SQLSTATE
SELECT profile_cache.refresh_begin(NULL);
SELECT stored FROM profile_cache.refresh_step(NULL, NULL, NULL);
SELECT stored FROM profile_cache.refresh_step(-5, 'no such phase', 'no such course');
SELECT stored FROM profile_cache.refresh_step(2147483647, 'stale', '{"size": -1}');
SELECT stored FROM profile_cache.refresh_step(1, 'keys', '[]');
SELECT stored FROM profile_cache.refresh_step(1, 'done', NULL);
SELECT profile_cache.iso8601(NULL) IS NULL;
SELECT profile_cache.iso8601('-infinity'), profile_cache.iso8601('4713-01-01 00:00:00+00 BC'), profile_cache.iso8601('294276-12-31 23:59:59.999999+00'),
    profile_cache.iso8601('2000-01-01 00:00:00+00'), profile_cache.iso8601('1999-12-31 23:59:59.999999+00'), profile_cache.iso8601('1970-01-01 00:00:00+00');

-- Triggers made by hand with our functions: refused at the wrong timing or level with 39P01,
-- harmless on a table that is not ours.
CREATE TABLE victim (id int PRIMARY KEY);
CREATE TRIGGER t BEFORE INSERT ON victim FOR EACH STATEMENT EXECUTE FUNCTION profile_cache.distrust();
INSERT INTO victim VALUES (1);
\echo :SQLSTATE
DROP TRIGGER t ON victim;
CREATE TRIGGER t AFTER INSERT ON victim FOR EACH ROW EXECUTE FUNCTION profile_cache.distrust();
INSERT INTO victim VALUES (1);
DROP TRIGGER t ON victim;
CREATE TRIGGER t BEFORE DELETE ON victim FOR EACH ROW EXECUTE FUNCTION profile_cache.distrust();
CREATE TRIGGER t2 BEFORE INSERT OR UPDATE ON victim FOR EACH ROW EXECUTE FUNCTION profile_cache.distrust();
INSERT INTO victim VALUES (1);
UPDATE victim SET id = 2;
DELETE FROM victim;
DROP TRIGGER t ON victim;
DROP TRIGGER t2 ON victim;
CREATE TRIGGER t BEFORE INSERT ON victim FOR EACH ROW EXECUTE FUNCTION profile_cache.before_statement();
INSERT INTO victim VALUES (1);
DROP TRIGGER t ON victim;
CREATE TRIGGER t AFTER INSERT ON victim FOR EACH STATEMENT EXECUTE FUNCTION profile_cache.before_statement();
INSERT INTO victim VALUES (1);
DROP TRIGGER t ON victim;
CREATE TRIGGER t BEFORE INSERT ON victim FOR EACH STATEMENT EXECUTE FUNCTION profile_cache.before_statement();
INSERT INTO victim VALUES (3);
DROP TRIGGER t ON victim;
CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON victim FOR EACH STATEMENT EXECUTE FUNCTION profile_cache.after_statement();
INSERT INTO victim VALUES (4);
UPDATE victim SET id = 40 WHERE id = 4;
DELETE FROM victim WHERE id = 40;
TRUNCATE victim;
DROP TRIGGER t ON victim;
CREATE TRIGGER t AFTER INSERT ON victim FOR EACH ROW EXECUTE FUNCTION profile_cache.after_statement();
INSERT INTO victim VALUES (5);
DROP TRIGGER t ON victim;
CREATE TRIGGER t AFTER INSERT ON victim FOR EACH STATEMENT EXECUTE FUNCTION profile_cache.attachment_changed();
INSERT INTO victim VALUES (6);
DROP TRIGGER t ON victim;
CREATE VIEW seen AS SELECT * FROM victim;
CREATE TRIGGER t INSTEAD OF INSERT ON seen FOR EACH ROW EXECUTE FUNCTION profile_cache.distrust();
INSERT INTO seen VALUES (7);
DROP VIEW seen;
-- On our own table, without transition tables, or twice.
CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON user_profile FOR EACH STATEMENT EXECUTE FUNCTION profile_cache.after_statement();
CREATE TRIGGER t2 BEFORE DELETE ON user_profile FOR EACH ROW EXECUTE FUNCTION profile_cache.distrust();
CREATE TRIGGER t3 AFTER UPDATE ON user_profile REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION profile_cache.after_statement();
UPDATE user_profile SET email = 'b@example.com';
INSERT INTO user_profile (id, supabase_user_id, email) VALUES (2, u(2), 'c@example.com');
DELETE FROM user_profile WHERE id = 2;
SELECT count(*) FROM user_profile;
SELECT get_profile(u(1)) ->> 'email';
SELECT count(*) FROM profile_cache.verify();
DROP TRIGGER t ON user_profile;
DROP TRIGGER t2 ON user_profile;
DROP TRIGGER t3 ON user_profile;
-- As an event trigger for an event that ours does not have.
CREATE EVENT TRIGGER by_hand ON ddl_command_start EXECUTE FUNCTION profile_cache.on_ddl();
CREATE TABLE unrelated ();
DROP EVENT TRIGGER by_hand;
CREATE EVENT TRIGGER by_hand ON table_rewrite EXECUTE FUNCTION profile_cache.on_ddl();
ALTER TABLE victim ALTER COLUMN id TYPE bigint;
DROP EVENT TRIGGER by_hand;
