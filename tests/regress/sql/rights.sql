-- Who may do what, and what nobody may do by way of us: whoever may SELECT cached_profile of a row
-- reads its document, nobody else, cached or not; the rest is for the owner; and a caller's
-- search_path, functions, operators, temporary tables or policies are never run as somebody else.
\set ECHO none
\i include/output.sql
SET client_min_messages = warning;
\set ECHO all
CREATE ROLE regress_owner;
CREATE ROLE regress_app;
CREATE ROLE regress_stranger;
CREATE ROLE regress_deputy IN ROLE regress_owner;
CREATE ROLE regress_monitor IN ROLE pg_monitor;

-- A database owner who is no superuser installs: the extension is trusted.
SELECT format('ALTER DATABASE %I OWNER TO regress_owner', current_database()) \gexec
CREATE SCHEMA app AUTHORIZATION regress_owner;
SET search_path = app, public;
SET ROLE regress_owner;
CREATE EXTENSION profile_cache SCHEMA app;
\set ECHO none
\i include/tables.sql
\i include/check.sql
\set ECHO all
SELECT extowner::regrole FROM pg_extension WHERE extname = 'profile_cache';

-- attach: by the owner of the tables who is a member of the extension's owner, or by a member of it.
SET ROLE regress_stranger;
SELECT profile_cache.attach('app.user_profile');
RESET ROLE;
GRANT USAGE ON SCHEMA app TO regress_stranger, regress_app;
GRANT EXECUTE ON FUNCTION profile_cache.attach, profile_cache.detach TO regress_stranger;
GRANT CREATE ON SCHEMA public TO regress_stranger;
SET ROLE regress_stranger;
-- Not even for a table of its own: it is not a member of the extension's owner.
CREATE TABLE public.user_profile (supabase_user_id uuid PRIMARY KEY);
SELECT profile_cache.attach('public.user_profile');
\echo :SQLSTATE
SELECT profile_cache.detach();
DROP TABLE public.user_profile;
RESET ROLE;
REVOKE EXECUTE ON FUNCTION profile_cache.attach, profile_cache.detach FROM regress_stranger;
ALTER TABLE user_profile OWNER TO regress_stranger;
SET ROLE regress_owner;
SELECT profile_cache.attach();
\echo :SQLSTATE
RESET ROLE;
ALTER TABLE user_profile OWNER TO regress_owner;
SET ROLE regress_deputy;
SELECT profile_cache.attach();
SELECT relname, relowner::regrole FROM pg_class WHERE relname IN ('profile_document', 'user_profile');
CALL profile_cache.refresh();
SELECT state();
SELECT * FROM wrong();
SELECT profile_cache.attach();
SET ROLE regress_owner;
SELECT profile_cache.attach();
CALL profile_cache.refresh();

-- What is not for everyone is for nobody but the owner: functions, tables, the status.
SET ROLE regress_app;
SELECT profile_cache.attach();
\echo :SQLSTATE
SELECT profile_cache.detach();
SELECT profile_cache.invalidate(u(1));
SELECT profile_cache.invalidate_all();
SELECT * FROM profile_cache.verify();
CALL profile_cache.refresh();
SELECT * FROM profile_cache.refresh_step(1, 'fill', NULL);
SELECT * FROM profile_cache.status;
SELECT * FROM profile_cache.attachment;
SELECT * FROM profile_cache.pending;
DELETE FROM profile_cache.pending_key;
SELECT * FROM profile_cache.failure;
CREATE TEMP TABLE mine (id int);
CREATE TRIGGER t BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION profile_cache.distrust();
SET ROLE regress_monitor;
SELECT profile, cached FROM profile_cache.status;
SELECT * FROM profile_cache.verify();
SET ROLE regress_owner;
-- The owner sees our tables and cannot write them by hand.
SELECT count(*) FROM profile_cache.attachment;
\set VERBOSITY terse
UPDATE profile_cache.epoch SET trusted_from = 0;
DELETE FROM profile_cache.pending_key;
\set VERBOSITY default
RESET ROLE;
-- With EXECUTE granted by mistake: still only for the table's owner.
GRANT EXECUTE ON FUNCTION profile_cache.invalidate, profile_cache.invalidate_all, profile_cache.verify, profile_cache.refresh_begin, profile_cache.refresh_step TO regress_app;
GRANT EXECUTE ON PROCEDURE profile_cache.refresh TO regress_app;
SET ROLE regress_app;
SELECT profile_cache.invalidate(u(1));
\echo :SQLSTATE
SELECT profile_cache.invalidate_all();
SELECT * FROM profile_cache.verify();
SELECT profile_cache.refresh_begin(1);
SELECT * FROM profile_cache.refresh_step(1, 'fill', NULL);
RESET ROLE;
REVOKE EXECUTE ON FUNCTION profile_cache.invalidate, profile_cache.invalidate_all, profile_cache.verify, profile_cache.refresh_begin, profile_cache.refresh_step FROM regress_app;
REVOKE EXECUTE ON PROCEDURE profile_cache.refresh FROM regress_app;

