-- As whom code runs: what a role leaves in a session (temporary types, functions, operators) never runs with
-- another role's rights by way of us, whoever reads, writes, attaches or refreshes in it and whatever is pending; and
-- what the tables' owner has put into a view, an index, a constraint or a type runs as nobody but him.
\set ECHO none
\i include/output.sql
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE ROLE regress_whom_app;
CREATE ROLE regress_whom_dbo IN ROLE regress_whom_app;
CREATE ROLE regress_whom_web;
CREATE ROLE regress_whom_old;
SELECT format('ALTER DATABASE %I OWNER TO regress_whom_dbo', current_database()) \gexec
SELECT format('GRANT TEMP ON DATABASE %I TO regress_whom_web', current_database()) \gexec
CREATE SCHEMA ext;
GRANT USAGE ON SCHEMA ext TO PUBLIC;
CREATE EXTENSION citext SCHEMA ext;
SET ROLE regress_whom_dbo;
CREATE EXTENSION profile_cache;
RESET ROLE;

-- 1. Temporary types and functions, where keys of these types are pending.
\set type pg_catalog.uuid
\i include/as_whom.sql
\set type pg_catalog.text
\i include/as_whom.sql
\set type pg_catalog.name
\i include/as_whom.sql
\set type ext.citext
\i include/as_whom.sql

-- What follows is the owner's own code. It leaves a mark that no rollback takes away: a session's lock named after
-- whoever it runs as. spied(): whom it has run as, but for its owner.
\c -
SET client_min_messages = warning;
SET search_path = app, public;
CREATE FUNCTION public.spied() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(0);
    RETURN 'ran as: ' || coalesce((SELECT string_agg(DISTINCT r.rolname, ', ') FROM pg_locks AS l JOIN pg_roles AS r ON r.oid = l.objid
        WHERE l.locktype = 'advisory' AND l.pid = pg_backend_pid() AND r.rolname <> 'regress_whom_app'), 'nobody else');
END $$;
CREATE FUNCTION public.spy(t text) RETURNS text LANGUAGE sql IMMUTABLE
    RETURN CASE WHEN pg_catalog.pg_try_advisory_lock_shared(current_user::text::regrole::oid::bigint) IS NULL THEN NULL ELSE t END;
