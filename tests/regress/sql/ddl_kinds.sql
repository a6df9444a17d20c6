-- Which DDL makes something pending, and which leaves the cache alone. Each statement is tried and rolled back.
-- Rules: D3, D7, D8.
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE EXTENSION profile_cache;
CREATE EXTENSION citext;
CREATE EXTENSION pg_trgm;
CREATE SCHEMA used;
CREATE TYPE used.mood AS ENUM ('good', 'bad');
CREATE TYPE used.point AS (x int, y int);
CREATE TABLE used.shape (a text, b text);
CREATE FUNCTION used.shown(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN upper($1);
CREATE FUNCTION used.checked(text) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN $1 <> '';
CREATE TABLE unrelated (id int PRIMARY KEY, user_id bigint REFERENCES user_profile ON DELETE CASCADE, name text, mood used.mood);
CREATE TYPE unrelated_type AS ENUM ('a');
CREATE FUNCTION unrelated_json(unrelated_type) RETURNS json LANGUAGE sql IMMUTABLE RETURN '1'::json;
CREATE CAST (unrelated_type AS json) WITH FUNCTION unrelated_json(unrelated_type);
CREATE FUNCTION user_role() RETURNS int LANGUAGE sql RETURN 1;
CREATE FUNCTION app_trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER of_the_app BEFORE UPDATE ON user_role FOR EACH ROW EXECUTE FUNCTION app_trigger();
ALTER TABLE user_profile ADD COLUMN nick citext, ADD COLUMN mood used.mood, ADD COLUMN place used.point, ADD COLUMN unused text, ADD CONSTRAINT twice UNIQUE (email);
CREATE UNIQUE INDEX unused_index ON user_profile (note, id);
CREATE INDEX with_code ON user_profile (id) WHERE used.checked(note);
ALTER TABLE user_role ADD CONSTRAINT beside FOREIGN KEY (user_id) REFERENCES user_profile ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE user_profile ADD CONSTRAINT unused_check CHECK (id > 0);
CREATE VIEW used.roles AS SELECT ur.user_id, jsonb_agg(to_jsonb(r) ORDER BY r.id) AS roles
    FROM user_role AS ur JOIN role AS r ON r.id = ur.role_id GROUP BY ur.user_id;
CREATE VIEW used.document AS SELECT p.supabase_user_id, jsonb_build_object('email', used.shown(p.email), 'nick', p.nick, 'mood', p.mood, 'place', p.place,
    'shape', to_jsonb(ROW('x', p.note)::used.shape), 'roles', (SELECT s.roles FROM used.roles AS s WHERE s.user_id = p.id)) AS document FROM user_profile AS p;
SELECT profile_cache.attach('user_profile', document => 'used.document') \g /dev/null
CALL profile_cache.refresh();
CREATE ROLE regress_kinds;
GRANT CREATE, USAGE ON SCHEMA public TO regress_kinds;
CREATE FUNCTION does(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    before pg_catalog.int8 := (SELECT count(*) FROM profile_cache.pending_epoch);
    made pg_catalog.int8;
BEGIN
    BEGIN
        EXECUTE statement;
        made := (SELECT count(*) FROM profile_cache.pending_epoch) - before;
        RAISE SQLSTATE 'ZZZZZ';
    EXCEPTION WHEN SQLSTATE 'ZZZZZ' THEN
        RETURN CASE WHEN made > 0 THEN 'distrusts: ' ELSE 'nothing:   ' END || statement;
    END;
END $$;
\set ECHO queries
SELECT state();

-- Nothing becomes pending.
SELECT does(s) FROM unnest(ARRAY[
    'COMMENT ON TABLE user_profile IS ''x''',
    'GRANT SELECT ON user_profile TO regress_kinds',
    'ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO regress_kinds',
    'ALTER TABLE user_profile SET (autovacuum_vacuum_scale_factor = 0.1)',
    'ALTER TABLE user_profile RESET (fillfactor)',
    'ALTER TABLE user_profile ALTER email SET STATISTICS 500',
    'ALTER TABLE user_profile ALTER email SET (n_distinct = 10)',
    'ALTER TABLE user_profile ALTER email SET STORAGE EXTERNAL',
    'ALTER TABLE user_profile ALTER email SET COMPRESSION pglz',
    'ALTER TABLE user_profile CLUSTER ON user_profile_pkey',
    'ALTER TABLE user_profile SET WITHOUT CLUSTER',
    'ALTER TABLE user_profile REPLICA IDENTITY FULL',
    'ALTER TABLE user_profile SET TABLESPACE pg_default',
    'ALTER TABLE user_profile ALTER email SET DEFAULT ''x''',
    'ALTER TABLE user_profile ALTER email SET NOT NULL, ALTER email DROP DEFAULT',
    'ALTER TABLE user_profile ALTER supabase_user_id DROP NOT NULL',
    'ALTER TABLE user_profile ADD CHECK (email <> ''''), ADD CONSTRAINT later CHECK (note <> '''') NOT VALID',
    'ALTER TABLE user_profile DROP CONSTRAINT unused_check',
    'ALTER TABLE user_profile DROP CONSTRAINT twice',
    'ALTER TABLE user_profile RENAME CONSTRAINT twice TO two',
    'ALTER TABLE user_profile ADD UNIQUE (nick)',
    'ALTER TABLE user_role ADD FOREIGN KEY (role_id) REFERENCES role NOT VALID',
    'ALTER TABLE user_role DROP CONSTRAINT beside',
    'ALTER TABLE user_profile ADD COLUMN more int DEFAULT 1, ADD COLUMN again used.mood',
    'ALTER TABLE user_profile ADD COLUMN more bigint GENERATED ALWAYS AS IDENTITY',
    'ALTER TABLE user_profile ADD COLUMN more int UNIQUE REFERENCES unrelated CHECK (more > 0)',
    'ALTER TABLE user_profile DROP COLUMN unused',
    'CREATE INDEX ON user_profile (email)',
    'CREATE INDEX ON user_profile (used.shown(email))',
    'CREATE UNIQUE INDEX ON user_profile (note, email)',
    'DROP INDEX unused_index',
    'ALTER INDEX unused_index RENAME TO other_index',
    'ALTER TABLE unused_index RENAME TO other_index',
    'CREATE STATISTICS more ON email, note FROM user_profile',
    'ALTER TABLE user_profile ENABLE ROW LEVEL SECURITY',
    'CREATE POLICY p ON user_profile USING (true)',
    'CREATE TRIGGER another AFTER INSERT ON user_profile FOR EACH ROW EXECUTE FUNCTION app_trigger()',
    'ALTER TRIGGER of_the_app ON user_role RENAME TO something',
    'ALTER TABLE user_role DISABLE TRIGGER of_the_app',
    'DROP TRIGGER of_the_app ON user_role',
    'ALTER FUNCTION used.shown COST 10 PARALLEL SAFE',
    'ALTER FUNCTION used.checked COST 10',
    'CREATE OR REPLACE FUNCTION used.checked(text) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN $1 > ''''',
    'DROP TABLE unrelated',
    'ALTER TABLE unrelated DROP CONSTRAINT unrelated_user_id_fkey',
    'ALTER TABLE unrelated ALTER name TYPE varchar(10)',
    'ALTER TABLE unrelated RENAME TO related',
    'CREATE TABLE other (id int, u bigint REFERENCES user_profile, EXCLUDE (id WITH =))',
    'CREATE TABLE user_profile_copy (LIKE user_profile INCLUDING ALL)',
    'CREATE TEMP TABLE user_role (id int)',
    'CREATE TEMP VIEW v AS SELECT * FROM user_profile',
    'CREATE FUNCTION user_profile() RETURNS int LANGUAGE sql RETURN 1',
    'DROP FUNCTION user_role()',
    'DROP CAST (unrelated_type AS json)',
    'CREATE CAST (unrelated_type AS bigint) WITH INOUT',
    'DROP TYPE unrelated_type CASCADE',
    'ALTER TYPE unrelated_type RENAME VALUE ''a'' TO ''b''',
    'ALTER EXTENSION pg_trgm SET SCHEMA used',
    'DROP EXTENSION pg_trgm',
    'CREATE EXTENSION hstore',
    'CREATE OPERATOR === (FUNCTION = texteq, LEFTARG = text, RIGHTARG = text)',
    'CREATE OPERATOR FAMILY unrelated USING btree',
    'CREATE SCHEMA other CREATE TABLE role (id int)'
]) AS s;
SELECT state();

-- What may change a document, what is told of changes, or whose code is run.
SELECT does(s) FROM unnest(ARRAY[
    'ALTER TABLE role DROP COLUMN description, ADD COLUMN description text DEFAULT ''new''',
    'ALTER TABLE role DROP COLUMN description, ADD COLUMN description text UNIQUE',
    'ALTER TABLE user_profile DROP COLUMN cached_profile, ADD COLUMN cached_profile jsonb DEFAULT ''{"forged": 1}''',
    'ALTER TABLE user_profile DROP COLUMN cached_profile_valid_until, ADD COLUMN cached_profile_valid_until timestamptz',
    'ALTER INDEX role RENAME TO roles',
    'ALTER TABLE user_profile ALTER unused TYPE varchar(10)',
    'ALTER TABLE user_profile RENAME email TO mail',
    'ALTER TABLE user_profile RENAME TO people',
    'ALTER TABLE user_profile SET SCHEMA used',
    'ALTER TABLE user_profile OWNER TO regress_kinds',
    'ALTER TABLE user_profile ALTER unused TYPE text, SET (fillfactor = 90)',
    'ALTER TABLE user_profile FORCE ROW LEVEL SECURITY',
    'ALTER TABLE user_profile DISABLE TRIGGER ALL',
    'ALTER TABLE user_profile DISABLE TRIGGER USER',
    'ALTER TABLE user_profile DISABLE TRIGGER profile_cache_update',
    'ALTER TABLE user_profile ENABLE REPLICA TRIGGER profile_cache_update',
    'DROP TRIGGER profile_cache_update ON user_profile',
    'ALTER TRIGGER profile_cache_update ON user_role RENAME TO something',
    'ALTER TRIGGER of_the_app ON user_role RENAME TO profile_cache_mine',
    'CREATE TRIGGER mine AFTER INSERT ON user_role FOR EACH STATEMENT EXECUTE FUNCTION profile_cache.before_statement()',
    'ALTER TABLE user_profile DROP CONSTRAINT user_profile_supabase_user_id_key',
    'ALTER TABLE user_role DROP CONSTRAINT beside, DROP CONSTRAINT user_role_user_id_fkey',
    'ALTER TABLE user_role DROP CONSTRAINT user_role_role_id_fkey',
    'ALTER TABLE role DROP COLUMN description',
    'ALTER TABLE role ADD COLUMN more int',
    'ALTER TABLE used.shape ADD COLUMN c text',
    'ALTER TABLE used.shape DROP COLUMN b',
    'ALTER TYPE used.point ADD ATTRIBUTE z int',
    'ALTER TYPE used.mood RENAME VALUE ''good'' TO ''fine''',
    'CREATE TABLE heir () INHERITS (role)',
    'CREATE TABLE base (id bigint NOT NULL); ALTER TABLE role INHERIT base',
    'CREATE TABLE heir (LIKE role); ALTER TABLE heir INHERIT role',
    'CREATE TABLE whole (LIKE role) PARTITION BY RANGE (id); ALTER TABLE whole ATTACH PARTITION role DEFAULT',
    'CREATE OR REPLACE FUNCTION used.shown(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN lower($1)',
    'ALTER FUNCTION used.shown STABLE',
    'ALTER FUNCTION used.shown COST 10 VOLATILE',
    'ALTER FUNCTION used.shown OWNER TO regress_kinds',
    'ALTER FUNCTION used.checked OWNER TO regress_kinds',
    'CREATE OR REPLACE VIEW used.document AS SELECT p.supabase_user_id, jsonb_build_object() AS document FROM user_profile AS p',
    'CREATE OR REPLACE VIEW used.roles AS SELECT ur.user_id, jsonb_agg(ur.id ORDER BY ur.id) AS roles FROM user_role AS ur GROUP BY 1',
    'ALTER VIEW used.document SET (security_barrier = true)',
    'ALTER VIEW used.roles OWNER TO regress_kinds',
    'ALTER VIEW used.roles RENAME TO others',
    'CREATE RULE r AS ON INSERT TO role DO ALSO NOTHING',
    'CREATE FUNCTION told(used.mood) RETURNS json LANGUAGE sql IMMUTABLE RETURN ''1''::json; CREATE CAST (used.mood AS json) WITH FUNCTION told(used.mood)',
    'CREATE FUNCTION cmp(used.mood, used.mood) RETURNS int LANGUAGE sql IMMUTABLE RETURN 0; CREATE OPERATOR CLASS mine DEFAULT FOR TYPE used.mood USING hash AS FUNCTION 1 pg_catalog.hashenum(anyenum)',
    'ALTER SCHEMA used RENAME TO moved',
    'ALTER EXTENSION citext SET SCHEMA used',
    'ALTER EXTENSION citext DROP FUNCTION citext_eq(citext, citext)',
    'ALTER TEXT SEARCH DICTIONARY pg_catalog.simple (STOPWORDS)'
]) AS s;
SELECT state();

-- A table that is a partition for a while: what comes by way of the other, fires no trigger of it.
CREATE TABLE whole (LIKE user_role) PARTITION BY RANGE (id);
ALTER TABLE whole ATTACH PARTITION user_role DEFAULT;
CALL profile_cache.refresh();
INSERT INTO whole VALUES (500, 1, 2);
ALTER TABLE whole DETACH PARTITION user_role;
SELECT state();
SELECT count(*) FROM profile_cache.verify();
CALL profile_cache.refresh();
SELECT state();
DROP TABLE whole;

-- Between what has no number yet and refresh: everything is there, and counted by its own database only.
SELECT classid::regclass, count(*) > 0 FROM profile_cache.reached GROUP BY 1 ORDER BY 1;
SELECT count(DISTINCT server) FROM profile_cache.reached;
-- As after pg_upgrade, or in a restored database: of another cluster, or none at all.
UPDATE profile_cache.reached SET server = 1;
COMMENT ON TABLE user_profile IS 'again';
CREATE FUNCTION harmless() RETURNS int LANGUAGE sql RETURN 1;
SELECT * FROM pending();
SELECT count(DISTINCT server), min(server) > 1 FROM profile_cache.reached;
DELETE FROM profile_cache.reached;
CALL profile_cache.refresh();
SELECT count(*) > 0 FROM profile_cache.reached;
SELECT state();
SELECT * FROM pending();
DELETE FROM profile_cache.reached;
CREATE OR REPLACE FUNCTION used.shown(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN lower($1);
SELECT * FROM pending();
CALL profile_cache.refresh();
DELETE FROM profile_cache.reached;
ALTER TABLE used.shape ADD COLUMN c text;
SELECT * FROM pending();
CALL profile_cache.refresh();
SELECT state();
SELECT count(*) FROM profile_cache.verify();
DELETE FROM profile_cache.reached;
DROP TABLE unrelated;
SELECT * FROM pending();
CALL profile_cache.refresh();
-- The database has got another number.
UPDATE profile_cache.reached SET objid = 1 WHERE classid = 'pg_database'::regclass;
DROP FUNCTION harmless();
SELECT * FROM pending();
CALL profile_cache.refresh();
SELECT count(*) FROM profile_cache.verify();
-- What nobody has looked at in another cluster names objects by their numbers there, and DDL that concerns nobody comes
-- before refresh: it is looked at all the same.
INSERT INTO profile_cache.pending_epoch (redefined, apply, reason, about) VALUES (true, false, 'DDL', '{1}');
UPDATE profile_cache.reached SET server = 1;
CREATE FUNCTION harmless() RETURNS int LANGUAGE sql RETURN 1;
CREATE TEMP TABLE before AS SELECT current FROM profile_cache.epoch;
CALL profile_cache.refresh();
SELECT e.current > b.current AS numbered FROM profile_cache.epoch AS e, before AS b;
-- By the numbers of this one it is known not to concern the document.
INSERT INTO profile_cache.pending_epoch (redefined, apply, reason, about) VALUES (true, false, 'DDL', '{1}');
DROP FUNCTION harmless();
UPDATE before SET current = e.current FROM profile_cache.epoch AS e;
CALL profile_cache.refresh();
SELECT e.current > b.current AS numbered FROM profile_cache.epoch AS e, before AS b;
SELECT * FROM pending();
-- One of our columns in the place of another, in two transactions.
ALTER TABLE user_profile DROP COLUMN cached_profile;
SELECT * FROM pending();
ALTER TABLE user_profile ADD COLUMN cached_profile jsonb DEFAULT '{"forged": 1}';
SELECT state();
SELECT count(*) FROM profile_cache.verify();
CALL profile_cache.refresh();
SELECT state();
SELECT count(*) FROM user_profile AS p JOIN used.document AS d USING (supabase_user_id) WHERE d.document IS DISTINCT FROM get_profile(p.supabase_user_id);
-- What goes with a session is no part of a document.
CREATE FUNCTION pg_temp.shown(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN upper($1);
CREATE VIEW used.passing AS SELECT p.supabase_user_id, jsonb_build_object('email', pg_temp.shown(p.email)) AS document FROM user_profile AS p;
SELECT profile_cache.attach('user_profile', document => 'used.passing');
SELECT profile_cache.detach();
SELECT count(*) FROM profile_cache.reached;
\set ECHO none
DROP OWNED BY regress_kinds;
DROP ROLE regress_kinds;
