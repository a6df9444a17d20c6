-- Functions in FROM, and functions that return sets in a SELECT list, over the tables of tests/catalogue/schema.sql: what
-- is refused, with its reason, and DDL on what such a call uses. tests/catalogue has what is accepted.
\set ECHO none
\i include/output.sql
SET client_min_messages = warning;
CREATE EXTENSION profile_cache;
\i ../catalogue/schema.sql
\i ../catalogue/rows.sql
\set attach 'SELECT profile_cache.attach(\'accounts_profile\', key => \'auth_id\', document => \'document\'); DROP VIEW document;'
\set ECHO all

-- ONE ROW A PROFILE

-- A set beside the profile.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('tag', t.tag) AS document FROM accounts_profile AS p CROSS JOIN LATERAL unnest(p.tags) AS t (tag);
:attach
-- In one call of several.
CREATE VIEW document AS SELECT p.auth_id, to_jsonb(t) AS document FROM accounts_profile AS p LEFT JOIN LATERAL ROWS FROM (upper(p.name), unnest(p.tags)) AS t ON true;
:attach
-- The place of a row is a number, but this asks for several by it.
CREATE VIEW document AS SELECT p.auth_id, to_jsonb(t) AS document FROM accounts_profile AS p LEFT JOIN LATERAL unnest(p.tags) WITH ORDINALITY AS t (tag, n) ON t.n = p.user_no;
:attach
-- Of one row each, but of members there are several.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('serial', u) AS document FROM accounts_profile AS p
    JOIN accounts_device AS d ON d.profile_id = p.id CROSS JOIN LATERAL upper(d.serial) AS u GROUP BY p.auth_id, u;
:attach
-- The same where an argument is a subquery.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('serial', u) AS document FROM accounts_profile AS p
    JOIN accounts_device AS d ON d.profile_id = p.id CROSS JOIN LATERAL upper((SELECT d.serial)) AS u GROUP BY p.auth_id, u;
:attach
-- Several rows are made of one, after the grouping, too.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('tag', unnest(p.tags)) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('serial', unnest(array_agg(d.serial))) AS document FROM accounts_profile AS p
    LEFT JOIN accounts_device AS d ON d.profile_id = p.id GROUP BY p.auth_id;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', count(*)) AS document FROM accounts_profile AS p GROUP BY p.auth_id, unnest(p.tags);
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p ORDER BY unnest(p.tags);
:attach
-- In a subquery of one row.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('theme', f.theme) AS document FROM accounts_profile AS p
    LEFT JOIN (SELECT f.profile_id, f.theme, generate_series(1, 2) FROM accounts_preference AS f) AS f ON f.profile_id = p.id;
:attach

-- WHAT TIES

-- A row of a function is no row that a foreign key knows.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('plans', (SELECT jsonb_agg(l.title ORDER BY l.id) FROM unnest(p.tags) AS t (id) JOIN billing_plan AS l ON l.id = t.id)) AS document
    FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('plans', (SELECT jsonb_agg(l.title ORDER BY l.id) FROM billing_plan AS l WHERE l.id IN (SELECT unnest(p.tags)))) AS document
    FROM accounts_profile AS p;
:attach
-- Nor does the profile's own number come out of it as what it was.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM int8(p.id) AS u (id) JOIN accounts_device AS d ON d.profile_id = u.id)) AS document FROM accounts_profile AS p;
:attach
-- The ON of a join that keeps the table's rows.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM accounts_device AS d LEFT JOIN LATERAL unnest(p.tags) AS t (tag) ON d.profile_id = p.id)) AS document
    FROM accounts_profile AS p;
:attach
-- A table that only a function's argument reads.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM generate_series(1, (SELECT count(*) FROM accounts_device)) AS g)) AS document FROM accounts_profile AS p;
:attach
-- A window over all rows of all members.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT jsonb_agg(x.n ORDER BY x.n) FROM (
        SELECT d.profile_id, rank() OVER (ORDER BY d.id) AS n, string_to_table(d.serial, NULL) FROM accounts_device AS d) AS x WHERE x.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach

-- WHAT IT CALLS

CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('at', (SELECT count(*) FROM clock_timestamp() AS t)) AS document FROM accounts_profile AS p;
:attach
CREATE FUNCTION letters(text) RETURNS SETOF text LANGUAGE sql STABLE BEGIN ATOMIC SELECT string_to_table($1, NULL); END;
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM letters(p.name))) AS document FROM accounts_profile AS p;
:attach
CREATE OR REPLACE FUNCTION letters(text) RETURNS SETOF text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN NEXT $1; END';
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM letters(p.name))) AS document FROM accounts_profile AS p;
:attach
CREATE OR REPLACE FUNCTION letters(text) RETURNS SETOF text LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT d.serial FROM accounts_device AS d WHERE d.serial > $1; END;
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM letters(p.name))) AS document FROM accounts_profile AS p;
:attach
DROP FUNCTION letters;
-- Of a text search parser of some number, which can be dropped.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM ts_parse(3722, p.name))) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM ts_token_type(p.user_no::oid))) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM ts_parse('default', p.name))) AS document FROM accounts_profile AS p;
:attach
-- In an argument.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM generate_series(1, (random() * p.user_no)::int))) AS document FROM accounts_profile AS p;
:attach
-- A day of now.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('days', (SELECT count(*) FROM generate_series(p.created, now(), '1 day') AS d)) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('plan', (SELECT x FROM XMLTABLE('/a' PASSING xmlelement(name a, p.name) COLUMNS x text PATH 'b') AS t)) AS document FROM accounts_profile AS p;
:attach

-- VALUES THAT ARE MADE OUT OF JSON, by input functions that no node names

-- 'today' is another date tomorrow.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('born', (SELECT s.born FROM jsonb_to_record(p.settings) AS s (born date))) AS document FROM accounts_profile AS p;
:attach
-- In an array, a range, a domain, a row.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('days', (SELECT s.days FROM jsonb_to_record(p.settings) AS s (days date[]))) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('days', (SELECT s.days FROM jsonb_to_record(p.settings) AS s (days tstzmultirange))) AS document FROM accounts_profile AS p;
:attach
CREATE DOMAIN day AS date;
CREATE TYPE span AS (first day, name text);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('span', (SELECT jsonb_agg(s.span) FROM json_to_recordset(p.settings::json) AS s (span span))) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, to_jsonb(jsonb_populate_record(NULL::span, p.settings)) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, (SELECT jsonb_agg(s) FROM jsonb_populate_recordset(NULL::span, p.settings) AS s) AS document FROM accounts_profile AS p;
:attach
-- By an aggregate, or an operator.
CREATE AGGREGATE filled(jsonb) (SFUNC = jsonb_populate_record, STYPE = span);
CREATE VIEW document AS SELECT p.auth_id, to_jsonb((SELECT filled(s) FROM jsonb_path_query(p.settings, '$[*]') AS s)) AS document FROM accounts_profile AS p;
:attach
DROP AGGREGATE filled(jsonb);
CREATE OPERATOR <<~ (FUNCTION = jsonb_populate_record, LEFTARG = anyelement, RIGHTARG = jsonb);
CREATE VIEW document AS SELECT p.auth_id, to_jsonb(NULL::span <<~ p.settings) AS document FROM accounts_profile AS p;
:attach
DROP OPERATOR <<~ (anyelement, jsonb);
-- A row of no named type, by what it consists of.
CREATE VIEW document AS SELECT p.auth_id, to_jsonb(jsonb_populate_record(ROW (p.created), p.settings)) AS document FROM accounts_profile AS p;
:attach
-- Behind a function.
CREATE FUNCTION spanned(jsonb) RETURNS text LANGUAGE sql IMMUTABLE RETURN jsonb_populate_record(NULL::span, $1)::text;
CREATE VIEW document AS SELECT p.auth_id, to_jsonb(spanned(p.settings)) AS document FROM accounts_profile AS p;
:attach
CREATE OR REPLACE FUNCTION spanned(jsonb) RETURNS text LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT s.day::text FROM jsonb_to_record($1) AS s (day day); END;
CREATE VIEW document AS SELECT p.auth_id, to_jsonb(spanned(p.settings)) AS document FROM accounts_profile AS p;
:attach
CREATE OR REPLACE FUNCTION spanned(jsonb) RETURNS text LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT 'x'::text FROM XMLTABLE('/a' PASSING '<a/>' COLUMNS x date PATH 'b') AS s; END;
CREATE VIEW document AS SELECT p.auth_id, to_jsonb(spanned(p.settings)) AS document FROM accounts_profile AS p;
:attach
DROP FUNCTION spanned;
DROP TYPE span;
DROP DOMAIN day;
-- A table's name is another one's tomorrow.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(s.about) FROM jsonb_to_record(p.settings) AS s (about regclass))) AS document FROM accounts_profile AS p;
:attach
-- The fields of a row that a function returns are printed with it.
CREATE FUNCTION about(oid, OUT id oid, OUT about regclass) LANGUAGE sql IMMUTABLE RETURN ROW ($1, $1::regclass);
CREATE VIEW document AS SELECT p.auth_id, (SELECT to_jsonb(a) FROM about(p.user_no::oid) AS a) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, to_jsonb(about(p.user_no::oid)) AS document FROM accounts_profile AS p;
:attach
DROP FUNCTION about;
CREATE FUNCTION about(oid) RETURNS regclass LANGUAGE sql IMMUTABLE RETURN $1::regclass;
CREATE VIEW document AS SELECT p.auth_id, (SELECT to_jsonb(a) FROM about(p.user_no::oid) WITH ORDINALITY AS a (about, n)) AS document FROM accounts_profile AS p;
:attach
DROP FUNCTION about;
-- What an aggregate ends with prints what that has gathered.
CREATE FUNCTION later(regclass, regclass) RETURNS regclass LANGUAGE sql IMMUTABLE RETURN $2;
CREATE AGGREGATE latest(regclass) (SFUNC = later, STYPE = regclass, FINALFUNC = to_jsonb);
CREATE VIEW document AS SELECT p.auth_id, (SELECT latest(n::oid ORDER BY n) FROM generate_series(1, p.user_no) AS n) AS document FROM accounts_profile AS p;
:attach
DROP AGGREGATE latest(regclass);
DROP FUNCTION later;