CREATE FUNCTION public.attempt(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'went through';
EXCEPTION WHEN OTHERS THEN
    RETURN 'refused';
END $$;
-- The tables of one section.
CREATE PROCEDURE public.begin_anew() LANGUAGE plpgsql AS $$
BEGIN
    DROP SCHEMA IF EXISTS app CASCADE;
    CREATE SCHEMA app AUTHORIZATION regress_whom_app;
    GRANT USAGE ON SCHEMA app TO regress_whom_web, regress_whom_dbo;
    GRANT USAGE, CREATE ON SCHEMA app TO regress_whom_old;
    SET LOCAL ROLE regress_whom_app;
    CREATE TABLE app.person (id int PRIMARY KEY, uid uuid NOT NULL UNIQUE, email text) WITH (fillfactor = 100);
    CREATE TABLE app.badge (id int PRIMARY KEY, person int REFERENCES app.person, label text);
    CREATE INDEX ON app.badge (person);
    INSERT INTO app.person SELECT n, lpad(n::text, 32, '0')::uuid, n FROM generate_series(1, 300) AS n;
    INSERT INTO app.badge SELECT n, n, 'b' || n FROM generate_series(1, 300) AS n;
    GRANT SELECT, UPDATE (email) ON app.person TO regress_whom_web;
    CREATE VIEW app.document AS SELECT p.uid, jsonb_build_object('email', p.email,
        'badges', (SELECT jsonb_agg(b.label ORDER BY b.id) FROM app.badge AS b WHERE b.person = p.id)) AS document FROM app.person AS p;
END $$;
\set attach 'SELECT attempt($$SELECT profile_cache.attach(\'app.person\', \'uid\', \'app.document\')$$);'
\set refresh 'CALL profile_cache.refresh();'
\set read 'SELECT attempt($$SELECT get_profile(\'00000000-0000-0000-0000-000000000001\')$$);'
\set stale 'SELECT count(*) AS stale FROM app.person AS p JOIN app.document AS d USING (uid) WHERE get_profile(p.uid)::text IS DISTINCT FROM d.document::text;'
\set ECHO all

-- 2. A procedural function is compiled for whoever calls it first: not in a view. Nor is a body that is a string.
CALL begin_anew();
SET ROLE regress_whom_app;
CREATE FUNCTION app.shown(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ DECLARE r text := t; BEGIN RETURN upper(r); END $$;
CREATE OR REPLACE VIEW app.document AS SELECT p.uid, jsonb_build_object('email', app.shown(p.email)) AS document FROM app.person AS p;
SET ROLE regress_whom_dbo;
:attach
SET ROLE regress_whom_app;
CREATE OR REPLACE FUNCTION app.shown(t text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper(t)';
SET ROLE regress_whom_dbo;
:attach
SET ROLE regress_whom_app;
CREATE OR REPLACE FUNCTION app.shown(t text) RETURNS text LANGUAGE sql IMMUTABLE RETURN upper(t);
SET ROLE regress_whom_dbo;
:attach
:refresh
:read
-- Nor what such a function calls, an aggregate's, an operator's, a cast's or a domain's.
SET ROLE regress_whom_app;
CREATE FUNCTION app.deep(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ DECLARE r text := t; BEGIN RETURN upper(r); END $$;
CREATE OR REPLACE FUNCTION app.shown(t text) RETURNS text LANGUAGE sql IMMUTABLE RETURN app.deep(t);
SET ROLE regress_whom_dbo;
:read
:attach
SET ROLE regress_whom_app;
CREATE OR REPLACE FUNCTION app.shown(t text) RETURNS text LANGUAGE sql IMMUTABLE RETURN upper(t);
CREATE FUNCTION app.step(text, text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ DECLARE r text := $2; BEGIN RETURN concat($1, r); END $$;
CREATE AGGREGATE app.joined(text) (SFUNC = app.step, STYPE = text);
CREATE OR REPLACE VIEW app.document AS SELECT p.uid, jsonb_build_object('badges', (SELECT app.joined(b.label ORDER BY b.id) FROM app.badge AS b WHERE b.person = p.id)) AS document FROM app.person AS p;
SET ROLE regress_whom_dbo;
:attach
SET ROLE regress_whom_app;
CREATE FUNCTION app.same(text, text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ DECLARE r text := $2; BEGIN RETURN $1 = r; END $$;
CREATE OPERATOR app.=== (FUNCTION = app.same, LEFTARG = text, RIGHTARG = text);
CREATE OR REPLACE VIEW app.document AS SELECT p.uid, jsonb_build_object('one', p.email OPERATOR(app.===) '1') AS document FROM app.person AS p;
SET ROLE regress_whom_dbo;
:attach
SET ROLE regress_whom_app;
CREATE FUNCTION app.fine(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ DECLARE r text := $1; BEGIN RETURN r <> ''; END $$;
CREATE DOMAIN app.mail AS text CHECK (app.fine(value));
CREATE OR REPLACE VIEW app.document AS SELECT p.uid, jsonb_build_object('mail', p.email::app.mail) AS document FROM app.person AS p;
SET ROLE regress_whom_dbo;
:attach
SET ROLE regress_whom_app;
CREATE TYPE app.standing AS ENUM ('good', 'bad');
ALTER TABLE app.person ADD COLUMN standing app.standing DEFAULT 'good';
CREATE FUNCTION app.told(app.standing) RETURNS json LANGUAGE plpgsql IMMUTABLE AS $$ DECLARE r text := $1; BEGIN RETURN to_json(r); END $$;
CREATE CAST (app.standing AS json) WITH FUNCTION app.told(app.standing);
CREATE OR REPLACE VIEW app.document AS SELECT p.uid, jsonb_build_object('standing', p.standing) AS document FROM app.person AS p;
SET ROLE regress_whom_dbo;
:attach
-- Replaced behind an attachment that uses it: nothing that another role has had compiled is run as the owner.
SELECT profile_cache.detach();
RESET ROLE;
CALL begin_anew();
SET ROLE regress_whom_app;
CREATE FUNCTION app.shown(t text) RETURNS text LANGUAGE sql IMMUTABLE RETURN upper(t);
CREATE OR REPLACE VIEW app.document AS SELECT p.uid, jsonb_build_object('email', app.shown(p.email)) AS document FROM app.person AS p;
SET ROLE regress_whom_dbo;
:attach
:refresh
SET ROLE regress_whom_app;
CREATE OR REPLACE FUNCTION app.shown(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ DECLARE r text := t; BEGIN RETURN upper(r); END $$;
SET ROLE regress_whom_web;
CREATE FUNCTION pg_temp.evil(pg_catalog.text) RETURNS pg_catalog.bool LANGUAGE sql AS $$ SELECT public.spy($1) IS NOT NULL $$;
CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (current_user OPERATOR(pg_catalog.=) 'regress_whom_web' OR pg_temp.evil(value));
SELECT app.shown('x'::pg_catalog.text);
:read
UPDATE app.person SET email = 'by web' WHERE id OPERATOR(pg_catalog.=) 1;
:read
RESET ROLE;
SELECT count(*) AS "web's code as the owner" FROM pg_locks WHERE locktype = 'advisory';
SELECT pg_advisory_unlock_all();
DISCARD TEMP;

-- 4. Refresh runs the owner's code as the owner: index expressions, predicates that are folded while planning, what a
-- deferrable exclusion constraint looks at when refresh commits.
SET ROLE regress_whom_dbo;
SELECT profile_cache.detach();
RESET ROLE;
CALL begin_anew();
SET ROLE regress_whom_app;
CREATE INDEX ON app.person (public.spy(email));
CREATE INDEX ON app.person (id) WHERE public.spy('x') = 'x';
CREATE INDEX ON app.person (id) WHERE public.spy(email) <> 'x';
ALTER TABLE app.person ADD CONSTRAINT excluded EXCLUDE USING btree ((public.spy(email)) WITH =) DEFERRABLE INITIALLY DEFERRED;
SET ROLE regress_whom_dbo;
:attach
:refresh
SELECT profile_cache.invalidate('00000000-0000-0000-0000-000000000001');
:refresh
SELECT profile_cache.invalidate_all();
CALL profile_cache.refresh(100);
SELECT count(*) FROM profile_cache.verify();
SELECT profile, warnings FROM profile_cache.status;
SELECT count(*) FROM profile_cache.health();
SELECT get_profile('00000000-0000-0000-0000-000000000001') ->> 'email';
SELECT profile_cache.explain('00000000-0000-0000-0000-000000000001') IS NOT NULL;
RESET ROLE;
SELECT spied();
SELECT pg_advisory_unlock_all();
-- Neither at a write of web's: what it did not change itself is not looked at with its rights.
SET ROLE regress_whom_app;
INSERT INTO app.badge VALUES (1001, 1, 'more');
GRANT INSERT ON app.badge TO regress_whom_web;
SET ROLE regress_whom_web;
INSERT INTO app.badge VALUES (1002, 2, 'more');
RESET ROLE;
SELECT spied();
SELECT pg_advisory_unlock_all();
SET ROLE regress_whom_app;
:stale
-- The same by a procedural function, which is not run at all.
RESET ROLE;
CREATE OR REPLACE FUNCTION public.spy(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN CASE WHEN pg_catalog.pg_try_advisory_lock_shared(current_user::text::regrole::oid::bigint) IS NULL THEN NULL ELSE t END;
END $$;
SET ROLE regress_whom_dbo;
SELECT profile_cache.invalidate_all();
:refresh
CALL profile_cache.refresh(100);
SELECT get_profile('00000000-0000-0000-0000-000000000001') ->> 'email';
SET ROLE regress_whom_web;
INSERT INTO app.badge VALUES (1003, 3, 'more');
RESET ROLE;
SELECT spied();
SELECT pg_advisory_unlock_all();
SET ROLE regress_whom_app;
:stale

-- 5. What belongs to another role by now is run no more, and reads say so.
SET ROLE regress_whom_dbo;
SELECT profile_cache.detach();
RESET ROLE;
CALL begin_anew();
GRANT SELECT ON ALL TABLES IN SCHEMA app TO regress_whom_old;
SET ROLE regress_whom_dbo;
:attach
:refresh
RESET ROLE;
-- The view has been left to another.
ALTER VIEW app.document OWNER TO regress_whom_old;
SET ROLE regress_whom_old;
CREATE OR REPLACE VIEW app.document AS SELECT p.uid, jsonb_build_object('email', public.spy(p.email)) AS document FROM app.person AS p;
GRANT SELECT ON app.document TO PUBLIC;
SELECT pg_advisory_unlock_all();
SET ROLE regress_whom_web;
:read
UPDATE app.person SET email = 'by web' WHERE id = 1;
SET ROLE regress_whom_dbo;
SELECT attempt('SELECT * FROM profile_cache.verify()');
SELECT attempt($$SELECT * FROM profile_cache.refresh_step(100, 'fill', NULL)$$) \g /dev/null
SELECT attempt('SELECT * FROM profile_cache.status');
SELECT attempt('SELECT * FROM profile_cache.health()');
:attach
RESET ROLE;
SELECT count(*) AS "another's code as the owner" FROM pg_locks WHERE locktype = 'advisory';
SELECT pg_advisory_unlock_all();
-- And given back: served again.
ALTER VIEW app.document OWNER TO regress_whom_app;
SET ROLE regress_whom_app;
CREATE OR REPLACE VIEW app.document AS SELECT p.uid, jsonb_build_object('email', p.email) AS document FROM app.person AS p;
SET ROLE regress_whom_dbo;
:attach
:refresh
:read
-- The tables' owner has changed, the view has been left behind.
SET ROLE regress_whom_app;
GRANT SELECT ON app.document TO PUBLIC;
RESET ROLE;
ALTER TABLE app.person OWNER TO regress_whom_old;
ALTER TABLE app.badge OWNER TO regress_whom_old;
GRANT SELECT ON app.person, app.badge TO regress_whom_app;
SET ROLE regress_whom_app;
CREATE OR REPLACE VIEW app.document AS SELECT p.uid, jsonb_build_object('email', public.spy(p.email)) AS document FROM app.person AS p;
SET ROLE regress_whom_web;
:read
RESET ROLE;
SELECT count(*) AS "another's code as the owner" FROM pg_locks WHERE locktype = 'advisory';
SELECT pg_advisory_unlock_all();
SET ROLE regress_whom_app;
CREATE OR REPLACE VIEW app.document AS SELECT p.uid, jsonb_build_object('email', p.email) AS document FROM app.person AS p;
RESET ROLE;
ALTER TABLE app.person OWNER TO regress_whom_app;
ALTER TABLE app.badge OWNER TO regress_whom_app;
-- A type, of whose values another role later says how they are printed.
SET ROLE regress_whom_old;
CREATE TYPE app.mood AS ENUM ('merry', 'sad');
CREATE FUNCTION app.told(app.mood) RETURNS json LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    PERFORM pg_catalog.pg_try_advisory_lock_shared(current_user::text::regrole::oid::bigint);
    RETURN '"told"';
END $$;
SET ROLE regress_whom_app;
ALTER TABLE app.person ADD COLUMN mood app.mood DEFAULT 'merry';
CREATE OR REPLACE VIEW app.document AS SELECT p.uid, jsonb_build_object('mood', p.mood) AS document FROM app.person AS p;
SET ROLE regress_whom_dbo;
:attach
SET ROLE regress_whom_old;
CREATE CAST (app.mood AS json) WITH FUNCTION app.told(app.mood);
SET ROLE regress_whom_web;
:read
RESET ROLE;
SELECT count(*) AS "another's code as the owner" FROM pg_locks WHERE locktype = 'advisory';
SELECT pg_advisory_unlock_all();
-- The same of a type that was the owner's when it was attached.
DROP CAST (app.mood AS json);
ALTER TYPE app.mood OWNER TO regress_whom_app;
SET ROLE regress_whom_dbo;
:attach
:refresh
:read
RESET ROLE;
ALTER TYPE app.mood OWNER TO regress_whom_old;
SET ROLE regress_whom_old;
CREATE CAST (app.mood AS json) WITH FUNCTION app.told(app.mood);
SET ROLE regress_whom_web;
:read
UPDATE app.person SET email = 'again' WHERE id = 1;
SET ROLE regress_whom_dbo;
SELECT attempt($$SELECT * FROM profile_cache.refresh_step(100, 'fill', NULL)$$) \g /dev/null
SELECT attempt('SELECT * FROM profile_cache.verify()');
SELECT attempt('SELECT * FROM profile_cache.status');
SELECT attempt('SELECT * FROM profile_cache.health()');
RESET ROLE;
SELECT count(*) AS "another's code as the owner" FROM pg_locks WHERE locktype = 'advisory';
SELECT pg_advisory_unlock_all();

\set ECHO none
SET ROLE regress_whom_dbo;
SELECT profile_cache.detach() \g /dev/null
DROP EXTENSION profile_cache;
RESET ROLE;
DROP SCHEMA app CASCADE;
DROP OWNED BY regress_whom_app, regress_whom_dbo, regress_whom_web, regress_whom_old;
SELECT format('ALTER DATABASE %I OWNER TO %I', current_database(), current_user) \gexec
DROP ROLE regress_whom_app, regress_whom_dbo, regress_whom_web, regress_whom_old;