-- get_profile and explain: as SELECT cached_profile, the same on hit and miss.
CREATE FUNCTION reads() RETURNS TABLE (hit text, miss text, explained text) LANGUAGE plpgsql AS $$
BEGIN
    BEGIN hit := coalesce(app.get_profile(app.u(1)) ->> 'email', '<NULL>'); EXCEPTION WHEN insufficient_privilege THEN hit := SQLERRM; END;
    SET LOCAL profile_cache.enabled = off;
    BEGIN miss := coalesce(app.get_profile(app.u(1)) ->> 'email', '<NULL>'); EXCEPTION WHEN insufficient_privilege THEN miss := SQLERRM; END;
    SET LOCAL profile_cache.enabled = on;
    BEGIN explained := profile_cache.explain(app.u(1)) ->> 'served_from'; EXCEPTION WHEN insufficient_privilege THEN explained := SQLERRM; END;
    RETURN NEXT;
END $$;
SET ROLE regress_app;
SELECT * FROM app.reads();
SELECT app.get_profile(app.u(1));
\echo :SQLSTATE
RESET ROLE;
GRANT SELECT (cached_profile) ON user_profile TO regress_app;
SET ROLE regress_app;
SELECT * FROM app.reads();
RESET ROLE;
GRANT SELECT (supabase_user_id) ON user_profile TO regress_app;
SET ROLE regress_app;
SELECT * FROM app.reads();
RESET ROLE;
REVOKE SELECT (cached_profile, supabase_user_id) ON user_profile FROM regress_app;
GRANT SELECT (email, supabase_user_id) ON user_profile TO regress_app;
SET ROLE regress_app;
SELECT * FROM app.reads();
RESET ROLE;
GRANT SELECT ON user_profile TO regress_app;
SET ROLE regress_app;
SELECT * FROM app.reads();
-- Members and the view need no privilege of the reader's: the document holds what the owner put there.
SELECT * FROM app.user_role;
SELECT * FROM app.profile_document;
RESET ROLE;
-- attach() names whom the document shows more than the tables did.
SET client_min_messages = notice;
SELECT profile_cache.attach();
SET client_min_messages = warning;
SET ROLE regress_owner;
CALL profile_cache.refresh();
RESET ROLE;
-- Granting the view alone opens no table behind it.
GRANT SELECT ON profile_document TO regress_app;
SET ROLE regress_app;
SELECT * FROM app.profile_document;
RESET ROLE;
REVOKE SELECT ON profile_document FROM regress_app;
GRANT UPDATE, INSERT, DELETE ON user_profile, user_role, subscription_plan TO regress_app;
GRANT SELECT ON user_role, subscription_plan TO regress_app;
SET ROLE regress_app;
-- A writer who may not see our tables: the write side runs as it needs.
UPDATE app.user_profile SET email = 'by the app' WHERE id = 1;
INSERT INTO app.user_role VALUES (10, 1, 2);
SELECT * FROM app.reads();
UPDATE app.subscription_plan SET ai_daily_limit = 1 WHERE id = 'pro';
SELECT current_user, app.get_profile(app.u(1)) -> 'ai_daily_limit';
-- It cannot forge.
UPDATE app.user_profile SET cached_profile = '{"forged": 1}', cached_profile_epoch = 1, cached_profile_valid_until = 'infinity', profile_cache_updated_at = 'epoch';
INSERT INTO app.user_profile (id, supabase_user_id, cached_profile, cached_profile_epoch, profile_cache_updated_at)
    SELECT 6, app.u(6), '{"forged": 1}', cached_profile_epoch, profile_cache_updated_at FROM app.user_profile WHERE id = 1;
