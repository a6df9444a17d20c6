-- The library and the SQL objects of different versions: nothing is served that could be wrong, and no statement of the app's
-- fails.
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
\pset tuples_only off
\pset footer off
\set VERBOSITY default
CREATE EXTENSION profile_cache;
\set ECHO all
SELECT profile_cache.attach();
CALL profile_cache.refresh();
SELECT profile_cache.explain(u(2)) ->> 'served_from' AS "from";
-- Another version, which differs by more than what stands beside: a session that has loaded this one's library.
CREATE OR REPLACE FUNCTION profile_cache.layout() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 2';
UPDATE profile_cache.attachment SET problem = problem;
SELECT get_profile(u(2));
SELECT profile_cache.explain(u(2));
SELECT count(*) FROM profile_cache.verify();
CALL profile_cache.refresh();
SELECT profile_cache.attach();
SELECT profile_cache.detach();
SELECT unnest(warnings) FROM profile_cache.status;
-- What the app does is not lost.
UPDATE user_subscription SET plan_id = 'free' WHERE user_id = 2;
UPDATE user_profile SET email = 'anna@example.com' WHERE id = 2;
ALTER TABLE user_profile ADD COLUMN nickname text;
CREATE VIEW unrelated AS SELECT 1 AS one;
SELECT reason, count(*) FROM profile_cache.pending GROUP BY 1 ORDER BY 1;
-- The same version again.
CREATE OR REPLACE FUNCTION profile_cache.layout() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 1';
UPDATE profile_cache.attachment SET problem = problem;
SELECT profile_cache.explain(u(2)) ->> 'served_from' AS "from", profile_cache.explain(u(2)) ->> 'reason' AS reason;
SELECT get_profile(u(2)) = (SELECT document FROM profile_document WHERE supabase_user_id = u(2)) AS same;
CALL profile_cache.refresh();
SELECT profile_cache.explain(u(2)) ->> 'served_from' AS "from", get_profile(u(2)) = (SELECT document FROM profile_document WHERE supabase_user_id = u(2)) AS same;
SELECT * FROM profile_cache.verify();
-- A script that changes the tables, as CONTRIBUTING.md has it, with a library that does not know what comes of it.
BEGIN;
SELECT FROM profile_cache.attachment FOR UPDATE;
CREATE OR REPLACE FUNCTION profile_cache.layout() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS 'SELECT 0';
ALTER TABLE profile_cache.pending_epoch RENAME COLUMN about TO objects;
ALTER TABLE profile_cache.failure DROP COLUMN sqlstate;
ALTER FUNCTION profile_cache.iso8601(timestamptz) COST 2;
CREATE TEMP TABLE unrelated_too (id int);
CREATE OR REPLACE FUNCTION profile_cache.layout() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS 'SELECT 2';
UPDATE profile_cache.attachment SET problem = problem;
COMMIT;
SELECT unnest(warnings) FROM profile_cache.status;
SELECT get_profile(u(2));
SELECT profile_cache.set_rights();
UPDATE user_subscription SET plan_id = 'pro' WHERE user_id = 2;
CREATE TABLE unrelated_three (id int);
CREATE TEMP TABLE unrelated_four (id int);
SELECT reason, count(*) FROM profile_cache.pending GROUP BY 1 ORDER BY 1;
BEGIN;
CREATE OR REPLACE FUNCTION profile_cache.layout() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS 'SELECT 0';
ALTER TABLE profile_cache.pending_epoch RENAME COLUMN objects TO about;
ALTER TABLE profile_cache.failure ADD COLUMN sqlstate text NOT NULL;
CREATE OR REPLACE FUNCTION profile_cache.layout() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS 'SELECT 1';
UPDATE profile_cache.attachment SET problem = problem;
COMMIT;
SELECT get_profile(u(2)) = (SELECT document FROM profile_document WHERE supabase_user_id = u(2)) AS same;
CALL profile_cache.refresh();
SELECT profile_cache.explain(u(2)) ->> 'served_from' AS "from", get_profile(u(2)) = (SELECT document FROM profile_document WHERE supabase_user_id = u(2)) AS same;
-- A version beside which the tables are the same.
UPDATE pg_extension SET extversion = '0.0.1' WHERE extname = 'profile_cache';
SELECT unnest(warnings) FROM profile_cache.status;
SELECT profile_cache.explain(u(2)) ->> 'served_from' AS "from";
