-- Tables of an owner who is no superuser, whose code (in a view's function, an index, a constraint, a type) wants to
-- do more than to be computed. Included with \i, quietly, by tests that have made the roles :app (owns the
-- tables), :dbo (owns the extension, may act as :app) and :web (an ordinary one).
SELECT format('ALTER DATABASE %I OWNER TO %I', current_database(), :'dbo') \gexec
SET ROLE :dbo;
CREATE EXTENSION profile_cache;
RESET ROLE;
SET test.app = :'app';
SET test.web = :'web';
SET test.dbo = :'dbo';
-- A mark that no rollback takes away: a session's lock named after whoever the code runs as.
CREATE FUNCTION mark() RETURNS boolean LANGUAGE sql VOLATILE
    RETURN pg_catalog.pg_try_advisory_lock_shared(current_user::text::regrole::oid::bigint) IS NOT NULL;
CREATE FUNCTION ran_as() RETURNS text LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT coalesce((SELECT string_agg(DISTINCT CASE WHEN r.rolsuper THEN 'a superuser' ELSE r.rolname END, ', ') FROM pg_locks AS l JOIN pg_roles AS r ON r.oid = l.objid
        WHERE l.locktype = 'advisory' AND l.pid = pg_backend_pid() AND r.rolname <> current_setting('test.app')), 'nobody else')
    FROM pg_sleep(0);
END;
CREATE FUNCTION attempt(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'went through';
EXCEPTION WHEN OTHERS THEN
    RETURN 'refused';
END $$;
CREATE PROCEDURE begin_anew() LANGUAGE plpgsql AS $$
BEGIN
    DROP SCHEMA IF EXISTS app CASCADE;
    EXECUTE format('CREATE SCHEMA app AUTHORIZATION %I; GRANT USAGE ON SCHEMA app TO PUBLIC; SET LOCAL ROLE %I', current_setting('test.app'), current_setting('test.app'));
    CREATE TABLE app.person (id int PRIMARY KEY, uid uuid NOT NULL UNIQUE, email text);
    CREATE TABLE app.badge (id int PRIMARY KEY, person int REFERENCES app.person, label text);
    CREATE INDEX ON app.badge (person);
    INSERT INTO app.person SELECT n, lpad(n::text, 32, '0')::uuid, n FROM generate_series(1, 5) AS n;
    INSERT INTO app.badge SELECT n, n, 'b' || n FROM generate_series(1, 5) AS n;
    CREATE FUNCTION app.shown(t text) RETURNS text LANGUAGE sql IMMUTABLE RETURN t;
    CREATE VIEW app.document AS SELECT p.uid, jsonb_build_object('email', app.shown(p.email),
        'badges', (SELECT jsonb_agg(b.label ORDER BY b.id) FROM app.badge AS b WHERE b.person = p.id)) AS document FROM app.person AS p;
END $$;
