-- Whom a pending change concerns, as a read decides it: those to whom its values lead, in the reader's snapshot, where
-- that can be told by a few probes of indexes; else everybody. What is served is always what the view says: wrong() finds
-- no row.
\set ECHO none
\i include/own.sql
\i include/output.sql
\set check 'SELECT state(); SELECT * FROM pending(); SELECT * FROM wrong();'
\set edit 'UPDATE crm.tariff SET label = label || \'+\' WHERE code = \'l\'; SELECT state(); SELECT * FROM wrong(); CALL profile_cache.refresh(); SELECT state();'
DROP INDEX IF EXISTS crm.contract_person_id_idx;
\set ECHO all
CREATE VIEW crm.api_profile AS
SELECT p.uid AS account, jsonb_build_object('name', p.name, 'country', n.name,
        'contracts', (SELECT jsonb_agg(t.label ORDER BY k.id) FROM crm.contract AS k JOIN crm.tariff AS t ON t.code = k.tariff WHERE k.person_id = p.id)) AS document
FROM crm.person AS p LEFT JOIN crm.company AS c ON c.id = p.company_id LEFT JOIN crm.country AS n ON n.code = c.country;
CREATE INDEX of_person ON crm.contract (person_id);
SELECT profile_cache.attach('crm.person', document => 'crm.api_profile', key => 'uid');
CALL profile_cache.refresh();
SELECT state();

-- A row that nobody shows; one that some show; one further away; a row in the middle, from one to another.
INSERT INTO crm.tariff VALUES ('none', 'None');
:check
UPDATE crm.tariff SET label = 'Large' WHERE code = 'l';
:check
UPDATE crm.country SET name = 'Belgium again' WHERE code = 'be';
:check
UPDATE crm.company SET country = 'at' WHERE id = 2;
:check
CALL profile_cache.refresh();
SELECT state();

-- With a number, in the middle of a pass, and when it has come through though a transaction still holds it up.
UPDATE crm.tariff SET label = 'Larger' WHERE code = 'l';
SELECT phase FROM profile_cache.refresh_step(1, 'epochs', NULL);
SELECT count(*) FROM profile_cache.pending_epoch WHERE epoch IS NOT NULL;
:check
CALL profile_cache.refresh();
SELECT state();

-- No index leads from a profile to its contracts: everybody. Nor does one that is partial, of another operator class, of
-- an expression, or not led by the column.
DROP INDEX crm.of_person;
:edit
CREATE INDEX of_person ON crm.contract (person_id) WHERE person_id > 1;
:edit
DROP INDEX crm.of_person;
CREATE INDEX of_person ON crm.contract ((person_id + 0));
:edit
DROP INDEX crm.of_person;
CREATE INDEX of_person ON crm.contract (tariff, person_id);
:edit
DROP INDEX crm.of_person;
CREATE INDEX of_person ON crm.contract USING hash (person_id);
:edit
DROP INDEX crm.of_person;
CREATE INDEX of_person ON crm.contract (person_id, tariff) INCLUDE (id);
:edit

-- More rows than a read looks at.
INSERT INTO crm.contract (id, person_id, tariff) SELECT 1000 + n, 2, 's' FROM generate_series(1, 200) AS n;
CALL profile_cache.refresh();
:edit
DELETE FROM crm.contract WHERE id > 1000;
CALL profile_cache.refresh();
:edit

-- More values than a read takes in: everybody.
CREATE TABLE many AS SELECT n, 'tariff ' || n AS code FROM generate_series(1, 6000) AS n;
INSERT INTO crm.tariff SELECT code, 'One of many' FROM many;
SELECT state();
CALL profile_cache.refresh();
INSERT INTO crm.tariff SELECT 'more ' || code, 'One of many' FROM many WHERE n < 300;
SELECT state();
DELETE FROM crm.tariff WHERE code LIKE '%tariff %';
CALL profile_cache.refresh();

-- More epochs than a read looks at: everybody.
DO $$ BEGIN FOR n IN 1..201 LOOP UPDATE crm.tariff SET label = 'Edit ' || n WHERE code = 'l'; COMMIT; END LOOP; END $$;
SELECT state();
DELETE FROM profile_cache.pending_epoch WHERE id = (SELECT id FROM profile_cache.pending_epoch LIMIT 1);
SELECT state();
SELECT * FROM wrong();
CALL profile_cache.refresh();

-- In the words of another definition, or of none.
UPDATE crm.tariff SET label = 'L' WHERE code = 'l';
SELECT state();
UPDATE profile_cache.pending_epoch SET definition = definition + 1;
SELECT state();
UPDATE profile_cache.pending_epoch SET definition = NULL;
SELECT state();
CALL profile_cache.refresh();
SELECT state();
SELECT * FROM wrong();

-- Values that are equal and not the same: an index of another collation does not find them all.
CREATE COLLATION crm.ignore_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE crm.account (uid uuid PRIMARY KEY, code text COLLATE crm.ignore_case NOT NULL UNIQUE);
CREATE TABLE crm.order_line (id int PRIMARY KEY, code text COLLATE crm.ignore_case REFERENCES crm.account (code), tariff text REFERENCES crm.tariff);
CREATE INDEX of_code_c ON crm.order_line (code COLLATE "C");
CREATE INDEX of_code ON crm.order_line (code);
INSERT INTO crm.account VALUES (u(1), 'One'), (u(2), 'Two');
INSERT INTO crm.order_line VALUES (1, 'ONE', 'l'), (2, 'two', 's');
CREATE VIEW crm.account_document AS SELECT a.uid, jsonb_build_object('tariffs',
    (SELECT jsonb_agg(t.label ORDER BY o.id) FROM crm.order_line AS o JOIN crm.tariff AS t ON t.code = o.tariff WHERE o.code = a.code)) AS document FROM crm.account AS a;
SELECT profile_cache.detach();
SELECT profile_cache.attach('crm.account', document => 'crm.account_document', key => 'uid');
CALL profile_cache.refresh();
UPDATE crm.tariff SET label = 'collated' WHERE code = 'l';
SELECT get_profile(u(1)), get_profile(u(2)), profile_cache.explain(u(1)) ->> 'served_from';
SELECT * FROM profile_cache.verify();
SELECT profile_cache.detach();
DROP SCHEMA crm CASCADE;
DROP TABLE many;
DROP EXTENSION profile_cache;
