-- Views of a few lines that are exponentially large, deep, or long to prove: attach() and the event trigger answer
-- at once, by what they find or by the bound that is exceeded, and a statement_timeout ends them.
\set ECHO none
\i include/output.sql
SET client_min_messages = warning;
-- What is exponential would take hours.
SET statement_timeout = '30s';
CREATE EXTENSION profile_cache;
CREATE TABLE person (uid uuid PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE item (id int PRIMARY KEY, uid uuid REFERENCES person, name text REFERENCES person (name));
CREATE INDEX ON item (uid);
CREATE INDEX ON item (name);
INSERT INTO person SELECT ('00000000-0000-4000-8000-00000000000' || i)::uuid, 'person ' || i FROM generate_series(1, 3) AS i;
INSERT INTO item SELECT i, ('00000000-0000-4000-8000-00000000000' || i)::uuid, 'person ' || i FROM generate_series(1, 3) AS i;
-- A query around a query, so many times: %s is what is inside.
CREATE FUNCTION nested(innermost text, level text, levels int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..levels LOOP
        innermost := replace(level, '%s', innermost);
    END LOOP;
    RETURN innermost;
END $$;
CREATE FUNCTION document(query text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'CREATE OR REPLACE VIEW document AS ' || query;
END $$;
\set attach 'SELECT profile_cache.attach(\'person\', key => \'uid\', document => \'document\');'
\set detach 'DROP VIEW document; SELECT profile_cache.detach();'
\set check 'SELECT count(*) = 3 AND bool_and(get_profile(d.uid) = d.document) FROM document AS d;'
\set ECHO all

-- A WITH query counts as often as it is used.
SELECT document('SELECT uid, jsonb_build_object(''n'', (SELECT max(n) FROM (' || nested('SELECT 1 AS n', 'WITH w AS (%s) SELECT a.n FROM w AS a, w AS b', 40) || ') AS x)) AS document FROM person');
:attach
\echo :SQLSTATE
DROP VIEW document;
SELECT document(format('WITH w0 AS (SELECT 1 AS n), %s SELECT uid, jsonb_build_object(''n'', (SELECT max(n) FROM w60)) AS document FROM person',
    (SELECT string_agg(format('w%s AS (SELECT a.n FROM w%s AS a, w%2$s AS b)', i, i - 1), ', ' ORDER BY i) FROM generate_series(1, 60) AS i)));
:attach
DROP VIEW document;
-- Used twice at few levels, that is no matter.
SELECT document('SELECT uid, jsonb_build_object(''n'', (SELECT max(n) FROM (' || nested('SELECT 1 AS n', 'WITH w AS (%s) SELECT a.n FROM w AS a, w AS b', 6) || ') AS x)) AS document FROM person');
:attach
:check
:detach

-- One row, or not, is found out once for each query and not once more for each that stands around it.
\set pair '\'SELECT s.* FROM (%s) AS s, (SELECT 1) AS v\''
SELECT document(nested('SELECT p.uid, jsonb_build_object(''item'', i.id) AS document FROM person AS p JOIN item AS i ON i.uid = p.uid', :pair, 60));
:attach
DROP VIEW document;
SELECT document(nested('SELECT p.uid, jsonb_build_object(''name'', p.name) AS document FROM person AS p', :pair, 60));
:attach
:check
:detach

-- So is what a value may be.
SELECT document('SELECT s.uid, jsonb_build_object(''items'', (SELECT count(*) FROM item AS i WHERE i.id::text = s.name)) AS document FROM ('
    || nested('SELECT uid, name FROM person', 'SELECT s.uid, coalesce(s.name, s.name) AS name FROM (%s) AS s', 60) || ') AS s');
:attach
DROP VIEW document;
SELECT document('SELECT s.uid, jsonb_build_object(''items'', (SELECT count(*) FROM item AS i WHERE i.name = s.name)) AS document FROM ('
    || nested('SELECT uid, name FROM person', 'SELECT s.uid, coalesce(s.name, s.name) AS name FROM (%s) AS s', 6) || ') AS s');
:attach
:check
:detach

-- Deep: a refusal, or PostgreSQL's own where less stack is left.
SELECT document(nested('SELECT uid, jsonb_build_object(''name'', name) AS document FROM person', 'SELECT s.* FROM (%s) AS s', 100));
:attach
DROP VIEW document;
SELECT document('SELECT uid, jsonb_build_object(''n'', 1) AS document FROM person WHERE EXISTS (' || nested('SELECT', 'SELECT FROM (%s) AS s', 500) || ')');
\set VERBOSITY sqlstate
:attach
DROP VIEW document;
SELECT document('SELECT uid, jsonb_build_object(''n'', ' || repeat('1 + ', 2500) || '1) AS document FROM person');
:attach
DROP VIEW document;
SELECT document('SELECT uid, jsonb_build_object(''n'', ' || repeat('1 + ', 10000) || '1) AS document FROM person');
\set VERBOSITY default
SELECT document('SELECT uid, jsonb_build_object(''n'', ' || repeat('abs(', 1100) || '1' || repeat(')', 1100) || ') AS document FROM person');
SET max_stack_depth = '6MB';
:attach
RESET max_stack_depth;
DROP VIEW document;

-- Large.
SELECT document('SELECT uid, jsonb_build_object(''n'', ARRAY[' || repeat('length(name), ', 60000) || '1]) AS document FROM person');
:attach
DROP VIEW document;

-- Long to prove: each of many occurrences compared with each. The bound ends it, and a timeout before.
SELECT document(format('SELECT p.uid, jsonb_build_object(''n'', (SELECT count(*) FROM %s WHERE %s AND i1.uid = p.uid)) AS document FROM person AS p',
    (SELECT string_agg('item AS i' || i, ', ') FROM generate_series(1, 130) AS i),
    (SELECT string_agg(format('i%s.name = i%s.name', i, j), ' AND ') FROM generate_series(1, 130) AS i, generate_series(1, 130) AS j WHERE i > j)));
:attach
SET statement_timeout = '60ms';
:attach
\echo :SQLSTATE
SET statement_timeout = '30s';
DROP VIEW document;

-- As many ways to the profile as there are combinations.
CREATE TABLE chained (id int PRIMARY KEY, a int REFERENCES chained, b int REFERENCES chained, uid uuid REFERENCES person);
CREATE INDEX ON chained (a);
CREATE INDEX ON chained (b);
CREATE INDEX ON chained (uid);
CREATE FUNCTION chain(n int) RETURNS text LANGUAGE sql AS $$
    SELECT format('SELECT p.uid, jsonb_build_object(''n'', (SELECT count(*) FROM %s WHERE c0.uid = p.uid AND %s)) AS document FROM person AS p',
        string_agg('chained AS c' || i, ', '), string_agg(format('c%s.id = coalesce(c%s.a, c%2$s.b)', i, i - 1), ' AND ') FILTER (WHERE i > 0)) FROM generate_series(0, n) AS i $$;
SELECT document(chain(40));
:attach
DROP VIEW document;
SELECT document(chain(10));
:attach
DROP VIEW document;
SELECT document(chain(2));
:attach
:check
:detach

-- The event trigger answers at once as well: nothing is trusted of such a view.
SELECT document('SELECT uid, jsonb_build_object(''name'', name) AS document FROM person');
:attach
CALL profile_cache.refresh();
SELECT document('SELECT uid, jsonb_build_object(''name'', name, ''n'', (SELECT max(n) FROM (' || nested('SELECT 1 AS n', 'WITH w AS (%s) SELECT a.n FROM w AS a, w AS b', 12) || ') AS x)) AS document FROM person');
SELECT problem FROM profile_cache.attachment;
SELECT count(*) FROM profile_cache.verify();
SELECT DISTINCT profile_cache.explain(uid) ->> 'served_from' FROM person;
SELECT document('SELECT uid, jsonb_build_object(''name'', name, ''n'', 1) AS document FROM person');
:attach
CALL profile_cache.refresh();
:check
SELECT DISTINCT profile_cache.explain(uid) ->> 'served_from' FROM person;
