-- Nobody has more of ours than the script grants, whatever default privileges give away of new objects; who owns the
-- extension has it whoever had it before; only a superuser says what becomes of everybody's reads; and a schema that
-- only has our name is not ours.
\set ECHO none
\i include/output.sql
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE ROLE regress_given_app;
CREATE ROLE regress_given_dbo IN ROLE regress_given_app;
CREATE ROLE regress_given_next IN ROLE regress_given_app;
CREATE ROLE regress_given_web;
CREATE ROLE regress_given_tables;
-- As an installation script of some platform may have it, for whoever may run CREATE EXTENSION.
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %s GRANT ALL ON %s TO regress_given_web, PUBLIC', r, k)
FROM unnest(ARRAY['regress_given_dbo', current_user]) AS r, unnest('{TABLES,SEQUENCES,FUNCTIONS,TYPES,SCHEMAS}'::text[]) AS k \gexec
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %s GRANT ALL ON %s TO regress_given_web WITH GRANT OPTION', r, k)
FROM unnest(ARRAY['regress_given_dbo', current_user]) AS r, unnest('{TABLES,SEQUENCES,FUNCTIONS,TYPES,SCHEMAS}'::text[]) AS k \gexec
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %s GRANT ALL ON TABLES TO regress_given_tables', r)
FROM unnest(ARRAY['regress_given_dbo', current_user]) AS r \gexec
SELECT format('ALTER DATABASE %I OWNER TO regress_given_dbo', current_database()) \gexec
SET ROLE regress_given_dbo;
CREATE EXTENSION profile_cache;
RESET ROLE;
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %s REVOKE ALL ON %s FROM regress_given_web, PUBLIC', r, k)
FROM unnest(ARRAY['regress_given_dbo', current_user]) AS r, unnest('{TABLES,SEQUENCES,FUNCTIONS,TYPES,SCHEMAS}'::text[]) AS k \gexec
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %s REVOKE ALL ON TABLES FROM regress_given_tables', r)
FROM unnest(ARRAY['regress_given_dbo', current_user]) AS r \gexec
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %s GRANT EXECUTE ON FUNCTIONS TO PUBLIC', r)
FROM unnest(ARRAY['regress_given_dbo', current_user]) AS r \gexec
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %s GRANT USAGE ON TYPES TO PUBLIC', r)
FROM unnest(ARRAY['regress_given_dbo', current_user]) AS r \gexec
CREATE FUNCTION u(n integer) RETURNS uuid LANGUAGE sql IMMUTABLE RETURN pg_catalog.lpad(n::text, 32, '0')::uuid;
CREATE FUNCTION attempt(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'went through';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;
-- given(role): the privileges that a role has on what the extension has brought. (That types and views' row types may be
-- used is of no use to anybody without the rest, and is not listed: one could make a column of such a type.)
CREATE FUNCTION given(who name) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT 'schema ' || n.nspname || ': ' || p || CASE WHEN has_schema_privilege(who, n.oid, p || ' WITH GRANT OPTION') THEN ', may grant it' ELSE '' END
    FROM pg_namespace AS n, unnest('{CREATE,USAGE}'::text[]) AS p WHERE n.nspname = 'profile_cache' AND has_schema_privilege(who, n.oid, p)
    UNION ALL
    SELECT 'relation ' || c.relname || ': ' || p || CASE WHEN has_table_privilege(who, c.oid, p || ' WITH GRANT OPTION') THEN ', may grant it' ELSE '' END
    FROM pg_class AS c, unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) AS p
    WHERE c.relnamespace = 'profile_cache'::regnamespace AND c.relkind IN ('r', 'v', 'p', 'm', 'f') AND (has_table_privilege(who, c.oid, p)
        OR p IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES') AND has_any_column_privilege(who, c.oid, p))
    UNION ALL
    SELECT 'sequence ' || c.relname || ': ' || p FROM pg_class AS c, unnest('{USAGE,SELECT,UPDATE}'::text[]) AS p
    WHERE c.relnamespace = 'profile_cache'::regnamespace AND c.relkind = 'S' AND has_sequence_privilege(who, c.oid, p)
    UNION ALL
    SELECT 'function ' || f.oid::regprocedure || CASE WHEN has_function_privilege(who, f.oid, 'EXECUTE WITH GRANT OPTION') THEN ', may grant it' ELSE '' END
    FROM pg_proc AS f JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = f.oid AND d.deptype = 'e'
        AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'profile_cache') WHERE has_function_privilege(who, f.oid, 'EXECUTE')
    ORDER BY 1
$$;
\set ECHO all

