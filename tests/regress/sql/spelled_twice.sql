-- A profile's key under a collation that ignores case, to which its members refer in any spelling: all of them name one
-- row, and are done with once that is. Fails without: a spelling that the row does not have pending for ever, so
-- that each read computes.
\set ECHO none
\i include/output.sql
SET client_min_messages = warning;
CREATE EXTENSION profile_cache;
CREATE COLLATION any_case (PROVIDER = icu, LOCALE = 'und-u-ks-level2', DETERMINISTIC = false);
\set ECHO all
CREATE TABLE person (id text COLLATE any_case PRIMARY KEY, uid uuid NOT NULL UNIQUE);
CREATE TABLE pet (id int PRIMARY KEY, owner text COLLATE any_case NOT NULL REFERENCES person, name text);
CREATE INDEX ON pet (owner);
INSERT INTO person VALUES ('Ann', '00000000-0000-4000-8000-000000000001'), ('Bob', '00000000-0000-4000-8000-000000000002');
INSERT INTO pet VALUES (1, 'ann', 'Rex'), (2, 'ANN', 'Tom'), (3, 'bob', 'Max');
CREATE VIEW shown AS SELECT p.uid, jsonb_build_object('pets', (SELECT jsonb_agg(t.name ORDER BY t.id) FROM pet AS t WHERE t.owner = p.id)) AS document FROM person AS p;
SELECT profile_cache.attach('person', key => 'uid', document => 'shown');
CALL profile_cache.refresh();
UPDATE pet SET name = upper(name);
SELECT p.id, get_profile(p.uid), profile_cache.explain(p.uid) ->> 'served_from' AS served_from FROM person AS p ORDER BY p.id;
SELECT key_values FROM profile_cache.pending;
-- One that is pending, since its row comes later: refresh ends it.
SET session_replication_role = replica;
INSERT INTO pet VALUES (4, 'CID', 'Kit');
RESET session_replication_role;
SELECT kind, key_values FROM profile_cache.pending;
INSERT INTO person VALUES ('Cid', '00000000-0000-4000-8000-000000000003');
CALL profile_cache.refresh();
SELECT p.id, get_profile(p.uid), profile_cache.explain(p.uid) ->> 'served_from' AS served_from FROM person AS p ORDER BY p.id;
SELECT key_values FROM profile_cache.pending;
