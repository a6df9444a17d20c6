-- What the tables' owner's code sets does not outlive our running it: after a read, a write, verify, status, attach or
-- refresh the session has the search_path and settings that it had, so that nobody's names resolve to the owner's.
\set ECHO none
\i include/output.sql
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE ROLE regress_outlive_app;
CREATE ROLE regress_outlive_dbo IN ROLE regress_outlive_app;
CREATE ROLE regress_outlive_web;
\set app regress_outlive_app
\set dbo regress_outlive_dbo
\set web regress_outlive_web
\i include/owners_code.sql
-- Operators of the owner's that leave a mark where they run as anybody else.
CREATE SCHEMA evil AUTHORIZATION regress_outlive_app;
GRANT USAGE ON SCHEMA evil TO PUBLIC;
SET ROLE regress_outlive_app;
CREATE FUNCTION evil.same(oid, oid) RETURNS boolean LANGUAGE sql RETURN public.mark() AND $1 OPERATOR(pg_catalog.=) $2;
CREATE OPERATOR evil.= (FUNCTION = evil.same, LEFTARG = oid, RIGHTARG = oid);
CREATE FUNCTION evil.same(name, name) RETURNS boolean LANGUAGE sql RETURN public.mark() AND $1 OPERATOR(pg_catalog.=) $2;
CREATE OPERATOR evil.= (FUNCTION = evil.same, LEFTARG = name, RIGHTARG = name);
CREATE FUNCTION evil.same(text, text) RETURNS boolean LANGUAGE sql RETURN public.mark() AND $1 OPERATOR(pg_catalog.=) $2;
CREATE OPERATOR evil.= (FUNCTION = evil.same, LEFTARG = text, RIGHTARG = text);
RESET ROLE;
SET search_path = public;
-- kept(): what is not as it was, and whom the owner's operators have run as; all of it put right again.
CREATE FUNCTION kept() RETURNS text LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT CASE WHEN set_config('search_path', 'public', false) IS NOT NULL AND set_config('DateStyle', 'ISO, MDY', false) IS NOT NULL
            AND set_config('app.left', '', false) IS NOT NULL AND pg_advisory_unlock_all() IS NOT NULL THEN coalesce(nullif(s.w, ''), 'all as it was') END
    FROM (SELECT concat_ws(', ', 'path ' || nullif(current_setting('search_path'), 'public'), nullif(current_setting('DateStyle'), 'ISO, MDY'),
        nullif(current_setting('app.left', true), ''), 'ran as ' || nullif(ran_as(), 'nobody else')) AS w OFFSET 0) AS s;
END;
SET DateStyle = 'ISO, MDY';
SELECT kept() \g /dev/null
-- A superuser's session: what he calls, he calls with all rights. (Statements of his own that evaluate the table's
-- indexes are PostgreSQL's business: here he writes a member.)
\set ECHO all

-- A function of the view's.
CALL begin_anew();
SELECT profile_cache.attach('app.person', 'uid', 'app.document');
CALL profile_cache.refresh();
SELECT kept();
SET ROLE regress_outlive_app;
CREATE OR REPLACE FUNCTION app.shown(t text) RETURNS text LANGUAGE sql IMMUTABLE
    RETURN CASE WHEN set_config('search_path', 'evil, pg_catalog, public', false) IS NULL OR set_config('DateStyle', 'German', false) IS NULL
        OR set_config('app.left', 'something left', false) IS NULL THEN NULL ELSE t END;
SELECT public.kept() \g /dev/null
RESET ROLE;
\i include/settings_outlive.sql

-- An index predicate, folded while planning, and an expression; our columns are indexed, so that no write of ours is HOT.
SELECT profile_cache.detach();
CALL begin_anew();
SET ROLE regress_outlive_app;
CREATE FUNCTION app.harmless(t text) RETURNS text LANGUAGE sql IMMUTABLE RETURN t;
CREATE INDEX ON app.person (id) WHERE app.harmless('x') = 'x';
CREATE INDEX ON app.person (app.harmless(email));
RESET ROLE;
SELECT profile_cache.attach('app.person', 'uid', 'app.document');
CREATE INDEX ON app.person (cached_profile_epoch);
CALL profile_cache.refresh();
SELECT kept();
SET ROLE regress_outlive_app;
CREATE OR REPLACE FUNCTION app.harmless(t text) RETURNS text LANGUAGE sql IMMUTABLE
    RETURN CASE WHEN set_config('search_path', 'evil, pg_catalog, public', false) IS NULL OR set_config('DateStyle', 'German', false) IS NULL
        OR set_config('app.left', 'something left', false) IS NULL THEN NULL ELSE t END;
SELECT public.kept() \g /dev/null
RESET ROLE;
\i include/settings_outlive.sql

-- The same by a procedural function, which view functions may not be.
SET ROLE regress_outlive_app;
CREATE OR REPLACE FUNCTION app.harmless(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'evil, pg_catalog, public', false), pg_catalog.set_config('DateStyle', 'German', false),
        pg_catalog.set_config('app.left', 'something left', false);
    RETURN t;
END $$;
SELECT public.kept() \g /dev/null
RESET ROLE;
\i include/settings_outlive.sql

\set ECHO none
SELECT kept() \g /dev/null
SELECT profile_cache.detach() \g /dev/null
DROP EXTENSION profile_cache;
DROP SCHEMA app CASCADE;
DROP SCHEMA evil CASCADE;
SELECT format('ALTER DATABASE %I OWNER TO %I', current_database(), current_user) \gexec
DROP OWNED BY regress_outlive_app, regress_outlive_dbo, regress_outlive_web;
DROP ROLE regress_outlive_app, regress_outlive_dbo, regress_outlive_web;
