-- DDL on what a view of the app's own depends on: renames carry over, for backends that run already
-- too ("other"); whatever else may change a document distrusts all in its own transaction; what can no
-- longer be proven is read live until it is mended, and status says what to do. Nothing stale is served
-- at any step, and after mending everything is cached again.
\set ECHO none
\i include/own.sql
\i include/output.sql
CREATE EXTENSION dblink;
-- Two nested views, one within the other, a function, an enum, a whole row, the profile table itself
-- once more, two columns as a foreign key, and a constant key.
CREATE FUNCTION crm.shown(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN '<' || $1 || '>';
CREATE VIEW crm.place AS SELECT n.code, n.name FROM crm.country AS n;
CREATE VIEW crm.firm AS SELECT c.id, c.name, p.name AS country FROM crm.company AS c LEFT JOIN crm.place AS p ON p.code = c.country;
CREATE VIEW crm.api_profile AS
SELECT p.uid, jsonb_build_object(
        'name', crm.shown(p.name), 'standing', p.standing, 'firm', f.name, 'country', f.country, 'manager', m.name, 'room', d.room,
        'contracts', (SELECT jsonb_agg(to_jsonb(t) ORDER BY k.id) FROM crm.contract AS k JOIN crm.tariff AS t ON t.code = k.tariff WHERE k.person_id = p.id),
        'currency', (SELECT s.value FROM crm.setting AS s WHERE s.name = 'currency')) AS document
FROM crm.person AS p
LEFT JOIN crm.firm AS f ON f.id = p.company_id
LEFT JOIN crm.person AS m ON m.id = p.manager_id
LEFT JOIN crm.desk AS d ON d.branch = p.branch AND d.staff_no = p.staff_no;
SELECT profile_cache.attach('crm.person', document => 'crm.api_profile', key => 'uid');
CALL profile_cache.refresh();
SELECT dblink_connect('other', format('host=%s port=%s dbname=%s user=%s', current_setting('unix_socket_directories'), current_setting('port'), current_database(), current_user)) AS connected \gset
CREATE FUNCTION other() RETURNS text LANGUAGE sql AS $$
    SELECT * FROM dblink('other', 'SELECT state() || '' wrong: '' || (SELECT count(*) FROM wrong())') AS t(state text) $$;
-- In the other backend, which has read the attachment as it was: a write.
CREATE FUNCTION other(write text) RETURNS text LANGUAGE sql AS $$ SELECT dblink_exec('other', write) $$;
\set check 'SELECT state(); SELECT * FROM pending(); SELECT what, user_id FROM wrong(); SELECT other(); CALL profile_cache.refresh(); SELECT state(); SELECT what, user_id FROM wrong(); SELECT other(); SELECT warnings FROM profile_cache.status;'
\set unchanged 'SELECT state(); SELECT * FROM pending(); SELECT what, user_id FROM wrong(); SELECT other(); SELECT warnings FROM profile_cache.status;'
\set attach 'SELECT profile_cache.attach(''crm.person'', document => ''crm.api_profile'', key => ''uid'');'
\set ECHO all
:unchanged

-- Renames. After each, a write by the new name in the other backend.
ALTER TABLE crm.person RENAME COLUMN name TO full_name;
:check
SELECT other('UPDATE crm.person SET full_name = ''Anna'' WHERE id = 1');
:check
ALTER TABLE crm.country RENAME COLUMN name TO title;
SELECT other('UPDATE crm.country SET title = ''Österreich'' WHERE code = ''at''');
:check
-- A column that links, and both ends of a key of two columns.
ALTER TABLE crm.company RENAME COLUMN country TO country_code;
SELECT other('UPDATE crm.company SET country_code = ''be'' WHERE id = 1');
:check
ALTER TABLE crm.desk RENAME COLUMN staff_no TO number;
SELECT other('UPDATE crm.desk SET number = 2 WHERE id = 1');
:check
ALTER TABLE crm.person RENAME COLUMN branch TO branch_office;
SELECT other('UPDATE crm.person SET branch_office = ''west'' WHERE id = 2');
:check
ALTER TABLE crm.person RENAME COLUMN manager_id TO boss;
SELECT other('UPDATE crm.person SET boss = 3 WHERE id = 2; UPDATE crm.person SET full_name = ''Catherine'' WHERE id = 3');
:check
ALTER TABLE crm.person RENAME COLUMN uid TO account;
:check
-- A column of the whole row that is shown: it is a key of the document.
ALTER TABLE crm.tariff RENAME COLUMN price TO amount;
SELECT get_profile(u(3)) -> 'contracts';
:check
-- Tables, in the middle of a route and at its ends.
ALTER TABLE crm.company RENAME TO corporation;
SELECT other('UPDATE crm.corporation SET name = ''Acme & Sons'' WHERE id = 1');
:check
ALTER TABLE crm.desk RENAME TO workplace;
SELECT other('UPDATE crm.workplace SET room = ''3.14'' WHERE id = 2');
:check
ALTER TABLE crm.person RENAME TO human;
SELECT other('UPDATE crm.human SET full_name = ''Ann'' WHERE id = 1');
:check
-- Schemas: one table's, everything's, the type's.
CREATE SCHEMA geo;
ALTER TABLE crm.country SET SCHEMA geo;
SELECT other('UPDATE geo.country SET title = ''Belgique'' WHERE code = ''be''');
:check
ALTER SCHEMA geo RENAME TO geography;
SELECT other('UPDATE geography.country SET title = ''België'' WHERE code = ''be''');
:check
ALTER SCHEMA crm RENAME TO sales;
SELECT other('UPDATE sales.corporation SET name = ''Acme'' WHERE id = 1; UPDATE sales.setting SET value = ''CHF'' WHERE name = ''currency''');
:check
SELECT other('UPDATE sales.workplace SET room = ''4.04'' WHERE id = 2');
:check
ALTER SCHEMA sales RENAME TO crm;
ALTER SCHEMA geography RENAME TO geo;
ALTER TABLE geo.country SET SCHEMA crm;
ALTER TABLE crm.human RENAME TO person;
ALTER TABLE crm.workplace RENAME TO desk;
ALTER TABLE crm.corporation RENAME TO company;
:check
-- Views: a column of the document view (its key's, and another), itself, nested ones.
ALTER VIEW crm.api_profile RENAME COLUMN uid TO user_id;
SELECT other('UPDATE crm.person SET full_name = ''Bobby'' WHERE id = 2');
:check
ALTER VIEW crm.api_profile RENAME COLUMN document TO json;
SELECT state();
SELECT get_profile(u(1));
\echo :SQLSTATE
SELECT warnings FROM profile_cache.status;
UPDATE crm.person SET full_name = 'goes through' WHERE id = 1;
ALTER VIEW crm.api_profile RENAME COLUMN json TO document;
:check
ALTER VIEW crm.api_profile RENAME COLUMN user_id TO uid;
ALTER VIEW crm.api_profile RENAME TO profile_json;
:check
ALTER VIEW crm.profile_json SET SCHEMA geo;
:check
ALTER VIEW geo.profile_json SET SCHEMA crm;
ALTER VIEW crm.profile_json RENAME TO api_profile;
ALTER VIEW crm.place RENAME TO location;
ALTER VIEW crm.location RENAME COLUMN name TO label;
SELECT other('UPDATE crm.country SET title = ''Belgium'' WHERE code = ''be''');
:check
ALTER VIEW crm.location RENAME COLUMN label TO name;
ALTER FUNCTION crm.shown RENAME TO displayed;
:check
ALTER TYPE crm.standing RENAME TO reputation;
:check
-- The names as they were.
ALTER TABLE crm.person RENAME COLUMN account TO uid;
ALTER TABLE crm.person RENAME COLUMN full_name TO name;
ALTER TABLE crm.person RENAME COLUMN branch_office TO branch;
ALTER TABLE crm.person RENAME COLUMN boss TO manager_id;
ALTER TABLE crm.desk RENAME COLUMN number TO staff_no;
ALTER TABLE crm.country RENAME COLUMN title TO name;
ALTER TABLE crm.company RENAME COLUMN country_code TO country;
ALTER TABLE crm.tariff RENAME COLUMN amount TO price;
ALTER VIEW crm.location RENAME TO place;
ALTER FUNCTION crm.displayed RENAME TO shown;
ALTER TYPE crm.reputation RENAME TO standing;
:check

-- A view replaced by one that depends on no more than before: goes on, everything pending once.
CREATE OR REPLACE VIEW crm.place AS SELECT n.code, 'in ' || n.name AS name FROM crm.country AS n;
SELECT get_profile(u(1)) -> 'country';
:check
CREATE OR REPLACE VIEW crm.api_profile AS
SELECT p.uid, jsonb_build_object(
        'name', crm.shown(p.name), 'standing', p.standing, 'firm', f.name, 'country', f.country, 'manager', m.name,
        'contracts', (SELECT jsonb_agg(to_jsonb(t) ORDER BY k.id) FROM crm.contract AS k JOIN crm.tariff AS t ON t.code = k.tariff WHERE k.person_id = p.id),
        'currency', (SELECT s.value FROM crm.setting AS s WHERE s.name = 'currency')) AS document
FROM crm.person AS p LEFT JOIN crm.firm AS f ON f.id = p.company_id LEFT JOIN crm.person AS m ON m.id = p.manager_id;
SELECT get_profile(u(1)) ? 'room';
:check
SELECT tables FROM profile_cache.status;
-- By one that depends on more: live until attach(), which waits for writers.
CREATE OR REPLACE VIEW crm.api_profile AS
SELECT p.uid, jsonb_build_object(
        'name', crm.shown(p.name), 'standing', p.standing, 'firm', f.name, 'country', f.country, 'manager', m.name, 'room', d.room,
        'contracts', (SELECT jsonb_agg(to_jsonb(t) ORDER BY k.id) FROM crm.contract AS k JOIN crm.tariff AS t ON t.code = k.tariff WHERE k.person_id = p.id),
        'currency', (SELECT s.value FROM crm.setting AS s WHERE s.name = 'currency')) AS document
FROM crm.person AS p LEFT JOIN crm.firm AS f ON f.id = p.company_id LEFT JOIN crm.person AS m ON m.id = p.manager_id
LEFT JOIN crm.desk AS d ON d.branch = p.branch AND d.staff_no = p.staff_no;
SELECT get_profile(u(3)) -> 'room';
:check
SELECT other('UPDATE crm.desk SET room = ''5.05'' WHERE id = 2');
SELECT what, user_id FROM wrong();
-- Nothing else ends that: not other DDL, not the view as it was before.
ALTER TABLE crm.desk RENAME COLUMN room TO door;
ALTER TABLE crm.desk RENAME COLUMN door TO room;
CREATE OR REPLACE VIEW crm.place AS SELECT n.code, n.name FROM crm.country AS n;
:check
:attach
:check
-- One more column of a table that is used already, in a nested view.
CREATE OR REPLACE VIEW crm.place AS SELECT n.code, concat(n.name, n.memo) AS name FROM crm.country AS n;
:check
:attach
:check
-- A nested view that cannot be proven, and mended again.
CREATE OR REPLACE VIEW crm.place AS SELECT n.code, (SELECT max(x.name) FROM crm.country AS x) AS name FROM crm.country AS n;
SELECT get_profile(u(1)) -> 'country';
:check
SELECT other('UPDATE crm.country SET name = ''Zambia'' WHERE code = ''be''');
:check
CREATE OR REPLACE VIEW crm.place AS SELECT n.code, n.name FROM crm.country AS n;
:check
-- One that has become a view of the time, which needs valid_until, and has it.
CREATE OR REPLACE VIEW crm.firm AS SELECT c.id, c.name || ' in ' || extract(year FROM now()) AS name, p.name AS country FROM crm.company AS c LEFT JOIN crm.place AS p ON p.code = c.country;
SELECT state();
SELECT warnings FROM profile_cache.status;
CREATE OR REPLACE VIEW crm.firm AS SELECT c.id, c.name, p.name AS country FROM crm.company AS c LEFT JOIN crm.place AS p ON p.code = c.country;
:check
-- Replaced by way of its rule.
CREATE OR REPLACE RULE "_RETURN" AS ON SELECT TO crm.place DO INSTEAD SELECT n.code, upper(n.name) AS name FROM crm.country AS n;
SELECT get_profile(u(1)) -> 'country';
:check
CREATE OR REPLACE VIEW crm.place AS SELECT n.code, n.name FROM crm.country AS n;
:check
-- Settings of a view that change whose rights it reads with, or nothing.
ALTER VIEW crm.place SET (security_invoker = true);
:check
ALTER VIEW crm.place RESET (security_invoker);
ALTER VIEW crm.api_profile ALTER COLUMN document SET DEFAULT '{}';
:check

-- A function: another body; VOLATILE, STABLE and back.
CREATE OR REPLACE FUNCTION crm.shown(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN '[' || $1 || ']';
SELECT get_profile(u(1)) -> 'name';
:check
CREATE OR REPLACE FUNCTION crm.shown(text) RETURNS text LANGUAGE sql VOLATILE RETURN '{' || $1 || '}';
SELECT get_profile(u(1)) -> 'name';
:check
ALTER FUNCTION crm.shown STABLE;
:check
:attach
ALTER FUNCTION crm.shown IMMUTABLE;
:check
ALTER FUNCTION crm.shown SET search_path = crm;
:check

-- A function that the view calls by way of an operator, of an aggregate, of a type's cast to json.
CREATE FUNCTION crm.beside(text, text) RETURNS text LANGUAGE sql IMMUTABLE RETURN $1 || '/' || $2;
CREATE OPERATOR crm./@ (FUNCTION = crm.beside, LEFTARG = text, RIGHTARG = text);
CREATE FUNCTION crm.longer(text, text) RETURNS text LANGUAGE sql IMMUTABLE RETURN CASE WHEN length($2) > length($1) THEN $2 ELSE coalesce($1, $2) END;
CREATE AGGREGATE crm.longest(text) (SFUNC = crm.longer, STYPE = text);
CREATE OR REPLACE VIEW crm.place AS SELECT n.code, n.name OPERATOR(crm./@) n.code || (SELECT crm.longest(x.name) FROM crm.country AS x WHERE x.code = n.code) AS name FROM crm.country AS n;
SELECT get_profile(u(1)) -> 'country';
:check
CREATE OR REPLACE FUNCTION crm.beside(text, text) RETURNS text LANGUAGE sql IMMUTABLE RETURN $1 || '\' || $2;
SELECT get_profile(u(1)) -> 'country';
:check
CREATE OR REPLACE FUNCTION crm.longer(text, text) RETURNS text LANGUAGE sql IMMUTABLE RETURN '-' || $2;
SELECT get_profile(u(1)) -> 'country';
:check
ALTER FUNCTION crm.longer VOLATILE;
:check
CREATE OR REPLACE VIEW crm.place AS SELECT n.code, n.name FROM crm.country AS n;
:check
CREATE FUNCTION crm.standing_json(crm.standing) RETURNS json LANGUAGE sql IMMUTABLE RETURN '"cast"'::json;
CREATE CAST (crm.standing AS json) WITH FUNCTION crm.standing_json(crm.standing);
SELECT get_profile(u(1)) -> 'standing';
:check
CREATE OR REPLACE FUNCTION crm.standing_json(crm.standing) RETURNS json LANGUAGE sql IMMUTABLE RETURN '"another"'::json;
SELECT get_profile(u(1)) -> 'standing';
:check
DROP CAST (crm.standing AS json);
SELECT get_profile(u(1)) -> 'standing';
:check

-- A dictionary below a text search configuration that the view names.
CREATE TEXT SEARCH DICTIONARY crm.words (TEMPLATE = simple, STOPWORDS = english);
CREATE TEXT SEARCH CONFIGURATION crm.search (COPY = simple);
ALTER TEXT SEARCH CONFIGURATION crm.search ALTER MAPPING FOR asciiword WITH crm.words;
CREATE OR REPLACE VIEW crm.place AS SELECT n.code, to_tsvector('crm.search', n.name || ' and the sea')::text AS name FROM crm.country AS n;
CALL profile_cache.refresh();
SELECT get_profile(u(1)) -> 'country';
ALTER TEXT SEARCH DICTIONARY crm.words (STOPWORDS);
SELECT get_profile(u(1)) -> 'country';
:check
ALTER TEXT SEARCH CONFIGURATION crm.search ALTER MAPPING FOR asciiword WITH english_stem;
SELECT get_profile(u(1)) -> 'country';
:check
CREATE OR REPLACE VIEW crm.place AS SELECT n.code, n.name FROM crm.country AS n;
:check

-- An enum's labels: one that is shown; one that a row is found by; one that nobody sees.
ALTER TYPE crm.standing RENAME VALUE 'new' TO 'fresh';
SELECT get_profile(u(1)) -> 'standing';
:check
ALTER TYPE crm.setting_name RENAME VALUE 'currency' TO 'money';
SELECT get_profile(u(1)) -> 'currency';
SELECT other('UPDATE crm.setting SET value = ''USD'' WHERE name = ''money''');
:check
SELECT other('UPDATE crm.setting SET value = ''USD'' WHERE name = ''language''');
SELECT state();
ALTER TYPE crm.setting_name RENAME VALUE 'language' TO 'currency';
SELECT other('UPDATE crm.setting SET value = ''XXX'' WHERE name = ''money''; UPDATE crm.setting SET value = ''YYY'' WHERE name = ''currency''');
:check
ALTER TYPE crm.standing ADD VALUE 'gone';
:check

-- Columns come, are dropped and change under a whole row that is shown; such of other tables do not matter.
ALTER TABLE crm.tariff ADD COLUMN note text DEFAULT 'added';
SELECT get_profile(u(3)) -> 'contracts';
:check
SELECT other('UPDATE crm.tariff SET note = ''changed''');
:check
ALTER TABLE crm.tariff DROP COLUMN note;
SELECT get_profile(u(3)) -> 'contracts';
:check
ALTER TABLE crm.company ADD COLUMN extra int DEFAULT 1;
ALTER TABLE crm.company ALTER COLUMN extra TYPE bigint;
ALTER TABLE crm.company DROP COLUMN extra;
:check

-- What is used cannot be dropped or become of another type; PostgreSQL says so.
ALTER TABLE crm.company DROP COLUMN name;
ALTER TABLE crm.country ALTER COLUMN name TYPE varchar(100);
ALTER TABLE crm.desk DROP COLUMN staff_no;
DROP TABLE crm.setting;
DROP VIEW crm.place;
DROP FUNCTION crm.shown;
DROP TYPE crm.standing;
:unchanged

-- Foreign keys. Without one nothing orders a change there against the profile's.
ALTER TABLE crm.contract DROP CONSTRAINT contract_person_id_fkey;
SELECT other('INSERT INTO crm.contract VALUES (10, 2, ''s'', NULL)');
:check
ALTER TABLE crm.contract ADD CONSTRAINT contract_person_id_fkey FOREIGN KEY (person_id) REFERENCES crm.person ON DELETE CASCADE ON UPDATE CASCADE NOT VALID;
:check
:attach
ALTER TABLE crm.contract VALIDATE CONSTRAINT contract_person_id_fkey;
:check
-- In the middle of a route, of the profile to itself, and of two columns.
ALTER TABLE crm.company DROP CONSTRAINT company_country_fkey;
:check
ALTER TABLE crm.company ADD CONSTRAINT company_country_fkey FOREIGN KEY (country) REFERENCES crm.country ON UPDATE CASCADE;
:check
ALTER TABLE crm.person DROP CONSTRAINT person_manager_id_fkey;
:check
ALTER TABLE crm.person ADD CONSTRAINT person_manager_id_fkey FOREIGN KEY (manager_id) REFERENCES crm.person ON UPDATE CASCADE ON DELETE SET NULL DEFERRABLE;
:check
ALTER TABLE crm.desk DROP CONSTRAINT desk_branch_staff_no_fkey;
ALTER TABLE crm.desk ADD FOREIGN KEY (staff_no) REFERENCES crm.person (id) NOT VALID;
:check
ALTER TABLE crm.desk ADD CONSTRAINT desk_branch_staff_no_fkey FOREIGN KEY (branch, staff_no) REFERENCES crm.person (branch, staff_no) ON UPDATE CASCADE ON DELETE CASCADE;
ALTER TABLE crm.desk DROP CONSTRAINT desk_staff_no_fkey;
:check
-- One that is not enforced while its triggers are disabled, on either side.
ALTER TABLE crm.contract DISABLE TRIGGER ALL;
SELECT other('UPDATE crm.contract SET person_id = 1 WHERE id = 10');
:check
ALTER TABLE crm.contract ENABLE TRIGGER ALL;
:check
:attach
:check
ALTER TABLE crm.country DISABLE TRIGGER ALL;
:check
ALTER TABLE crm.country ENABLE TRIGGER ALL;
:attach
:check
-- Only those of the foreign key itself, on the side that it refers to.
\set fkey_triggers 'SELECT format(''ALTER TABLE crm.country %s TRIGGER %I;'', :''action'', g.tgname) FROM pg_trigger AS g WHERE g.tgrelid = ''crm.country''::regclass AND g.tgconstraint = (SELECT k.oid FROM pg_constraint AS k WHERE k.conname = ''company_country_fkey'') ORDER BY g.tgname'
\set ECHO none
\set action DISABLE
:fkey_triggers \gexec
\set ECHO all
:check
\set ECHO none
\set action ENABLE
:fkey_triggers \gexec
\set ECHO all
:check
-- A second one beside another, deferred, and one that has nothing to do with the document.
ALTER TABLE crm.contract ADD CONSTRAINT twice FOREIGN KEY (person_id) REFERENCES crm.person;
:check
ALTER TABLE crm.contract ALTER CONSTRAINT twice DEFERRABLE INITIALLY DEFERRED;
:check
ALTER TABLE crm.contract DROP CONSTRAINT twice;
:check
ALTER TABLE crm.badge DROP CONSTRAINT badge_person_id_fkey;
CALL profile_cache.refresh();
:unchanged

-- Unique indexes: one that proves one row a profile; one that proves nothing that is needed.
ALTER TABLE crm.desk DROP CONSTRAINT one_desk;
:check
INSERT INTO crm.desk VALUES (9, 'south', 1, 'a second');
SELECT get_profile(u(3));
\echo :SQLSTATE
DELETE FROM crm.desk WHERE id = 9;
CREATE UNIQUE INDEX one_desk ON crm.desk (staff_no, branch);
:attach
:check
DROP INDEX crm.one_desk;
:check
CREATE UNIQUE INDEX one_desk ON crm.desk (branch, staff_no) WHERE room <> '';
:attach
DROP INDEX crm.one_desk;
ALTER TABLE crm.desk ADD CONSTRAINT one_desk UNIQUE (branch, staff_no) DEFERRABLE;
:attach
ALTER TABLE crm.desk DROP CONSTRAINT one_desk;
ALTER TABLE crm.desk ADD CONSTRAINT one_desk UNIQUE (branch, staff_no);
:check
CREATE UNIQUE INDEX unrelated ON crm.desk (room);
:unchanged
DROP INDEX crm.unrelated;
:unchanged
CREATE INDEX unrelated ON crm.country (memo);
DROP INDEX CONCURRENTLY crm.unrelated;
REINDEX TABLE crm.desk;
REINDEX TABLE CONCURRENTLY crm.desk;
:unchanged
-- Of the constant's column.
ALTER TABLE crm.setting DROP CONSTRAINT setting_pkey;
:check
ALTER TABLE crm.setting ADD PRIMARY KEY (name);
:check

-- Owners: of a table, the view, a nested view, the function.
CREATE ROLE regress_other;
GRANT USAGE, CREATE ON SCHEMA crm TO regress_other;
ALTER TABLE crm.country OWNER TO regress_other;
:check
ALTER TABLE crm.country OWNER TO CURRENT_USER;
:check
ALTER VIEW crm.api_profile OWNER TO regress_other;
:check
:attach
ALTER VIEW crm.api_profile OWNER TO CURRENT_USER;
:check
ALTER VIEW crm.firm OWNER TO regress_other;
:check
ALTER VIEW crm.firm OWNER TO CURRENT_USER;
:check
ALTER FUNCTION crm.shown OWNER TO regress_other;
:check
ALTER FUNCTION crm.shown OWNER TO CURRENT_USER;
:check
REVOKE USAGE, CREATE ON SCHEMA crm FROM regress_other;
DROP ROLE regress_other;

-- Other ways to become unfit, of a table in the middle of a route.
ALTER TABLE crm.country SET UNLOGGED;
ALTER TABLE crm.company DROP CONSTRAINT company_country_fkey;
ALTER TABLE crm.country SET UNLOGGED;
:check
ALTER TABLE crm.country SET LOGGED;
ALTER TABLE crm.company ADD CONSTRAINT company_country_fkey FOREIGN KEY (country) REFERENCES crm.country ON UPDATE CASCADE;
:check
CREATE TABLE crm.heir () INHERITS (crm.country);
:check
SELECT other('INSERT INTO crm.heir VALUES (''at'', ''Austria again'')');
SELECT what, user_id FROM wrong();
DROP TABLE crm.heir;
:check
ALTER TABLE crm.country ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
:check
ALTER TABLE crm.country DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;
:check

-- A column under a whole row that is shown gets another type, or is computed from others.
ALTER TABLE crm.tariff ADD COLUMN twice numeric GENERATED ALWAYS AS (price * 2) STORED;
SELECT other('UPDATE crm.tariff SET price = 7');
:check
ALTER TABLE crm.tariff DROP COLUMN twice;
:check
ALTER TABLE crm.tariff ALTER COLUMN price TYPE text USING 'EUR ' || price;
SELECT get_profile(u(3)) -> 'contracts';
:check

-- The common migration: a used column gets another type. In one transaction; the price is that every
-- document is computed anew, and until then read live.
BEGIN;
SELECT profile_cache.detach();
DROP VIEW crm.api_profile, crm.firm, crm.place;
ALTER TABLE crm.country ALTER COLUMN name TYPE varchar(100);
ALTER TABLE crm.person ALTER COLUMN company_id TYPE bigint;
CREATE VIEW crm.firm AS SELECT c.id, c.name, n.name AS country FROM crm.company AS c LEFT JOIN crm.country AS n ON n.code = c.country;
CREATE VIEW crm.api_profile AS SELECT p.uid, jsonb_build_object('name', p.name, 'firm', f.name, 'country', f.country) AS document
    FROM crm.person AS p LEFT JOIN crm.firm AS f ON f.id = p.company_id;
:attach
SELECT state(), (SELECT count(*) FROM wrong());
COMMIT;
:check
SELECT other('UPDATE crm.country SET name = ''retyped'' WHERE code = ''be''; UPDATE crm.person SET company_id = 2 WHERE id = 1');
:check
INSERT INTO profile_cache.last_refresh (began_at, completed_at) VALUES (now(), now()) ON CONFLICT DO NOTHING;
-- valid_until is added: columns may be, at the end.
CREATE OR REPLACE VIEW crm.api_profile AS SELECT p.uid, jsonb_build_object('name', p.name, 'firm', f.name, 'country', f.country) AS document,
    '2000-01-01Z'::timestamptz AS valid_until FROM crm.person AS p LEFT JOIN crm.firm AS f ON f.id = p.company_id;
:check
CREATE OR REPLACE VIEW crm.api_profile AS SELECT p.uid, jsonb_build_object('name', p.name, 'firm', f.name, 'country', f.country, 'since', now()) AS document,
    '2100-01-01Z'::timestamptz AS valid_until FROM crm.person AS p LEFT JOIN crm.firm AS f ON f.id = p.company_id;
SELECT state();
CALL profile_cache.refresh();
SELECT state();
-- The same as separate statements, with writes and reads in between.
SELECT profile_cache.detach();
SELECT other('UPDATE crm.person SET name = ''detached'' WHERE id = 1');
SELECT get_profile(u(1));
\echo :SQLSTATE
SELECT dblink_exec('other', 'DO $$ BEGIN PERFORM get_profile(u(1)); EXCEPTION WHEN object_not_in_prerequisite_state THEN RAISE NOTICE ''as here''; END $$');
DROP VIEW crm.api_profile;
SELECT other('UPDATE crm.person SET company_id = 1 WHERE id = 1');
ALTER TABLE crm.person ALTER COLUMN name TYPE varchar(100);
CREATE VIEW crm.api_profile AS SELECT p.uid, jsonb_build_object('name', p.name, 'firm', f.name, 'country', f.country) AS document
    FROM crm.person AS p LEFT JOIN crm.firm AS f ON f.id = p.company_id;
:attach
SELECT get_profile(u(1));
:check
-- Keys of another type, without detach(): what is pending names values of the old type.
CREATE TABLE crm.tag (id int PRIMARY KEY, person text, label text);
DROP VIEW crm.api_profile, crm.firm;
ALTER TABLE crm.country ADD COLUMN number text UNIQUE;
UPDATE crm.country SET number = 'n' || ascii(code);
ALTER TABLE crm.company ADD COLUMN country_number text REFERENCES crm.country (number);
UPDATE crm.company SET country_number = 'n' || ascii(country);
ALTER TABLE crm.person ADD COLUMN number text UNIQUE;
UPDATE crm.person SET number = 'n' || id;
ALTER TABLE crm.tag ADD FOREIGN KEY (person) REFERENCES crm.person (number);
CREATE INDEX ON crm.tag (person);
\set numbers 'CREATE VIEW crm.api_profile AS SELECT p.uid, jsonb_build_object(''firm'', c.name, ''country'', n.name, ''tags'', ARRAY(SELECT t.label FROM crm.tag AS t WHERE t.person = p.number ORDER BY t.id)) AS document FROM crm.person AS p LEFT JOIN crm.company AS c ON c.id = p.company_id LEFT JOIN crm.country AS n ON n.number = c.country_number;'
:numbers
:attach
CALL profile_cache.refresh();
SELECT dblink_exec('other', 'BEGIN; UPDATE crm.person SET memo = ''locks'' WHERE id = 3');
INSERT INTO crm.tag VALUES (1, 'n3', 'new');
UPDATE crm.country SET name = 'renumbered';
SELECT dblink_exec('other', 'COMMIT');
SELECT * FROM pending();
DROP VIEW crm.api_profile;
ALTER TABLE crm.tag DROP CONSTRAINT tag_person_fkey;
ALTER TABLE crm.company DROP CONSTRAINT company_country_number_fkey;
ALTER TABLE crm.tag ALTER COLUMN person TYPE int USING ltrim(person, 'n')::int;
ALTER TABLE crm.person ALTER COLUMN number TYPE int USING ltrim(number, 'n')::int;
ALTER TABLE crm.company ALTER COLUMN country_number TYPE int USING ltrim(country_number, 'n')::int;
ALTER TABLE crm.country ALTER COLUMN number TYPE int USING ltrim(number, 'n')::int;
ALTER TABLE crm.tag ADD FOREIGN KEY (person) REFERENCES crm.person (number);
ALTER TABLE crm.company ADD FOREIGN KEY (country_number) REFERENCES crm.country (number);
:numbers
:attach
:check
DROP VIEW crm.api_profile;
CREATE VIEW crm.firm AS SELECT c.id, c.name, n.name AS country FROM crm.company AS c LEFT JOIN crm.country AS n ON n.code = c.country;
CREATE VIEW crm.api_profile AS SELECT p.uid, jsonb_build_object('name', p.name, 'firm', f.name, 'country', f.country) AS document
    FROM crm.person AS p LEFT JOIN crm.firm AS f ON f.id = p.company_id;
:attach
:check
-- Rolled back, nothing has happened.
BEGIN;
SELECT profile_cache.detach();
DROP VIEW crm.api_profile;
ALTER TABLE crm.person ALTER COLUMN name TYPE text;
ROLLBACK;
:unchanged

-- The view dropped: writes go through, reads say what is wrong, and the view by that name, or another,
-- is attached again.
DROP VIEW crm.firm CASCADE;
SELECT get_profile(u(1));
\echo :SQLSTATE
SELECT dblink_exec('other', 'DO $$ BEGIN PERFORM get_profile(u(1)); EXCEPTION WHEN object_not_in_prerequisite_state THEN RAISE NOTICE ''as here''; END $$');
UPDATE crm.person SET name = 'without a view' WHERE id = 1;
UPDATE crm.country SET name = 'without a view';
INSERT INTO crm.contract VALUES (20, 1, 's', NULL);
DELETE FROM crm.person WHERE id = 4;
TRUNCATE crm.desk;
SELECT profile, document, warnings FROM profile_cache.status;
CALL profile_cache.refresh();
CREATE VIEW crm.api_profile AS SELECT p.uid, jsonb_build_object('name', p.name) AS document FROM crm.person AS p;
SELECT get_profile(u(1));
:attach
:check
CREATE VIEW crm.another AS SELECT p.uid, jsonb_build_object('name', p.name, 'contracts',
    (SELECT count(*) FROM crm.contract AS k WHERE k.person_id = p.id)) AS document FROM crm.person AS p;
SELECT profile_cache.attach('crm.person', document => 'crm.another', key => 'uid');
DROP VIEW crm.api_profile;
:check
\c -
SELECT profile_cache.explain(u(1)) ->> 'served_from';
