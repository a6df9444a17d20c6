-- Whole rows of the profile, as to_jsonb(p) - 'password': they would bring the cached document into the document. So they
-- are refused, and the hint has the text to write instead: it is taken from there and attached.
\set ECHO none
\i include/output.sql
SET client_min_messages = warning;
CREATE EXTENSION profile_cache;
CREATE TABLE "Members" (id int PRIMARY KEY, "user" uuid NOT NULL UNIQUE, gone text, "Full name" text, password text, chief int REFERENCES "Members", extra jsonb);
CREATE INDEX ON "Members" (chief);
ALTER TABLE "Members" DROP COLUMN gone;
INSERT INTO "Members" VALUES (1, '00000000-0000-4000-8000-000000000001', 'Ada', 'secret', NULL, '{}'), (2, '00000000-0000-4000-8000-000000000002', 'Bob', 'secret', 1, NULL);
-- What attach() advises, from its hint.
CREATE FUNCTION advised(pattern text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE hint text;
BEGIN
    PERFORM profile_cache.attach('"Members"', key => 'user', document => 'document');
    RETURN 'accepted';
EXCEPTION WHEN feature_not_supported THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN substring(hint FROM pattern);
END $$;
\set attach 'SELECT profile_cache.attach(\'"Members"\', key => \'user\', document => \'document\');'
\set check 'CALL profile_cache.refresh(); SELECT get_profile(v."user") = v.document AS same, profile_cache.explain(v."user")->>\'served_from\' AS served_from FROM document AS v ORDER BY v."user"; SELECT document FROM document ORDER BY "user";'
\set ECHO all

-- Before the first attach().
CREATE VIEW document AS SELECT "order"."user", to_jsonb("order") - 'password' AS document FROM "Members" AS "order";
:attach
SELECT advised('write (.*), without') AS advised \gset
CREATE OR REPLACE VIEW document AS SELECT "order"."user", :advised - 'password' AS document FROM "Members" AS "order";
:attach
:check
-- The columns that it names are watched, whatever is taken away again; ours are none of them.
UPDATE "Members" SET "Full name" = 'Ada Lovelace', password = 'more secret' WHERE id = 1;
:check
-- A column that comes later is shown when the view shows it.
ALTER TABLE "Members" ADD COLUMN later text DEFAULT 'x';
:check
DROP VIEW document;
CREATE VIEW document AS SELECT p."user", to_jsonb(p) AS document FROM "Members" AS p;
SELECT advised('write (.*), without') AS advised \gset
CREATE OR REPLACE VIEW document AS SELECT p."user", :advised - 'password' AS document FROM "Members" AS p;
:attach
:check

-- In another profile, as a list, as a record, as a value that is only asked for, in other functions.
CREATE OR REPLACE VIEW document AS SELECT p."user", jsonb_build_object('chief', (SELECT to_jsonb(m) FROM "Members" AS m WHERE m.id = p.chief)) AS document FROM "Members" AS p;
:attach
SELECT advised('write (.*), without') AS advised \gset
CREATE OR REPLACE VIEW document AS SELECT p."user", jsonb_build_object('chief', (SELECT :advised FROM "Members" AS m WHERE m.id = p.chief)) AS document FROM "Members" AS p;
:attach
:check
CREATE OR REPLACE VIEW document AS SELECT p."user", jsonb_build_object('all', (SELECT jsonb_agg(m ORDER BY m.id) FROM "Members" AS m WHERE m.chief = p.id)) AS document FROM "Members" AS p;
SELECT advised('.*');
CREATE OR REPLACE VIEW document AS SELECT p."user", row_to_json(p)::jsonb - '{password,cached_profile,cached_profile_epoch,cached_profile_valid_until,profile_cache_updated_at}'::text[] AS document FROM "Members" AS p;
SELECT advised('.*');
CREATE OR REPLACE VIEW document AS SELECT p."user", jsonb_build_object('n', (SELECT count(*) FROM jsonb_each(to_jsonb(p)))) AS document FROM "Members" AS p;
SELECT advised('.*');

-- p.* in a subquery is its columns of the moment when the view is made: of now, ours are among them.
CREATE OR REPLACE VIEW document AS SELECT p."user", (SELECT to_jsonb(r) - 'password' FROM (SELECT p.*) AS r) AS document FROM "Members" AS p;
:attach
SELECT advised('write (.*)\.$') AS advised \gset
CREATE OR REPLACE VIEW document AS SELECT p."user", (SELECT to_jsonb(r) - 'password' FROM (SELECT :advised) AS r) AS document FROM "Members" AS p;
:attach
:check
-- Made before they were there, it goes without them.
SELECT profile_cache.detach();
CREATE OR REPLACE VIEW document AS SELECT p."user", (SELECT to_jsonb(r) - 'password' FROM (SELECT p.*) AS r) AS document FROM "Members" AS p;
:attach
:check
