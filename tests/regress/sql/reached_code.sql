-- What code a document view may reach, and whose: only what is the same in every session (C, or SQL with a
-- parsed body), and nobody's but the tables' owner's or a superuser's. What is found later makes reads fail:
-- reading the view would run that code as the tables' owner.
-- Rules: D8.
\set ECHO none
\i include/output.sql
SET client_min_messages = warning;
CREATE EXTENSION profile_cache;
CREATE EXTENSION citext VERSION '1.6';
CREATE ROLE regress_app;
CREATE ROLE regress_old;
CREATE SCHEMA crm;
GRANT USAGE, CREATE ON SCHEMA crm TO regress_app, regress_old;
SET search_path = crm, public;
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN short AS text;
CREATE FUNCTION fits(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN true; END';
CREATE DOMAIN tight AS text CHECK (fits(VALUE));
CREATE TYPE pair AS (a int, b tight);
CREATE TABLE person (id bigint PRIMARY KEY, uid uuid NOT NULL UNIQUE, name text, mood mood DEFAULT 'good', nick citext, words tsvector, lang regconfig, pair pair);
INSERT INTO person (id, uid, name) SELECT n, ('00000000-0000-0000-0000-00000000000' || n)::uuid, 'Name ' || n FROM generate_series(1, 3) AS n;
\set attach 'SELECT profile_cache.attach(\'person\', key => \'uid\', document => \'document\');'
\set refused 'SELECT profile_cache.attach(\'person\', key => \'uid\', document => \'document\'); DROP VIEW document;'
\set state 'SELECT string_agg(profile_cache.explain(uid) ->> \'served_from\', \', \' ORDER BY id) || \' \' || coalesce((SELECT string_agg(problem, \', \') FROM profile_cache.verify()), \'and right\') FROM person;'
\set ECHO all

-- LANGUAGES

-- PL/pgSQL is compiled by whoever calls it first in a session, and so is what it names; search_path does not help.
CREATE FUNCTION f(text) RETURNS text LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$ DECLARE r text; BEGIN r := $1; RETURN r; END $$;
CREATE VIEW document AS SELECT uid, to_jsonb(f(name)) AS document FROM person;
:refused
-- SQL in a string is read anew in every session, and nobody knows what it calls.
CREATE OR REPLACE FUNCTION f(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper($1)';
CREATE VIEW document AS SELECT uid, to_jsonb(f(name)) AS document FROM person;
:refused
-- Behind an operator; behind its commutator and negator, which the planner may take instead.
CREATE FUNCTION same(mood, mood) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN true; END';
CREATE FUNCTION differ(mood, mood) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN enum_cmp($1, $2) <> 0;
CREATE OPERATOR ~~~ (FUNCTION = same, LEFTARG = mood, RIGHTARG = mood);
CREATE VIEW document AS SELECT uid, to_jsonb(mood ~~~ 'good') AS document FROM person;
:refused
CREATE OPERATOR !~~~ (FUNCTION = differ, LEFTARG = mood, RIGHTARG = mood, NEGATOR = ~~~);
CREATE VIEW document AS SELECT uid, to_jsonb(mood !~~~ 'good') AS document FROM person;
:refused
DROP OPERATOR !~~~ (mood, mood), ~~~ (mood, mood);
-- Behind an aggregate.
CREATE FUNCTION longer(text, text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN greatest($1, $2); END';
CREATE AGGREGATE longest(text) (SFUNC = longer, STYPE = text);
CREATE VIEW document AS SELECT p.uid, to_jsonb((SELECT longest(q.name) FROM person AS q WHERE q.id = p.id)) AS document FROM person AS p;
:refused
DROP AGGREGATE longest(text);
-- Behind a cast that the view asks for, and behind the one to json that to_jsonb finds by itself, also within an array, a row.
CREATE FUNCTION told(mood) RETURNS json LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN to_json(1); END';
CREATE CAST (mood AS json) WITH FUNCTION told(mood);
CREATE VIEW document AS SELECT uid, jsonb_build_object('mood', mood) AS document FROM person;
:refused
CREATE VIEW document AS SELECT uid, to_jsonb(ARRAY[ROW(mood)]) AS document FROM person;
:refused
DROP CAST (mood AS json);
-- Behind the CHECK of a domain that the view casts to; itself, as a field, behind another domain.
CREATE VIEW document AS SELECT uid, to_jsonb(name::tight) AS document FROM person;
:refused
CREATE VIEW document AS SELECT uid, to_jsonb(ROW(1, name)::pair) AS document FROM person;
:refused
CREATE DOMAIN tighter AS tight;
CREATE VIEW document AS SELECT uid, to_jsonb(ARRAY[name]::tighter[]) AS document FROM person;
:refused
-- A column whose type has such a CHECK has values that were checked: reading them runs nothing.
CREATE VIEW document AS SELECT uid, to_jsonb(pair) AS document FROM person;
:attach
SELECT profile_cache.detach();
DROP VIEW document;
CREATE OR REPLACE FUNCTION fits(text) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN true;
-- Behind an operator class, by which values are sorted, grouped and compared.
CREATE FUNCTION less(pair, pair) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN ($1).a < ($2).a;
CREATE FUNCTION equals(pair, pair) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN ($1).a = ($2).a;
CREATE FUNCTION compare(pair, pair) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN ($1).a - ($2).a; END';
CREATE OPERATOR <<< (FUNCTION = less, LEFTARG = pair, RIGHTARG = pair);
CREATE OPERATOR === (FUNCTION = equals, LEFTARG = pair, RIGHTARG = pair);
CREATE OPERATOR CLASS pair_ops DEFAULT FOR TYPE pair USING btree AS OPERATOR 1 <<<, OPERATOR 3 ===, FUNCTION 1 compare(pair, pair);
CREATE VIEW document AS SELECT uid, to_jsonb(pair === pair) AS document FROM person;
:refused
CREATE VIEW document AS SELECT uid, to_jsonb(ARRAY[pair] = ARRAY[pair]) AS document FROM person;
:refused
DROP OPERATOR FAMILY pair_ops USING btree;
DROP OPERATOR <<< (pair, pair), === (pair, pair);
-- Behind a range's subtype difference.
CREATE FUNCTION apart(int, int) RETURNS float8 LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1 - $2; END';
CREATE TYPE span AS RANGE (SUBTYPE = int, SUBTYPE_DIFF = apart);
CREATE VIEW document AS SELECT uid, to_jsonb(span(1, 2) @> id::int) AS document FROM person;
:refused
DROP TYPE span;
-- Behind a parsed body, and behind the default of an argument that the view leaves out.
CREATE FUNCTION g(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN f($1);
CREATE VIEW document AS SELECT uid, to_jsonb(g(name)) AS document FROM person;
:refused
CREATE FUNCTION h(a text, b text DEFAULT f('x')) RETURNS text LANGUAGE sql IMMUTABLE RETURN a || b;
CREATE VIEW document AS SELECT uid, to_jsonb(h(name)) AS document FROM person;
:refused
DROP FUNCTION g, h;
-- An extension's, though a superuser's: citext's replace() has its SQL in a string (up to 1.7); its operators are in C.
CREATE VIEW document AS SELECT uid, to_jsonb(replace(nick, 'a', 'b')) AS document FROM person;
:refused
CREATE VIEW document AS SELECT uid, to_jsonb(nick = 'x') AS document FROM person;
:attach
SELECT profile_cache.detach();
DROP VIEW document;
DROP FUNCTION f, same, differ, longer, told, less, equals, compare, apart;

-- WHAT PARSED CODE CALLS

-- It says IMMUTABLE; its body does not: random, the time, the session, a table, also behind another.
CREATE FUNCTION f(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN $1 || random();
CREATE FUNCTION g(text) RETURNS text LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT max(f(x)) FROM unnest(ARRAY[$1]) AS x; END;
CREATE VIEW document AS SELECT uid, to_jsonb(g(name)) AS document FROM person;
:refused
CREATE OR REPLACE FUNCTION f(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN $1 || now();
CREATE VIEW document AS SELECT uid, to_jsonb(g(name)) AS document, NULL::timestamptz AS valid_until FROM person;
:refused
CREATE OR REPLACE FUNCTION f(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN $1 || current_user;
CREATE VIEW document AS SELECT uid, to_jsonb(g(name)) AS document FROM person;
:refused
CREATE OR REPLACE FUNCTION f(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN $1 || current_setting('app.x');
CREATE VIEW document AS SELECT uid, to_jsonb(g(name)) AS document FROM person;
:refused
CREATE OR REPLACE FUNCTION f(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN (SELECT max(name) FROM person);
CREATE VIEW document AS SELECT uid, to_jsonb(g(name)) AS document FROM person;
:refused
DROP FUNCTION g, f;
-- An argument's default, and a function that is found in a generator in FROM.
CREATE FUNCTION f(a text, b float8 DEFAULT random()) RETURNS text LANGUAGE sql IMMUTABLE RETURN a || b;
CREATE VIEW document AS SELECT uid, to_jsonb(f(name)) AS document FROM person;
:refused
DROP FUNCTION f;
CREATE FUNCTION f(text) RETURNS bigint LANGUAGE sql IMMUTABLE RETURN (SELECT count(*) FROM generate_series(1, (10 * random())::int));
CREATE VIEW document AS SELECT uid, to_jsonb(f(name)) AS document FROM person;
:refused
DROP FUNCTION f;
-- The CHECK of a domain: VOLATILE, and one that reads a table.
ALTER DOMAIN short ADD CONSTRAINT lucky CHECK (length(VALUE) > random());
CREATE VIEW document AS SELECT uid, to_jsonb(name::short) AS document FROM person;
:refused
ALTER DOMAIN short DROP CONSTRAINT lucky;
CREATE TABLE words (word text);
CREATE FUNCTION known(text) RETURNS boolean LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT NOT EXISTS (SELECT FROM crm.words WHERE word = $1); END;
ALTER DOMAIN short ADD CONSTRAINT known CHECK (known(VALUE));
CREATE VIEW document AS SELECT uid, to_jsonb(name::short) AS document FROM person;
:refused
ALTER DOMAIN short DROP CONSTRAINT known;
DROP FUNCTION known;
-- A text search configuration that is not written in the view: which one, nothing says.
CREATE VIEW document AS SELECT uid, to_jsonb(to_tsvector(lang, name)::text) AS document FROM person;
:refused
CREATE VIEW document AS SELECT uid, to_jsonb(to_tsvector(name::regconfig, name)::text) AS document FROM person;
:refused
CREATE VIEW document AS SELECT uid, to_jsonb(ts_lexize(id::oid::regdictionary, name)) AS document FROM person;
:refused

-- WHAT IS FOLLOWED

-- f calls g: its replacement makes everything pending.
CREATE FUNCTION g(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN lower($1);
CREATE FUNCTION f(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN '<' || g($1) || '>';
CREATE TEXT SEARCH CONFIGURATION plain (COPY = simple);
CREATE VIEW document AS SELECT uid, jsonb_build_object('name', f(name), 'mood', mood, 'plain', to_tsvector('plain', name)::text, 'simple', to_tsvector('pg_catalog.simple', name)::text) AS document FROM person;
:attach
CALL profile_cache.refresh();
:state
CREATE OR REPLACE FUNCTION g(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN upper($1);
:state
SELECT get_profile(uid) ->> 'name' FROM person WHERE id = 1;
CALL profile_cache.refresh();
:state
-- So does a configuration in a constant, built-in ones too.
ALTER TEXT SEARCH CONFIGURATION plain ALTER MAPPING FOR asciiword WITH english_stem;
:state
CALL profile_cache.refresh();
:state
ALTER TEXT SEARCH CONFIGURATION pg_catalog.simple ALTER MAPPING FOR asciiword WITH english_stem;
:state
ALTER TEXT SEARCH CONFIGURATION pg_catalog.simple ALTER MAPPING FOR asciiword WITH simple;
CALL profile_cache.refresh();
:state
-- What may not be reached appears later: reads fail, and say what to do.
CREATE OR REPLACE FUNCTION g(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE WARNING 'g ran'; RETURN $1; END $$;
SELECT get_profile(uid) FROM person WHERE id = 1;
SELECT problem, unsafe FROM profile_cache.attachment;
SELECT warnings FROM profile_cache.status;
CREATE OR REPLACE FUNCTION g(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN upper($1);
SELECT problem, unsafe FROM profile_cache.attachment;
CALL profile_cache.refresh();
:state

-- OWNERS

-- Of a type: its owner may later create a cast to json.
ALTER TYPE mood OWNER TO regress_old;
SET ROLE regress_old;
CREATE FUNCTION evil(mood) RETURNS json LANGUAGE sql IMMUTABLE RETURN to_json(current_user);
CREATE CAST (mood AS json) WITH FUNCTION evil(mood);
RESET ROLE;
SELECT get_profile(uid) FROM person WHERE id = 1;
:attach
ALTER TYPE mood OWNER TO CURRENT_USER;
SELECT get_profile(uid) FROM person WHERE id = 1;
:attach
DROP CAST (mood AS json);
DROP FUNCTION evil;
CALL profile_cache.refresh();
:state
-- Of a superuser's function, given away where no event trigger hears of it: whoever looks next does.
CREATE ROLE regress_super SUPERUSER;
ALTER FUNCTION g OWNER TO regress_super;
:state
CALL profile_cache.refresh();
REASSIGN OWNED BY regress_super TO regress_old;
\c
SET search_path = crm, public;
SET client_min_messages = warning;
SELECT get_profile(uid) FROM person WHERE id = 1;
SELECT count(*) FROM profile_cache.verify();
ALTER FUNCTION g OWNER TO CURRENT_USER;
DROP ROLE regress_super;
CALL profile_cache.refresh();
:state
SELECT profile_cache.detach();
DROP VIEW document;
-- Of each kind of object that a view can reach.
CREATE OPERATOR ~~~ (FUNCTION = textlike, LEFTARG = text, RIGHTARG = text);
ALTER OPERATOR ~~~ (text, text) OWNER TO regress_old;
CREATE VIEW document AS SELECT uid, to_jsonb(name ~~~ 'a') AS document FROM person;
:refused
DROP OPERATOR ~~~ (text, text);
CREATE AGGREGATE longest(text) (SFUNC = text_larger, STYPE = text);
ALTER AGGREGATE longest(text) OWNER TO regress_old;
CREATE VIEW document AS SELECT p.uid, to_jsonb((SELECT longest(q.name) FROM person AS q WHERE q.id = p.id)) AS document FROM person AS p;
:refused
DROP AGGREGATE longest(text);
ALTER DOMAIN short OWNER TO regress_old;
CREATE VIEW document AS SELECT uid, to_jsonb(name::short) AS document FROM person;
:refused
ALTER DOMAIN short OWNER TO CURRENT_USER;
CREATE COLLATION any_case (PROVIDER = icu, LOCALE = 'und-u-ks-level2', DETERMINISTIC = false);
ALTER COLLATION any_case OWNER TO regress_old;
CREATE VIEW document AS SELECT uid, to_jsonb(name = 'a' COLLATE any_case) AS document FROM person;
:refused
DROP COLLATION any_case;
ALTER TEXT SEARCH CONFIGURATION plain OWNER TO regress_old;
CREATE VIEW document AS SELECT uid, to_jsonb(to_tsvector('plain', name)::text) AS document FROM person;
:refused
DROP TEXT SEARCH CONFIGURATION plain;
CREATE OPERATOR CLASS backwards FOR TYPE text USING btree AS OPERATOR 1 >, OPERATOR 3 =, OPERATOR 5 <, FUNCTION 1 bttextcmp(text, text);
ALTER OPERATOR CLASS backwards USING btree OWNER TO regress_old;
CREATE INDEX backwards ON person (name backwards);
CREATE VIEW document AS SELECT uid, to_jsonb(name) AS document FROM person;
:refused
DROP OPERATOR CLASS backwards USING btree CASCADE;

-- THE OLD OWNER OF THE TABLES

-- The table is another's now, the view is not: its owner puts a function of his own into it.
CREATE VIEW document AS SELECT uid, to_jsonb(name) AS document FROM person;
:attach
CALL profile_cache.refresh();
:state
ALTER VIEW document OWNER TO regress_old;
ALTER TABLE person OWNER TO regress_app;
CREATE FUNCTION evil(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE WARNING 'ran as %', current_user; RETURN $1; END $$;
ALTER FUNCTION evil OWNER TO regress_old;
GRANT SELECT ON person TO regress_old;
SET ROLE regress_old;
CREATE OR REPLACE VIEW document AS SELECT uid, to_jsonb(evil(name)) AS document FROM person;
RESET ROLE;
SELECT get_profile(uid) FROM person WHERE id = 1;
SELECT profile_cache.explain(uid) FROM person WHERE id = 1;
SELECT * FROM profile_cache.verify();
CALL profile_cache.refresh();
SELECT cached, warnings FROM profile_cache.status;
-- Writes go on, and whatever they touch is not served later.
UPDATE person SET name = 'Changed' WHERE id = 1;
-- Where that was never written down, who reads finds it out.
UPDATE profile_cache.attachment SET problem = NULL, unsafe = false;
SELECT get_profile(uid) FROM person WHERE id = 1;
ALTER VIEW document OWNER TO regress_app;
SELECT get_profile(uid) FROM person WHERE id = 1;
CREATE OR REPLACE VIEW document AS SELECT uid, to_jsonb(name) AS document FROM person;
:attach
CALL profile_cache.refresh();
:state
SELECT get_profile(uid) FROM person WHERE id = 1;

-- A nested view, given away while no event trigger listens: backends that know it look again.
CREATE VIEW names AS SELECT id, name FROM person;
ALTER VIEW names OWNER TO regress_app;
CREATE OR REPLACE VIEW document AS SELECT p.uid, to_jsonb(n.name) AS document FROM person AS p JOIN names AS n ON n.id = p.id;
:attach
CALL profile_cache.refresh();
:state
ALTER EVENT TRIGGER profile_cache_ddl DISABLE;
ALTER VIEW names OWNER TO regress_old;
ALTER EVENT TRIGGER profile_cache_ddl ENABLE ALWAYS;
SELECT get_profile(uid) FROM person WHERE id = 1;
ALTER VIEW names OWNER TO regress_app;
CALL profile_cache.refresh();
:state
-- Nor is it read as long as it is written down to be unsafe; attach() looks again.
UPDATE profile_cache.attachment SET problem = 'written down', unsafe = true;
SELECT get_profile(uid) FROM person WHERE id = 1;
:attach
CALL profile_cache.refresh();
:state

-- PLANNING

-- Planning a query on a table simplifies what its indexes, CHECKs and statistics say, and calls what has constant arguments.
CREATE FUNCTION least_id(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END';
CREATE INDEX newer ON person (id) WHERE id > least_id(0);
SELECT get_profile(uid) FROM person WHERE id = 1;
:attach
DROP INDEX newer;
ALTER TABLE person ADD CONSTRAINT newer CHECK (id > least_id(0) - 10);
:attach
ALTER TABLE person DROP CONSTRAINT newer;
-- With a column among the arguments nothing is called.
CREATE INDEX newer ON person (id) WHERE id > least_id(id::int) - 1;
SET client_min_messages = error;
:attach
SET client_min_messages = warning;
DROP INDEX newer;
CALL profile_cache.refresh();
:state

-- INDEXES OF THE PROFILE

-- A new version of a row runs their expressions, predicates and operator classes.
CREATE FUNCTION folded(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN lower($1); END';
CREATE FUNCTION parsed(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN lower($1);
CREATE INDEX by_parsed ON person (parsed(name)) WHERE nick <> 'x';
:attach
CREATE INDEX by_folded ON person (folded(name));
CREATE INDEX where_folded ON person (id) WHERE folded(name) = 'x';
:attach
DROP INDEX by_folded, where_folded;
ALTER FUNCTION parsed OWNER TO regress_old;
:attach

SELECT profile_cache.detach();
\c
DROP SCHEMA crm CASCADE;
DROP OWNED BY regress_app, regress_old;
DROP ROLE regress_app, regress_old;
