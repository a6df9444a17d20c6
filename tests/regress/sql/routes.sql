-- profile_cache.routes: each way in which the document depends on a table, in words; what is computed at once, and by which indexes
-- a reader finds out about the rest. And attach() says in one line which tables are which.
\set ECHO none
\i include/tables.sql
\i include/output.sql
SET client_min_messages = notice;
CREATE EXTENSION profile_cache;
SELECT set_config('search_path', 'public', false) \g /dev/null
\set ECHO all
SELECT count(*) FROM profile_cache.routes;
SELECT profile_cache.attach();
SELECT table_name, watched, route, at_once, everyone FROM profile_cache.routes;
SELECT table_name, indexes FROM profile_cache.routes WHERE NOT at_once;
-- Without an index there is no way back, and with it there is one: what a reader would go by now.
\set ECHO none
SELECT format('DROP INDEX %s', i) FROM profile_cache.routes, unnest(indexes) AS i WHERE table_name = 'role'::regclass AND NOT EXISTS (SELECT FROM pg_constraint AS c WHERE c.conindid = i) \gexec
\set ECHO all
SELECT table_name, indexes FROM profile_cache.routes WHERE NOT at_once;
SELECT profile_cache.detach();
-- The profile shown as another's, a key of two columns, a child of a member, and tables that everyone shows.
CREATE SCHEMA "My App";
CREATE TABLE "My App".boss (uid uuid NOT NULL UNIQUE, tenant int, "No" int, name text, boss int, login timestamptz, PRIMARY KEY (tenant, "No"));
ALTER TABLE "My App".boss ADD UNIQUE ("No"), ADD FOREIGN KEY (boss) REFERENCES "My App".boss ("No");
CREATE TABLE plan (id text PRIMARY KEY, title text);
CREATE TABLE seat (tenant int, person int, plan text REFERENCES plan, id int PRIMARY KEY, FOREIGN KEY (tenant, person) REFERENCES "My App".boss (tenant, "No"));
CREATE TABLE chair (seat int REFERENCES seat, colour text, PRIMARY KEY (seat, colour));
CREATE TABLE motd (text text);
CREATE INDEX ON seat (tenant, person);
CREATE INDEX ON "My App".boss (boss);
CREATE VIEW document AS SELECT p.uid, jsonb_build_object('name', p.name, 'boss', b.name, 'motd', (SELECT max(m.text) FROM motd AS m),
        'free', (SELECT l.title FROM plan AS l WHERE l.id = 'free'), 'chairs', (SELECT jsonb_agg(c.colour ORDER BY c.colour)
        FROM seat AS s JOIN chair AS c ON c.seat = s.id WHERE s.tenant = p.tenant AND s.person = p."No")) AS document
    FROM "My App".boss AS p LEFT JOIN "My App".boss AS b ON b."No" = p.boss;
SELECT profile_cache.attach('"My App".boss', key => 'uid', document => 'document');
SELECT * FROM profile_cache.routes;
-- Whoever may watch sees it.
CREATE ROLE regress_nobody;
CREATE ROLE regress_watcher IN ROLE pg_monitor;
SET ROLE regress_nobody;
SELECT count(*) FROM profile_cache.routes;
SELECT count(*) FROM profile_cache.routes_rows();
SET ROLE regress_watcher;
SELECT count(*) FROM profile_cache.routes;
RESET ROLE;
DROP ROLE regress_nobody, regress_watcher;
DROP VIEW document;
SELECT count(*) FROM profile_cache.routes;