COPY app.user_profile (id, supabase_user_id, cached_profile, cached_profile_epoch, profile_cache_updated_at) FROM stdin;
7	00000000-0000-0000-0000-000000000007	{"forged": 1}	1	2000-01-01
\.
SELECT app.get_profile(app.u(6)) ? 'forged', app.get_profile(app.u(7)) ? 'forged', app.get_profile(app.u(1)) ? 'forged';
DELETE FROM app.user_profile WHERE id > 5;
RESET ROLE;
REVOKE USAGE ON SCHEMA app FROM regress_app;
CREATE FUNCTION public.outside() RETURNS SETOF text LANGUAGE sql AS $$ SELECT profile_cache.explain('00000000-0000-0000-0000-000000000001') ->> 'served_from' $$;
SET ROLE regress_app;
SELECT public.outside();
RESET ROLE;
GRANT USAGE ON SCHEMA app TO regress_app;
SET ROLE regress_owner;
CALL profile_cache.refresh();
SELECT * FROM wrong();

-- Row security: whom a policy hides the row from sees no document and no trace of it, cached or
-- not; the owner sees everything; row_security = off is an error for whom it would filter.
ALTER TABLE user_profile ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON user_profile TO regress_app USING (email = current_setting('app.email', true));
CALL profile_cache.refresh();
SELECT state();
SET ROLE regress_app;
SELECT * FROM app.reads();
SELECT profile_cache.explain(app.u(1));
SET app.email = 'by the app';
SELECT * FROM app.reads();
SELECT app.get_profile(app.u(2));
SET row_security = off;
SELECT app.get_profile(app.u(1));
\echo :SQLSTATE
RESET row_security;
SET ROLE regress_stranger;
SELECT * FROM app.reads();
RESET ROLE;
GRANT SELECT ON user_profile TO regress_stranger;
SET ROLE regress_stranger;
SELECT * FROM app.reads();
RESET ROLE;
ALTER ROLE regress_stranger BYPASSRLS;
SET ROLE regress_stranger;
SELECT * FROM app.reads();
RESET ROLE;
ALTER ROLE regress_stranger NOBYPASSRLS;
-- A policy's function runs as the reader, not as the owner, and may read the cache itself.
CREATE FUNCTION app.seen_by(p app.user_profile) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'policy runs as %', current_user; RETURN true; END $$;
DROP POLICY own ON user_profile;
CREATE POLICY own ON user_profile TO regress_app USING (app.seen_by(user_profile));
SET ROLE regress_app;
SELECT app.get_profile(app.u(1)) ->> 'email';
-- A policy that fails.
RESET ROLE;
DROP POLICY own ON user_profile;
CREATE POLICY own ON user_profile TO regress_app USING (1 / (id - 1) > 0);
SET ROLE regress_app;
SELECT app.get_profile(app.u(1)) ->> 'email';
\echo :SQLSTATE
RESET ROLE;
DROP POLICY own ON user_profile;
-- Row security on a member does not reach into documents: they are computed as the owner.
ALTER TABLE user_profile DISABLE ROW LEVEL SECURITY;
ALTER TABLE user_role ENABLE ROW LEVEL SECURITY;
SET ROLE regress_owner;
CALL profile_cache.refresh();
SET ROLE regress_app;
SELECT count(*) FROM app.user_role;
SELECT jsonb_array_length(app.get_profile(app.u(1)) -> 'roles');
SET profile_cache.enabled = off;
SELECT jsonb_array_length(app.get_profile(app.u(1)) -> 'roles');
RESET profile_cache.enabled;
RESET ROLE;
ALTER TABLE user_role DISABLE ROW LEVEL SECURITY;