-- 7. What default privileges gave away.
SELECT given('regress_given_web');
SELECT given('regress_given_tables') EXCEPT SELECT given('regress_given_web');
SELECT g FROM given('regress_given_dbo') AS g WHERE g !~ '^relation .*: SELECT$';
-- Whoever could write the attachment had what he wrote run as the tables' owner, and whoever could put a trigger on
-- our tables had it run as theirs.
\set ECHO none
CREATE SCHEMA app AUTHORIZATION regress_given_app;
GRANT USAGE ON SCHEMA app TO PUBLIC;
SET ROLE regress_given_app;
CREATE TABLE app.person (id int PRIMARY KEY, uid uuid NOT NULL UNIQUE, email text);
CREATE TABLE app.badge (id int PRIMARY KEY, person int REFERENCES app.person, label text);
CREATE INDEX ON app.badge (person);
INSERT INTO app.person SELECT n, public.u(n), 'mail ' || n FROM generate_series(1, 5) AS n;
INSERT INTO app.badge SELECT n, n, 'b' || n FROM generate_series(1, 5) AS n;
CREATE VIEW app.document AS SELECT p.uid, jsonb_build_object('email', p.email,
    'badges', (SELECT jsonb_agg(b.label ORDER BY b.id) FROM app.badge AS b WHERE b.person = p.id)) AS document FROM app.person AS p;
GRANT SELECT, UPDATE (email) ON app.person TO regress_given_web;
SET ROLE regress_given_dbo;
SELECT profile_cache.attach('app.person', 'uid', 'app.document') \g /dev/null
CALL profile_cache.refresh();
\set ECHO all
SELECT given('regress_given_web');
SELECT g FROM given('regress_given_dbo') AS g WHERE g !~ '^relation .*: SELECT$';
SET ROLE regress_given_web;
SELECT attempt('UPDATE profile_cache.attachment SET problem = NULL');
SELECT attempt('DELETE FROM profile_cache.failure');
SELECT attempt('TRUNCATE profile_cache.epoch_progress');
SELECT attempt('CREATE TABLE profile_cache.mine (id int)');
CREATE FUNCTION pg_temp.trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
SELECT attempt('CREATE TRIGGER t BEFORE INSERT ON profile_cache.epoch_progress FOR EACH ROW EXECUTE FUNCTION pg_temp.trap()');
SELECT attempt('SELECT profile_cache.attach(''app.person'', ''uid'', ''app.document'')');
RESET ROLE;
-- What the definition holds is data, were it written all the same (by a superuser's restore of another's dump): none of
-- its names, types and operators becomes a piece of SQL, and writes go through.
CREATE FUNCTION evil() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'the definition ran as %', current_user; RETURN 1; END $$;
CREATE PROCEDURE corrupt(what text, into_what text) LANGUAGE sql
BEGIN ATOMIC
    UPDATE profile_cache.attachment SET definition = replace(definition::text, to_json(what)::text, to_json(into_what)::text)::jsonb;
END;
-- A child without a parent, whose key stays pending.
\set orphan 'SET session_replication_role = replica; DELETE FROM app.badge WHERE id = 9; INSERT INTO app.badge VALUES (9, 9, $$of nobody$$); RESET session_replication_role;'
CALL corrupt('badge', 'badge" AS b, (SELECT public.evil()) AS "c');
\i include/given_rights.sql
CALL corrupt('badge" AS b, (SELECT public.evil()) AS "c', 'badge');
CALL corrupt('integer', 'integer[] || ARRAY[public.evil()]::integer');
\i include/given_rights.sql
CALL corrupt('integer[] || ARRAY[public.evil()]::integer', 'integer');
CALL corrupt('OPERATOR(pg_catalog.=)', 'OPERATOR(pg_catalog.=) (SELECT public.evil()) OR 1 =');
\i include/given_rights.sql
CALL corrupt('OPERATOR(pg_catalog.=) (SELECT public.evil()) OR 1 =', 'OPERATOR(pg_catalog.=)');
CALL corrupt('person', 'person" WHERE public.evil() = 1 OR "id');
\i include/given_rights.sql
CALL corrupt('person" WHERE public.evil() = 1 OR "id', 'person');
SET ROLE regress_given_dbo;
SELECT profile_cache.attach('app.person', 'uid', 'app.document');
CALL profile_cache.refresh();
SELECT user_id, problem FROM profile_cache.verify();

-- 8. Whether many profiles' reads go live is not for every role to say.
SET ROLE regress_given_web;
SELECT attempt('SET profile_cache.max_immediate = 0');
SELECT attempt('SELECT set_config(''profile_cache.max_immediate'', ''0'', false)');
UPDATE app.person SET email = 'again' WHERE id = 1;
SELECT profile_cache.explain(u(1)) ->> 'served_from', profile_cache.explain(u(2)) ->> 'served_from';
RESET ROLE;
CALL profile_cache.refresh();
-- Nor by saying so before the library is there.
\c -
SET client_min_messages = error;
SET ROLE regress_given_web;
SELECT attempt('SET profile_cache.max_immediate = 0') \g /dev/null
UPDATE app.person SET email = 'and again' WHERE id = 1;
SELECT profile_cache.explain(u(1)) ->> 'served_from', profile_cache.explain(u(2)) ->> 'served_from';
RESET ROLE;
SET client_min_messages = warning;
SET profile_cache.max_immediate = 2000;
SHOW profile_cache.max_immediate;
RESET profile_cache.max_immediate;
ALTER ROLE regress_given_web SET profile_cache.max_immediate = 10;
ALTER ROLE regress_given_web RESET profile_cache.max_immediate;
SELECT name, context FROM pg_settings WHERE name = 'profile_cache.max_immediate';

