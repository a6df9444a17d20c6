-- Code that reading the document view comes to reach after attach(), or behind what PostgreSQL puts in a function's
-- place: it is found before it is run. And a role that may only make temporary objects disturbs nobody.
\set ECHO none
\i include/output.sql
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE ROLE regress_later_app;
CREATE ROLE regress_later_web;
CREATE ROLE regress_later_anon;
CREATE SCHEMA o AUTHORIZATION regress_later_app;
GRANT USAGE ON SCHEMA o TO PUBLIC;
SELECT format('GRANT CREATE ON DATABASE %I TO regress_later_app', current_database()) \gexec
SET ROLE regress_later_app;
CREATE EXTENSION profile_cache SCHEMA o;
CREATE TABLE o.person (id int PRIMARY KEY, uid uuid NOT NULL UNIQUE, name text);
CREATE TABLE o.item (id int PRIMARY KEY, person_id int REFERENCES o.person, label text);
CREATE INDEX ON o.item (person_id);
INSERT INTO o.person SELECT n, lpad(n::text, 32, '0')::uuid, 'p' || n FROM generate_series(1, 3) AS n;
INSERT INTO o.item SELECT n, n, 'i' || n FROM generate_series(1, 3) AS n;
CREATE VIEW o.document AS SELECT p.uid, jsonb_build_object('name', p.name,
    'items', (SELECT jsonb_agg(i.label ORDER BY i.id) FROM o.item AS i WHERE i.person_id = p.id)) AS document FROM o.person AS p;
GRANT SELECT ON o.person TO regress_later_web;
GRANT SELECT, INSERT ON o.item TO regress_later_web;
CREATE FUNCTION o.deflt(x text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ DECLARE t text; BEGIN t := x; RETURN t; END $$;
CREATE FUNCTION o.differs(x text, y text) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN x <> o.deflt(y);
CREATE FUNCTION o.in_a_string(x text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT x <> 'c' $$;
CREATE FUNCTION o.parsed(x text) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN x <> 'c';
SELECT profile_cache.attach('o.person', 'uid', 'o.document');
CALL profile_cache.refresh();
RESET ROLE;
-- web's type shadows a built-in one wherever its session compiles a name: what then runs is web's.
SET ROLE regress_later_web;
CREATE FUNCTION pg_temp.evil(t pg_catalog.text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
    IF current_user <> 'regress_later_web' THEN RAISE WARNING 'web''s code as %', current_user; END IF; RETURN true; END $$;
CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (pg_temp.evil(value));
SELECT o.deflt('x') \g /dev/null
RESET ROLE;
CREATE FUNCTION attempt(statement pg_catalog.text) RETURNS pg_catalog.text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'went through';
EXCEPTION WHEN insufficient_privilege THEN
    RETURN SQLERRM;
END $$;
\set read 'SET client_min_messages = warning; SET ROLE regress_later_web; SET profile_cache.enabled = off; SELECT attempt($$SELECT o.get_profile(\'00000000-0000-0000-0000-000000000001\')$$); RESET profile_cache.enabled; INSERT INTO o.item SELECT max(id) + 1, 1, \'more\' FROM o.item; SELECT attempt($$SELECT o.get_profile(\'00000000-0000-0000-0000-000000000001\')$$); RESET ROLE;'
-- (What app's own DDL runs in that session is PostgreSQL's business.)
\set app 'SET client_min_messages = error; SET ROLE regress_later_app;'
\set ECHO all

:read
-- A predicate that is folded while planning.
:app
CREATE INDEX late ON o.item (person_id) WHERE label = o.deflt('secret');
:read
:app
DROP INDEX o.late;
:read
-- The same, made while no event trigger tells of it.
ALTER EVENT TRIGGER profile_cache_ddl DISABLE;
:app
CREATE INDEX late ON o.item (person_id) WHERE label = o.deflt('secret');
RESET ROLE;
ALTER EVENT TRIGGER profile_cache_ddl ENABLE ALWAYS;
:read
:app
DROP INDEX o.late;
:read
-- Statistics.
:app
CREATE STATISTICS o.late ON (label || o.deflt('q')) FROM o.item;
:read
:app
DROP STATISTICS o.late;
-- A CHECK.
:app
ALTER TABLE o.item ADD CONSTRAINT late CHECK (label <> o.deflt('q')) NOT VALID;
:read
:app
ALTER TABLE o.item DROP CONSTRAINT late;
-- Behind a function that is put in its place, with columns among its arguments; and one whose body is a string.
CREATE INDEX late ON o.item (person_id) WHERE o.differs(label, 'secret');
:read
:app
DROP INDEX o.late;
CREATE INDEX late ON o.item (person_id) WHERE o.in_a_string(label);
:read
:app
SELECT profile_cache.attach('o.person', 'uid', 'o.document');
DROP INDEX o.late;
-- One that is parsed is fine.
CREATE INDEX late ON o.item (person_id) WHERE o.parsed(label);
SELECT profile_cache.attach('o.person', 'uid', 'o.document');
CALL profile_cache.refresh();
:read
:app
DROP INDEX o.late;
CALL profile_cache.refresh();
RESET ROLE;
DISCARD TEMP;
SET client_min_messages = warning;

-- An event trigger of others that DDL of ours fires does not run as a superuser.
CREATE FUNCTION public.told() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
    IF (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user) THEN RAISE WARNING '% as a superuser', tg_tag; END IF; END $$;
CREATE EVENT TRIGGER regress_told ON ddl_command_end EXECUTE FUNCTION public.told();
SET ROLE regress_later_app;
SELECT profile_cache.detach(false);
SELECT profile_cache.attach('o.person', 'uid', 'o.document');
CALL profile_cache.refresh();
RESET ROLE;
DROP EVENT TRIGGER regress_told;
DROP FUNCTION public.told();

-- Temporary objects of a role that may do no more.
SET ROLE regress_later_anon;
CREATE TYPE pg_temp.c AS ENUM ('a');
CREATE CAST (pg_temp.c AS int4) WITH INOUT;
DROP CAST (pg_temp.c AS int4);
CREATE FUNCTION pg_temp.eq(int, int) RETURNS bool LANGUAGE sql RETURN true;
CREATE OPERATOR pg_temp.=== (FUNCTION = pg_temp.eq, LEFTARG = int, RIGHTARG = int);
ALTER OPERATOR pg_temp.=== (int, int) SET (RESTRICT = NONE);
CREATE FUNCTION pg_temp.told(pg_temp.c) RETURNS json LANGUAGE sql IMMUTABLE RETURN '1'::json;
CREATE CAST (pg_temp.c AS json) WITH FUNCTION pg_temp.told(pg_temp.c);
DROP CAST (pg_temp.c AS json);
BEGIN;
CREATE TEMP VIEW v AS SELECT 1 AS one;
CREATE OPERATOR pg_temp.==== (FUNCTION = pg_temp.eq, LEFTARG = int, RIGHTARG = int);
SELECT count(*) AS locks FROM pg_locks WHERE relation = 'profile_cache.attachment'::regclass AND mode = 'RowExclusiveLock';
COMMIT;
RESET ROLE;
SELECT kind, reason FROM profile_cache.pending;

\set ECHO none
SET ROLE regress_later_app;
SELECT profile_cache.detach() \g /dev/null
DROP EXTENSION profile_cache CASCADE;
RESET ROLE;
DISCARD TEMP;
DROP SCHEMA o CASCADE;
DROP OWNED BY regress_later_app, regress_later_web, regress_later_anon CASCADE;
DROP ROLE regress_later_app, regress_later_web, regress_later_anon;