-- A hostile caller: functions and operators of its own before pg_catalog's, and temporary tables
-- named like ours and like the app's. None is called, none is read.
SET ROLE regress_owner;
CALL profile_cache.refresh();
RESET ROLE;
CREATE SCHEMA evil AUTHORIZATION regress_app;
GRANT TEMP ON DATABASE :DBNAME TO regress_app;
SET ROLE regress_app;
CREATE FUNCTION evil.caught(who text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING '% ran as %', who, current_user; END $$;
CREATE FUNCTION evil.eq(uuid, uuid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.caught('='); RETURN true; END $$;
CREATE OPERATOR evil.= (FUNCTION = evil.eq, LEFTARG = uuid, RIGHTARG = uuid);
CREATE FUNCTION evil.eq(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.caught('='); RETURN true; END $$;
CREATE OPERATOR evil.= (FUNCTION = evil.eq, LEFTARG = bigint, RIGHTARG = bigint);
CREATE FUNCTION evil.eq(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.caught('='); RETURN true; END $$;
CREATE OPERATOR evil.= (FUNCTION = evil.eq, LEFTARG = text, RIGHTARG = text);
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.caught('now'); RETURN '2200-01-01'; END $$;
CREATE FUNCTION evil.unnest(anyarray) RETURNS SETOF anyelement LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.caught('unnest'); RETURN; END $$;
CREATE FUNCTION evil.coalesce(jsonb, jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT ''"evil"''::jsonb';
CREATE FUNCTION evil.cardinality(anyarray) RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.caught('cardinality'); RETURN 0; END $$;
CREATE TEMP TABLE user_profile (id bigint, supabase_user_id uuid, email text, cached_profile jsonb);
CREATE TEMP TABLE profile_document (supabase_user_id uuid, document jsonb, valid_until timestamptz);
CREATE TEMP TABLE pending (kind text, epoch bigint);
CREATE TEMP TABLE pg_class (oid oid, relname name);
CREATE TEMP TABLE pg_trigger (oid oid);
INSERT INTO user_profile VALUES (1, '00000000-0000-0000-0000-000000000001', 'evil', '"evil"');
SET search_path = evil, pg_temp, pg_catalog, app;
SELECT app.get_profile('00000000-0000-0000-0000-000000000001') ->> 'email';
SELECT profile_cache.explain('00000000-0000-0000-0000-000000000001') ->> 'served_from';
SET profile_cache.enabled = off;
SELECT app.get_profile('00000000-0000-0000-0000-000000000001') ->> 'email';
SET profile_cache.enabled = on;
UPDATE app.user_profile SET email = 'hostile' WHERE id OPERATOR(pg_catalog.=) 1;
INSERT INTO app.user_role VALUES (11, 1, 3);
UPDATE app.subscription_plan SET display_name = 'hostile' WHERE id OPERATOR(pg_catalog.=) 'pro';
DELETE FROM app.user_role WHERE id OPERATOR(pg_catalog.=) 11;
SELECT app.get_profile('00000000-0000-0000-0000-000000000001') ->> 'email';
-- The owner with such a path runs none of it either.
RESET ROLE;
GRANT USAGE ON SCHEMA evil TO regress_owner;
SET ROLE regress_owner;
SELECT profile_cache.invalidate('00000000-0000-0000-0000-000000000002');
CALL profile_cache.refresh(1);
SELECT pg_catalog.count(*) FROM profile_cache.verify();
SELECT profile, stale, warnings FROM profile_cache.status;
SELECT profile_cache.attach('app.user_profile');
CALL profile_cache.refresh();
SELECT profile_cache.detach();
SELECT profile_cache.attach('app.user_profile');
CALL profile_cache.refresh();
RESET ROLE;
DISCARD TEMP;
SET search_path = app, public;
SELECT state();
SELECT * FROM wrong();

-- A view or trigger of the reader's that calls get_profile runs it with the reader's rights.
SET ROLE regress_stranger;
SELECT count(app.get_profile(app.u(1)));
RESET ROLE;
REVOKE ALL ON user_profile FROM regress_stranger;
SET ROLE regress_stranger;
SELECT count(app.get_profile(app.u(1)));
-- By a SECURITY DEFINER function of the owner's it may, as with any table of the owner's.
SET ROLE regress_owner;
CREATE FUNCTION app.definer(uuid) RETURNS jsonb LANGUAGE sql SECURITY DEFINER SET search_path = app AS 'SELECT app.get_profile($1)';
SET ROLE regress_stranger;
SELECT app.definer(app.u(1)) ->> 'email';

-- The owner changes: documents are the new owner's business at once.
RESET ROLE;
REASSIGN OWNED BY regress_owner TO regress_deputy;
SELECT warnings FROM profile_cache.status;
SELECT get_profile(u(1)) ->> 'email';
SET ROLE regress_deputy;
SELECT profile_cache.attach('app.user_profile');
CALL profile_cache.refresh();
SELECT * FROM wrong();
SELECT profile_cache.detach();
DROP EXTENSION profile_cache;
RESET ROLE;
DROP SCHEMA evil CASCADE;
DROP SCHEMA app CASCADE;
DROP FUNCTION public.outside;
DROP OWNED BY regress_owner, regress_app, regress_stranger, regress_deputy, regress_monitor;
SELECT format('ALTER DATABASE %I OWNER TO %I', current_database(), current_user) \gexec
DROP ROLE regress_deputy, regress_owner, regress_app, regress_stranger, regress_monitor;