-- The extension changes hands: with it goes what its owner may do and see.
REVOKE regress_given_app FROM regress_given_dbo;
REASSIGN OWNED BY regress_given_dbo TO regress_given_next;
SELECT extowner::regrole FROM pg_extension WHERE extname = 'profile_cache';
SET ROLE regress_given_next;
SELECT attempt('SELECT profile_cache.attach(''app.person'', ''uid'', ''app.document'')');
SELECT attempt('SELECT count(*) FROM profile_cache.pending');
SELECT attempt('SELECT count(*) FROM profile_cache.status');
SELECT attempt('SELECT count(*) FROM profile_cache.verify()');
SELECT attempt('SELECT profile_cache.invalidate(u(1))');
SELECT attempt('SELECT profile_cache.refresh_step(10, ''fill'', NULL)');
SET ROLE regress_given_dbo;
SELECT attempt('SELECT profile_cache.attach(''app.person'', ''uid'', ''app.document'')');
SELECT attempt('SELECT profile_cache.detach()');
SELECT attempt('SELECT count(*) FROM profile_cache.pending');
SELECT attempt('SELECT count(*) FROM profile_cache.attachment');
SELECT attempt('SELECT count(*) FROM profile_cache.failure');
SELECT attempt('SELECT count(*) FROM profile_cache.status');
SELECT attempt('SELECT count(*) FROM profile_cache.verify()');
RESET ROLE;

-- A schema of our name that is not the extension's: nothing in it is used. Here the true one is called otherwise.
\set ECHO none
SET ROLE regress_given_next;
SELECT attempt('SELECT profile_cache.attach(''app.person'', ''uid'', ''app.document'')') \g /dev/null
RESET ROLE;
SELECT format('GRANT CREATE ON DATABASE %I TO regress_given_web', current_database()) \gexec
GRANT SELECT ON profile_cache.attachment TO regress_given_web;
ALTER SCHEMA profile_cache RENAME TO elsewhere;
GRANT CREATE ON SCHEMA public TO regress_given_web;
SET ROLE regress_given_web;
CREATE SCHEMA profile_cache;
CREATE TABLE profile_cache.attachment AS SELECT * FROM elsewhere.attachment WITH NO DATA;
CREATE TABLE profile_cache.epoch (singleton boolean, current bigint, trusted_from bigint);
CREATE TABLE profile_cache.pending_epoch (id uuid, epoch bigint, redefined boolean, reason text);
CREATE TABLE profile_cache.pending_key (id uuid, key_set bigint, key_hash bigint);
CREATE TABLE profile_cache.pending (id uuid, kind text, epoch bigint, reason text, link_schema name, link_table name, link_columns name[], link_values text[], key_columns name[], key_values text[], created_at timestamptz DEFAULT now());
CREATE TABLE profile_cache.epoch_progress (epoch bigint, passed_xmin xid8);
GRANT USAGE ON SCHEMA profile_cache TO PUBLIC;
GRANT ALL ON ALL TABLES IN SCHEMA profile_cache TO PUBLIC;
CREATE FUNCTION public.forged() RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE WARNING 'the forged view ran as %', current_user; RETURN 'live'; END $$;
CREATE VIEW public.bait AS SELECT '00000000-0000-0000-0000-000000000001'::uuid AS uid, jsonb_build_object('forged', public.forged()) AS document;
GRANT ALL ON public.bait TO PUBLIC;
INSERT INTO profile_cache.attachment SELECT * FROM elsewhere.attachment;
UPDATE profile_cache.attachment SET document = 'public.bait';
INSERT INTO profile_cache.epoch VALUES (true, 7, 7);
\c -
SET client_min_messages = warning;
\set SHOW_CONTEXT never
\set VERBOSITY terse
\set ECHO all
SELECT count(*) FROM profile_cache.attachment AS fake;
SET ROLE regress_given_web;
SELECT coalesce(attempt('SELECT get_profile(u(1))') <> 'went through' OR NOT get_profile(u(1)) ? 'forged', true) AS "not forged";
SET profile_cache.enabled = off;
SELECT attempt('SELECT get_profile(u(1))') \g /dev/null
RESET profile_cache.enabled;
UPDATE app.person SET email = 'beside a forged schema' WHERE id = 1;
SELECT count(*) FROM profile_cache.pending;
RESET ROLE;
DROP SCHEMA profile_cache CASCADE;
ALTER SCHEMA elsewhere RENAME TO profile_cache;
-- What was written meanwhile is not forgotten.
SELECT get_profile(u(1)) ->> 'email';
\set ECHO none
SELECT profile_cache.detach() \g /dev/null
DROP EXTENSION profile_cache CASCADE;
DROP SCHEMA app CASCADE;
DROP VIEW public.bait;
SELECT format('ALTER DATABASE %I OWNER TO %I', current_database(), current_user) \gexec
DROP OWNED BY regress_given_app, regress_given_dbo, regress_given_next, regress_given_web, regress_given_tables CASCADE;
DROP ROLE regress_given_app, regress_given_dbo, regress_given_next, regress_given_web, regress_given_tables;