-- WARNINGS

-- A function's own order is one, and a row's place in it is unique.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('tags', (SELECT jsonb_agg(t.tag) FROM unnest(p.tags) AS t (tag)), 'one', (SELECT e FROM jsonb_array_elements(p.settings -> 'list') AS e LIMIT 1),
        'last', (SELECT t.tag FROM unnest(p.tags) WITH ORDINALITY AS t (tag, n) ORDER BY t.n DESC LIMIT 1)) AS document FROM accounts_profile AS p;
SELECT profile_cache.attach('accounts_profile', key => 'auth_id', document => 'document');
-- It is none beside rows of a table, nor below a GROUP BY.
CREATE OR REPLACE VIEW document AS SELECT p.auth_id, jsonb_build_object('serials', (SELECT jsonb_agg(t.part) FROM accounts_device AS d, string_to_table(d.serial, '1') AS t (part) WHERE d.profile_id = p.id)) AS document
    FROM accounts_profile AS p;
SELECT profile_cache.attach('accounts_profile', key => 'auth_id', document => 'document');
CREATE OR REPLACE VIEW document AS SELECT p.auth_id, to_jsonb(ARRAY(SELECT array_agg(t.tag) FROM unnest(p.tags) AS t (tag) GROUP BY length(t.tag) ORDER BY 1)) AS document FROM accounts_profile AS p;
SELECT profile_cache.attach('accounts_profile', key => 'auth_id', document => 'document');
-- The first of a length.
CREATE OR REPLACE VIEW document AS SELECT p.auth_id, to_jsonb((SELECT t.tag FROM unnest(p.tags) AS t (tag) ORDER BY length(t.tag) LIMIT 1)) AS document FROM accounts_profile AS p;
SELECT profile_cache.attach('accounts_profile', key => 'auth_id', document => 'document');
SELECT profile_cache.detach();
DROP VIEW document;

-- DDL ON WHAT A CALL USES

CREATE TYPE choice AS (beta boolean);
CREATE DOMAIN few AS int;
CREATE FUNCTION words(text) RETURNS SETOF text LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT string_to_table($1, ' '); END;
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('words', (SELECT jsonb_agg(w) FROM words(p.name) AS w), 'choice', jsonb_populate_record(NULL::choice, p.settings),
        'country', jsonb_populate_record(NULL::geo_country, '{"id": 1, "iso": "de"}'), 'few', (SELECT to_jsonb(s) FROM jsonb_to_record('{"n": 7}') AS s (n few))) AS document
    FROM accounts_profile AS p WHERE p.id < 3;
SELECT profile_cache.attach('accounts_profile', key => 'auth_id', document => 'document');
\set check 'SELECT get_profile(v.auth_id) = v.document AS same, profile_cache.explain(v.auth_id)->>\'served_from\' AS served_from FROM document AS v ORDER BY 1; CALL profile_cache.refresh();'
CALL profile_cache.refresh();
:check
SELECT document FROM document WHERE auth_id = '00000000-0000-4000-8000-000000000001';
CREATE OR REPLACE FUNCTION words(text) RETURNS SETOF text LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT upper(string_to_table($1, ' ')); END;
:check
ALTER TYPE choice ADD ATTRIBUTE n numeric;
:check
ALTER TABLE geo_country ADD COLUMN capital text;
:check
ALTER DOMAIN few ADD CHECK (VALUE > 5);
:check
SELECT document FROM document WHERE auth_id = '00000000-0000-4000-8000-000000000001';
-- What no longer holds for every reading is distrusted until it does again.
ALTER FUNCTION words VOLATILE;
:check
ALTER FUNCTION words IMMUTABLE;
:check
:check
