-- Views that attach() must refuse, over the tables of tests/catalogue/schema.sql: each with the reason
-- it must give, and at the end a proof that no refusal left anything behind. One that is accepted, or
-- refused for another reason than its comment says, is a bug: either a stale profile, or advice that
-- does not help.
\set ECHO none
\i include/output.sql
SET client_min_messages = warning;
CREATE EXTENSION profile_cache;
\i ../catalogue/schema.sql
\set attach 'SELECT profile_cache.attach(\'accounts_profile\', key => \'auth_id\', document => \'document\'); DROP VIEW document;'
\set whole 'SELECT profile_cache.attach(\'accounts_profile\', key => \'auth_id\', document => \'document\'); SELECT profile_cache.detach(); DROP VIEW document;'
\set ECHO all

-- THE VIEW'S OWN COLUMNS

-- Without the key nothing can be found by it.
CREATE VIEW document AS SELECT p.id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p;
:attach
-- A computed key is no column of the profile: no index finds it.
CREATE VIEW document AS SELECT coalesce(p.auth_id, p.auth_id) AS auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p;
:attach
-- Neither is a member's column that equals it.
CREATE VIEW document AS SELECT g.holder::uuid AS auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p JOIN access_grant AS g ON g.holder = p.auth_id;
:attach
-- A uuid that comes from no table: there is no profile in it.
CREATE VIEW document AS SELECT '00000000-0000-4000-8000-000000000001'::uuid AS auth_id, jsonb_build_object('plans', l.id) AS document FROM billing_plan AS l WHERE l.id = 'free';
:attach
-- The key as a domain is no uuid to those who read.
CREATE VIEW document AS SELECT p.auth_id::auth_ref AS auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p;
:attach
-- No document.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('name', p.name) AS profile FROM accounts_profile AS p;
:attach
-- json keeps white space and the order of keys; the stored column is jsonb.
CREATE VIEW document AS SELECT p.auth_id, json_build_object('name', p.name) AS document FROM accounts_profile AS p;
:attach
-- valid_until without a time zone is no moment.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('name', p.name) AS document, now()::timestamp AS valid_until FROM accounts_profile AS p;
:attach
-- Not a view, but a table or a materialized one.
CREATE TABLE document (auth_id uuid, document jsonb);
SELECT profile_cache.attach('accounts_profile', key => 'auth_id', document => 'document');
DROP TABLE document;
CREATE MATERIALIZED VIEW document AS SELECT p.auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p;
SELECT profile_cache.attach('accounts_profile', key => 'auth_id', document => 'document');
DROP MATERIALIZED VIEW document;

-- HOW A TABLE IS TIED TO THE PROFILE

-- No condition at all: every plan touches everyone, which is right, and said.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('plans', (SELECT count(*) FROM billing_plan)) AS document FROM accounts_profile AS p;
:whole
-- The same in EXISTS.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('sold', EXISTS (SELECT FROM billing_subscription AS s WHERE s.status = 'active')) AS document FROM accounts_profile AS p;
:attach
-- Nobody shows everyone's: every profile, what belongs to profiles, and what belongs to that.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM accounts_profile)) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('sold', (SELECT jsonb_agg(l.title ORDER BY s.id) FROM billing_subscription AS s JOIN billing_plan AS l ON l.id = s.plan_id)) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('paid', (SELECT sum(i.total) FROM billing_invoice AS i WHERE i.paid)) AS document FROM accounts_profile AS p;
:attach
-- Nor what refers to the row that a profile is the one to refer to.
CREATE TABLE app_user (id int PRIMARY KEY);
CREATE TABLE app_note (user_id int NOT NULL REFERENCES app_user, said text);
ALTER TABLE accounts_profile ADD COLUMN user_id int UNIQUE REFERENCES app_user;
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('notes', (SELECT count(*) FROM app_note)) AS document FROM accounts_profile AS p;
:attach
-- But what only says who wrote it does not belong to him.
ALTER TABLE app_note ALTER COLUMN user_id DROP NOT NULL;
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('notes', (SELECT count(*) FROM app_note)) AS document FROM accounts_profile AS p;
:whole
ALTER TABLE accounts_profile DROP COLUMN user_id;
DROP TABLE app_note, app_user;
-- What is compared with such a table's row by a foreign key, and with the profile by none.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM accounts_company AS c JOIN geo_country AS k ON k.id = c.country_id WHERE c.name = p.name)) AS document FROM accounts_profile AS p;
:attach
-- An equality under OR.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM accounts_company AS c WHERE c.id = p.company_id OR c.active)) AS document FROM accounts_profile AS p;
:attach
-- An equality under NOT.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM accounts_company AS c WHERE NOT c.id = p.company_id)) AS document FROM accounts_profile AS p;
:attach
-- An equality under CASE.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM accounts_company AS c WHERE CASE WHEN p.kind = 'bot' THEN true ELSE c.id = p.company_id END)) AS document FROM accounts_profile AS p;
:attach
-- An equality that is only asked whether it holds, or not.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM accounts_company AS c WHERE (c.id = p.company_id) IS NOT TRUE)) AS document FROM accounts_profile AS p;
:attach
-- No equality, but an order.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM billing_subscription AS s WHERE s.profile_id >= p.id)) AS document FROM accounts_profile AS p;
:attach
-- IS NOT DISTINCT FROM ties NULL to NULL, which no foreign key does.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM accounts_device AS d WHERE d.profile_id IS NOT DISTINCT FROM p.manager_id)) AS document FROM accounts_profile AS p;
:attach
-- An equality of columns that no foreign key connects.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM accounts_company AS c WHERE c.name = p.name)) AS document FROM accounts_profile AS p;
:attach
-- The columns are of one type, and one of them is even a key.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('serial', (SELECT d.serial FROM accounts_device AS d WHERE d.id = p.id)) AS document FROM accounts_profile AS p;
:attach
-- A foreign key's column, but with the wrong one of the profile's columns.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM accounts_device AS d WHERE d.profile_id = p.user_no)) AS document FROM accounts_profile AS p;
:attach
-- An expression in the place of the column.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM accounts_device AS d WHERE d.profile_id + 0 = p.id)) AS document FROM accounts_profile AS p;
:attach
-- A cast that is not one to one: role 4.5 would be 5.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('roles', (SELECT count(*) FROM access_role AS r WHERE r.id::int = p.primary_role)) AS document FROM accounts_profile AS p;
:attach
-- A cast that cuts off.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('plans', (SELECT count(*) FROM billing_plan AS l JOIN billing_account AS a ON l.id::varchar(2) = a.plan_id WHERE a.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
-- The foreign key's operator, but under a collation where more is equal than the foreign key knows.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('labels', (SELECT count(*) FROM geo_locale AS l WHERE l.code = p.locale COLLATE any_case)) AS document FROM accounts_profile AS p;
:attach
-- The same, in the middle of a chain of equalities whose ends are a foreign key.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('country', (SELECT k.name FROM billing_account AS a JOIN geo_country AS k ON k.iso = a.currency
        WHERE a.profile_id = p.id AND a.currency = p.home_country COLLATE any_case)) AS document FROM accounts_profile AS p;
:attach
-- char and back to text: blanks at the end are lost on the way, so that 'de ' equals 'de'.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('labels', (SELECT count(*) FROM geo_locale AS l WHERE l.code::bpchar = p.locale)) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('labels', (SELECT count(*) FROM geo_locale AS l WHERE l.code = p.locale::bpchar)) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('labels', (SELECT count(*) FROM (SELECT l.code::bpchar AS code FROM geo_locale AS l) AS l WHERE l.code = p.locale)) AS document FROM accounts_profile AS p;
:attach
-- A table joined to itself by its key, but as char: several rows.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('labels', (SELECT count(*) FROM geo_locale AS l JOIN geo_locale AS m ON m.code::bpchar = l.code::bpchar WHERE l.code = p.locale)) AS document FROM accounts_profile AS p;
:attach
-- The value of EXISTS is not what its subquery selects.
CREATE TABLE app_flag (flag boolean PRIMARY KEY, label text);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('label', (
        SELECT f.label FROM app_flag AS f WHERE f.flag = EXISTS (SELECT true FROM accounts_preference AS r WHERE r.profile_id = p.id))) AS document FROM accounts_profile AS p;
:attach
-- Nor is the value of IN with two columns.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('label', (
        SELECT f.label FROM app_flag AS f WHERE f.flag = ((true, p.id) IN (SELECT true, r.profile_id FROM accounts_preference AS r WHERE r.profile_id = p.id)))) AS document FROM accounts_profile AS p;
:attach
DROP TABLE app_flag;
-- An operator of the same name and types from somewhere else: it says nothing of what it leaves out, so that every row counts.
CREATE SCHEMA other;
CREATE FUNCTION other.near(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN left($1, 1) OPERATOR(pg_catalog.=) left($2, 1);
CREATE OPERATOR other.= (FUNCTION = other.near, LEFTARG = text, RIGHTARG = text);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('labels', (SELECT count(*) FROM geo_locale AS l WHERE l.code OPERATOR(other.=) p.locale)) AS document FROM accounts_profile AS p;
:whole
DROP SCHEMA other CASCADE;
-- One column of a composite foreign key.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('phones', (SELECT count(*) FROM hr_seat AS s WHERE s.user_no = p.user_no)) AS document FROM accounts_profile AS p;
:attach
-- A composite foreign key's columns crossed.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('phones', (SELECT count(*) FROM hr_seat AS s WHERE s.user_no = p.tenant_id AND s.tenant_id = p.user_no)) AS document FROM accounts_profile AS p;
:attach
-- A composite foreign key's columns equal to those of two rows: half the manager's.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('phones', (SELECT count(*) FROM hr_seat AS s WHERE s.tenant_id = p.tenant_id AND s.user_no = m.user_no)) AS document
    FROM accounts_profile AS p LEFT JOIN accounts_profile AS m ON m.id = p.manager_id;
:attach
-- A constant that no unique column has: how many rows it finds nobody knows, and it touches everyone.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM accounts_device AS d WHERE d.serial = 'S1')) AS document FROM accounts_profile AS p;
:attach
-- A foreign key that is NOT VALID: rows may be there that it does not hold for.
CREATE TABLE app_note (id int PRIMARY KEY, profile_id bigint, said text);
CREATE INDEX ON app_note (profile_id);
ALTER TABLE app_note ADD CONSTRAINT later FOREIGN KEY (profile_id) REFERENCES accounts_profile NOT VALID;
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('notes', (SELECT count(n.said) FROM app_note AS n WHERE n.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
-- No foreign key: nothing orders a child against its parent.
ALTER TABLE app_note DROP CONSTRAINT later;
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('notes', (SELECT count(n.said) FROM app_note AS n WHERE n.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
DROP TABLE app_note;
-- A foreign key whose triggers are disabled checks nothing.
CREATE TABLE app_note (id int PRIMARY KEY, profile_id bigint REFERENCES accounts_profile, said text);
CREATE INDEX ON app_note (profile_id);
ALTER TABLE app_note DISABLE TRIGGER ALL;
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('notes', (SELECT count(n.said) FROM app_note AS n WHERE n.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
DROP TABLE app_note;
-- The profile on the nullable side of an outer join.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('theme', f.theme) AS document FROM accounts_preference AS f LEFT JOIN accounts_profile AS p ON p.id = f.profile_id;
:attach
-- Any company is shown with a profile that is not there.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('companies', (SELECT count(*) FROM accounts_company AS c LEFT JOIN billing_account AS a ON c.id = p.company_id AND a.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
-- A condition of an outer join says nothing about its other side.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('theme', f.theme, 'tenant', t.title) AS document
    FROM accounts_profile AS p CROSS JOIN accounts_tenant AS t LEFT JOIN accounts_preference AS f ON f.profile_id = p.id AND t.id = p.tenant_id;
:attach
-- FULL JOIN keeps every row of both.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('theme', f.theme) AS document FROM accounts_profile AS p FULL JOIN accounts_preference AS f ON f.profile_id = p.id;
:attach
-- FULL JOIN deeper down.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (
        SELECT count(*) FROM billing_account AS a FULL JOIN billing_subscription AS s ON s.profile_id = a.profile_id WHERE a.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
-- One arm of a UNION ALL is not tied.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM (
        SELECT d.id FROM accounts_device AS d WHERE d.profile_id = p.id UNION ALL SELECT s.id FROM billing_subscription AS s WHERE s.status = 'active') AS u)) AS document FROM accounts_profile AS p;
:attach
-- What is taken away is not tied either.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM (
        SELECT d.profile_id FROM accounts_device AS d EXCEPT ALL SELECT s.profile_id FROM billing_subscription AS s) AS u WHERE u.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
-- IN as a value is NULL for everyone as soon as one row says NULL.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('has', p.id IN (SELECT d.profile_id FROM accounts_device AS d)) AS document FROM accounts_profile AS p;
:attach
-- NOT IN finds nothing any more as soon as one row says NULL.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p WHERE p.id NOT IN (SELECT d.profile_id FROM accounts_device AS d);
:attach
-- NULL IN (…) is false while the subquery finds nothing, and NULL as soon as it finds anything: whoever has no company depends on every company.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('active', p.company_id IN (SELECT c.id FROM accounts_company AS c WHERE c.active)) AS document FROM accounts_profile AS p;
:attach
-- <> ALL asks every row.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p WHERE p.id <> ALL (SELECT s.profile_id FROM billing_subscription AS s);
:attach
-- IN under NOT and AND: NULL is not false there.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p WHERE NOT (p.kind = 'bot' AND p.id IN (SELECT d.profile_id FROM accounts_device AS d));
:attach
-- A recursive CTE: everyone above, at any distance.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('above', (
        WITH RECURSIVE up AS (SELECT p.manager_id AS id UNION SELECT m.manager_id FROM up JOIN accounts_profile AS m ON m.id = up.id) SELECT count(*) FROM up)) AS document FROM accounts_profile AS p;
:attach

-- ONE ROW FOR EACH PROFILE

-- As many rows as the profile has devices.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('serial', d.serial) AS document FROM accounts_profile AS p LEFT JOIN accounts_device AS d ON d.profile_id = p.id;
:attach
-- DISTINCT over a number that a window gives each row: none of them is the same.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', l.n) AS document FROM accounts_profile AS p LEFT JOIN LATERAL (
        SELECT DISTINCT row_number() OVER (ORDER BY d.id) AS n FROM accounts_device AS d WHERE d.profile_id = p.id) AS l ON true;
:attach
-- DISTINCT over what is counted in each of several groups.
CREATE VIEW document AS SELECT DISTINCT p.auth_id, jsonb_build_object('n', count(*)) AS document FROM accounts_profile AS p
    JOIN billing_subscription AS s ON s.profile_id = p.id GROUP BY p.auth_id, s.status;
:attach
-- As many rows as there are plans with such a title; none of them tied.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('free', l.id) AS document FROM accounts_profile AS p JOIN billing_plan AS l ON l.title = 'Free';
:attach
-- A unique index that does not cover every row that the condition leaves.
CREATE UNIQUE INDEX one_active ON billing_subscription (profile_id) WHERE status = 'active';
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('plan', s.plan_id) AS document FROM accounts_profile AS p LEFT JOIN billing_subscription AS s ON s.profile_id = p.id AND s.status <> 'canceled';
:attach
DROP INDEX one_active;
-- A unique index over an expression.
CREATE UNIQUE INDEX one_each ON billing_subscription ((profile_id + 0));
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('plan', s.plan_id) AS document FROM accounts_profile AS p LEFT JOIN billing_subscription AS s ON s.profile_id = p.id;
:attach
DROP INDEX one_each;
-- A unique constraint that is checked at the end of the transaction: in its middle there may be two.
ALTER TABLE billing_subscription ADD CONSTRAINT one_each UNIQUE (profile_id) DEFERRABLE;
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('plan', s.plan_id) AS document FROM accounts_profile AS p LEFT JOIN billing_subscription AS s ON s.profile_id = p.id;
:attach
ALTER TABLE billing_subscription DROP CONSTRAINT one_each;
-- A unique index that was never finished.
CREATE UNIQUE INDEX one_each ON billing_subscription (profile_id);
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'one_each'::regclass;
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('plan', s.plan_id) AS document FROM accounts_profile AS p LEFT JOIN billing_subscription AS s ON s.profile_id = p.id;
:attach
DROP INDEX one_each;
-- A unique index of which only one column is given.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('skill', s.skill) AS document FROM accounts_profile AS p LEFT JOIN accounts_profile_skill AS s ON s.profile_id = p.id;
:attach
-- The first of a row, and all that are alike.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('serial', d.serial) AS document FROM accounts_profile AS p LEFT JOIN LATERAL (
        SELECT d.serial FROM accounts_device AS d WHERE d.profile_id = p.id ORDER BY d.push FETCH FIRST 1 ROW WITH TIES) AS d ON true;
:attach
-- A LIMIT that is not 1, although 1 is in it.
CREATE FUNCTION two(int) RETURNS bigint LANGUAGE sql IMMUTABLE RETURN 2::bigint;
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('serial', d.serial) AS document FROM accounts_profile AS p LEFT JOIN LATERAL (
        SELECT d.serial FROM accounts_device AS d WHERE d.profile_id = p.id ORDER BY d.id LIMIT two(1)) AS d ON true;
:attach
DROP FUNCTION two;
-- A unique index, but under a collation where more is equal; also from outside of a subquery.
CREATE UNIQUE INDEX one_each ON accounts_device (serial);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('push', d.push) AS document FROM accounts_profile AS p LEFT JOIN accounts_device AS d ON d.profile_id = p.id AND d.serial = p.name COLLATE any_case;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('push', d.push) AS document
    FROM accounts_profile AS p LEFT JOIN (SELECT d.profile_id, d.serial, d.push FROM accounts_device AS d) AS d ON d.profile_id = p.id AND d.serial = p.name COLLATE any_case;
:attach
DROP INDEX one_each;
-- Grouped by more than the profile.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('status', s.status, 'n', count(*)) AS document FROM accounts_profile AS p JOIN billing_subscription AS s ON s.profile_id = p.id GROUP BY p.auth_id, s.status;
:attach
-- UNION ALL of two rows for each profile.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p UNION ALL SELECT p.auth_id, jsonb_build_object('email', p.email) FROM accounts_profile AS p;
:attach
-- DISTINCT takes away equal rows, not those that differ.
CREATE VIEW document AS SELECT DISTINCT p.auth_id, jsonb_build_object('status', s.status) AS document FROM accounts_profile AS p JOIN billing_subscription AS s ON s.profile_id = p.id;
:attach
-- A set-returning function in the target list makes rows.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('tag', unnest(p.tags)) AS document FROM accounts_profile AS p;
:attach
-- So does one in FROM.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('tag', t.tag) AS document FROM accounts_profile AS p CROSS JOIN LATERAL unnest(p.tags) AS t (tag);
:attach

-- WHAT CONCERNS SEVERAL PROFILES AT ONCE

-- The first ten of all.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p ORDER BY p.id LIMIT 10;
:attach
-- The place among all.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('place', rank() OVER (ORDER BY p.created)) AS document FROM accounts_profile AS p;
:attach
-- The place among those of one company: others move it.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('place', row_number() OVER (PARTITION BY p.company_id ORDER BY p.id)) AS document FROM accounts_profile AS p;
:attach
-- One profile for each company.
CREATE VIEW document AS SELECT DISTINCT ON (p.company_id) p.auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p ORDER BY p.company_id, p.id;
:attach
-- A LIMIT below the condition: the latest of all, whoever they belong to.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('latest', (SELECT count(*) FROM (
        SELECT s.profile_id FROM billing_subscription AS s ORDER BY s.started DESC, s.id LIMIT 5) AS s WHERE s.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
-- A window below the condition, over the subscriptions of everybody.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('places', (SELECT jsonb_agg(s.place ORDER BY s.place) FROM (
        SELECT s.profile_id, row_number() OVER (ORDER BY s.started, s.id) AS place FROM billing_subscription AS s) AS s WHERE s.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
-- DISTINCT ON something else, below the condition.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('first', (SELECT count(*) FROM (
        SELECT DISTINCT ON (s.plan_id) s.profile_id FROM billing_subscription AS s ORDER BY s.plan_id, s.started, s.id) AS s WHERE s.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
-- Grouped by something else, with the profile as an aggregate.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('last_of', (SELECT count(*) FROM (
        SELECT max(s.profile_id) AS profile_id FROM billing_subscription AS s GROUP BY s.plan_id) AS s WHERE s.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
-- How many profiles there are.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('of', (SELECT count(*) FROM accounts_profile)) AS document FROM accounts_profile AS p;
:attach
-- Grouping sets add a row of all.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', count(d.id)) AS document FROM accounts_profile AS p LEFT JOIN accounts_device AS d ON d.profile_id = p.id GROUP BY ROLLUP (p.auth_id);
:attach
-- A plain subquery that would count the devices of all for each single read: LATERAL does not.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('devices', d.n) AS document
    FROM accounts_profile AS p LEFT JOIN (SELECT d.profile_id, count(*) AS n FROM accounts_device AS d GROUP BY d.profile_id) AS d ON d.profile_id = p.id;
:attach

-- WHICH TABLES AND VIEWS

-- A materialized view, which is as old as its last REFRESH.
CREATE MATERIALIZED VIEW plans AS SELECT l.id, l.title FROM billing_plan AS l;
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('plan', (SELECT l.title FROM plans AS l WHERE l.id = 'free')) AS document FROM accounts_profile AS p;
:attach
DROP MATERIALIZED VIEW plans;
-- A partitioned table.
CREATE TABLE app_event (id int, profile_id bigint REFERENCES accounts_profile, said text) PARTITION BY HASH (id);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('events', (SELECT count(e.said) FROM app_event AS e WHERE e.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
DROP TABLE app_event;
-- A table with a child, whose rows it shows.
CREATE TABLE app_event (id int PRIMARY KEY, profile_id bigint REFERENCES accounts_profile, said text);
CREATE INDEX ON app_event (profile_id);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('events', (SELECT count(e.said) FROM app_event AS e WHERE e.profile_id = p.id)) AS document FROM accounts_profile AS p;
CREATE TABLE app_old_event () INHERITS (app_event);
:attach
-- One that inherits.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('events', (SELECT count(e.said) FROM app_old_event AS e WHERE e.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
DROP TABLE app_old_event;
-- Policies that bind the owner too: they may ask for anything.
ALTER TABLE app_event ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('events', (SELECT count(e.said) FROM app_event AS e WHERE e.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
DROP TABLE app_event;
-- Empty after a crash, without a word from a trigger.
CREATE UNLOGGED TABLE app_event (id int PRIMARY KEY, profile_id bigint REFERENCES accounts_profile, said text);
CREATE INDEX ON app_event (profile_id);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('events', (SELECT count(e.said) FROM app_event AS e WHERE e.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
DROP TABLE app_event;
-- Temporary: another session sees nothing of it.
CREATE TEMP TABLE app_event (id int PRIMARY KEY, profile_id bigint, said text);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('events', (SELECT count(e.said) FROM app_event AS e WHERE e.profile_id = p.id)) AS document FROM accounts_profile AS p;
\set VERBOSITY sqlstate
:attach
\set VERBOSITY default
DROP TABLE app_event;
-- Foreign: changed where no trigger of ours is.
CREATE FOREIGN DATA WRAPPER nothing;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER nothing;
CREATE FOREIGN TABLE app_event (profile_id bigint, said text) SERVER elsewhere;
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('events', (SELECT count(e.said) FROM app_event AS e WHERE e.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
DROP FOREIGN DATA WRAPPER nothing CASCADE;
-- A system catalog has no triggers.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('database', (SELECT d.datname FROM pg_database AS d WHERE d.oid = 1)) AS document FROM accounts_profile AS p;
:attach
-- A sequence changes outside of transactions.
CREATE SEQUENCE counter;
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT c.last_value FROM counter AS c)) AS document FROM accounts_profile AS p;
:attach
DROP SEQUENCE counter;
-- Our own tables change beside every document.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM profile_cache.pending_key AS q WHERE q.reason = p.name)) AS document FROM accounts_profile AS p;
:attach
-- Somebody else's table, whoever may read it.
CREATE ROLE regress_somebody;
CREATE TABLE app_event (id int PRIMARY KEY, profile_id bigint REFERENCES accounts_profile, said text);
CREATE INDEX ON app_event (profile_id);
ALTER TABLE app_event OWNER TO regress_somebody;
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('events', (SELECT count(e.said) FROM app_event AS e WHERE e.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
DROP TABLE app_event;
-- Somebody else's view in the view: its owner may replace it.
CREATE VIEW devices AS SELECT d.profile_id, d.serial FROM accounts_device AS d;
ALTER VIEW devices OWNER TO regress_somebody;
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('devices', (SELECT count(d.serial) FROM devices AS d WHERE d.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
DROP VIEW devices;
-- Somebody else's document.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p;
ALTER VIEW document OWNER TO regress_somebody;
:attach
-- Rows at random.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM accounts_device AS d TABLESAMPLE bernoulli (50) WHERE d.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
-- A read that locks.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM (SELECT d.id FROM accounts_device AS d WHERE d.profile_id = p.id FOR UPDATE) AS d)) AS document FROM accounts_profile AS p;
:attach

-- FUNCTIONS, OPERATORS, CASTS

-- VOLATILE.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', random()) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p ORDER BY gen_random_uuid();
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('at', clock_timestamp()) AS document, NULL::timestamptz AS valid_until FROM accounts_profile AS p;
:attach
-- Another time for each statement, valid_until or not.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('at', statement_timestamp()) AS document, NULL::timestamptz AS valid_until FROM accounts_profile AS p;
:attach
-- Time, without a word on when the document changes by itself; the words that are no functions too.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('new', p.created > now() - interval '1 day') AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('active', EXISTS (SELECT FROM billing_subscription AS s WHERE s.profile_id = p.id AND s.ends > CURRENT_TIMESTAMP)) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('today', CURRENT_DATE) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('now', LOCALTIMESTAMP(0)) AS document FROM accounts_profile AS p;
:attach
-- Time in disguise: age() of one argument counts from today.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('age', age(p.created)) AS document FROM accounts_profile AS p;
:attach
-- Time in disguise: somebody's name may be 'now', his birthday 'today'.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('at', p.name::timestamptz) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('born', (p.settings ->> 'born')::date) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('born', jsonb_populate_record(NULL::accounts_profile, p.settings)) AS document FROM accounts_profile AS p;
:attach
-- Who asks, and from where.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('me', current_user) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('me', session_user) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('tenant', t.title) AS document FROM accounts_profile AS p JOIN accounts_tenant AS t ON t.id = current_setting('app.tenant')::int;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('from', inet_client_addr()) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('in', current_catalog) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('by', pg_backend_pid()) AS document FROM accounts_profile AS p;
:attach
-- The default text search configuration is a setting.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('words', to_tsvector(p.name)) AS document FROM accounts_profile AS p;
:attach
-- The names of things change without a word: ALTER TABLE … RENAME.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('from', 'accounts_profile'::regclass) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('type', pg_typeof(p.kind)) AS document FROM accounts_profile AS p;
:attach
-- So do numbers of objects, where a pg_upgrade does not keep them.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('by', 'lower(text)'::regprocedure::oid) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('by', 'english'::regconfig::bigint) AS document FROM accounts_profile AS p;
:attach
-- A function of the app that is STABLE may read anything.
CREATE FUNCTION plan_title(text) RETURNS text LANGUAGE sql STABLE RETURN (SELECT l.title FROM billing_plan AS l WHERE l.id = $1);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('plan', plan_title('free')) AS document FROM accounts_profile AS p;
:attach
DROP FUNCTION plan_title;
-- An aggregate made of it.
CREATE FUNCTION longer(text, text) RETURNS text LANGUAGE sql STABLE RETURN concat($1, $2);
CREATE AGGREGATE joined(text) (SFUNC = longer, STYPE = text);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('serials', (SELECT joined(d.serial ORDER BY d.id) FROM accounts_device AS d WHERE d.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
DROP AGGREGATE joined(text);
-- An operator made of it.
CREATE OPERATOR <+> (FUNCTION = longer, LEFTARG = text, RIGHTARG = text);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('names', p.name <+> p.email) AS document FROM accounts_profile AS p;
:attach
DROP OPERATOR <+> (text, text);
DROP FUNCTION longer;
-- A cast made of one.
CREATE TYPE colour AS (red int, green int);
CREATE FUNCTION paint(colour) RETURNS text LANGUAGE sql STABLE RETURN current_user;
CREATE CAST (colour AS text) WITH FUNCTION paint(colour);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('colour', ROW(p.user_no, 1)::colour::text) AS document FROM accounts_profile AS p;
:attach
-- The same cast, asked for by nobody: jsonb_build_object() uses a cast to json wherever one is there.
DROP CAST (colour AS text);
DROP FUNCTION paint;
CREATE FUNCTION paint(colour) RETURNS json LANGUAGE sql STABLE RETURN to_json(current_user);
CREATE CAST (colour AS json) WITH FUNCTION paint(colour);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('colour', ROW(p.user_no, 1)::colour) AS document FROM accounts_profile AS p;
:attach
DROP TYPE colour CASCADE;
-- Somebody else's function, even IMMUTABLE: its owner may replace it.
CREATE FUNCTION squeezed(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN lower($1);
ALTER FUNCTION squeezed OWNER TO regress_somebody;
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('name', squeezed(p.name)) AS document FROM accounts_profile AS p;
:attach
DROP FUNCTION squeezed;

-- THE PROFILE'S OWN

-- The whole row of the profile has the document in it, however it is asked for.
CREATE VIEW document AS SELECT p.auth_id, to_jsonb(p) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('full', p IS NOT NULL) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('reports', (SELECT jsonb_agg(r ORDER BY r.id) FROM accounts_profile AS r WHERE r.manager_id = p.id)) AS document FROM accounts_profile AS p;
:attach
-- System columns: our own writes change them.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('version', p.xmin::text) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('place', d.ctid::text) AS document FROM accounts_profile AS p LEFT JOIN LATERAL (SELECT max(d.ctid) AS ctid FROM accounts_device AS d WHERE d.profile_id = p.id) AS d ON true;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('table', p.tableoid) AS document FROM accounts_profile AS p;
:attach
-- Our columns, which are there after an earlier attach().
CREATE VIEW plain AS SELECT p.auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p;
SELECT profile_cache.attach('accounts_profile', key => 'auth_id', document => 'plain');
SELECT profile_cache.detach(drop_columns => false);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('before', p.cached_profile) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('manager_since', (SELECT m.profile_cache_updated_at FROM accounts_profile AS m WHERE m.id = p.manager_id)) AS document FROM accounts_profile AS p;
:attach
SELECT profile_cache.attach('accounts_profile', key => 'auth_id', document => 'plain');
SELECT profile_cache.detach();

-- SAFE, AND REFUSED ALL THE SAME: what attach() does not prove

-- IN as a value where neither side can be NULL: EXISTS says the same.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('subscribed', p.id IN (SELECT s.profile_id FROM billing_subscription AS s)) AS document FROM accounts_profile AS p;
:attach
-- A composite key by constants.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('lobby', (SELECT d.floor FROM hr_desk AS d WHERE d.tenant_id = 1 AND d.desk_no = 1)) AS document FROM accounts_profile AS p;
:whole
-- A row for each profile by two arms that exclude each other.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('bot', p.name) AS document FROM accounts_profile AS p WHERE p.kind = 'bot'
    UNION ALL SELECT p.auth_id, jsonb_build_object('name', p.name) FROM accounts_profile AS p WHERE p.kind <> 'bot';
:attach
-- An anti-join: at most one row is left, where none was found.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p LEFT JOIN accounts_device AS d ON d.profile_id = p.id WHERE d.id IS NULL;
:attach
-- A condition that only HAVING says.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM billing_subscription AS s GROUP BY s.profile_id HAVING s.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
-- As many rows as there are: the whole of a small table touches everyone, as a constant key does; it is accepted with a warning.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('locales', (SELECT jsonb_agg(l.label ORDER BY l.id) FROM geo_locale AS l)) AS document FROM accounts_profile AS p;
:whole

-- NOTHING WAS LEFT BEHIND

SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE NOT tgisinternal AND tgrelid::regclass::text !~ '^profile_cache';
SELECT attrelid::regclass, attname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid WHERE (attname ~ '^cached_profile' OR attname ~ '^profile_cache') AND c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND NOT attisdropped;
SELECT * FROM profile_cache.attachment;
SELECT * FROM profile_cache.pending;
-- And the same tables take a good view.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p;
SELECT profile_cache.attach('accounts_profile', key => 'auth_id', document => 'document');
SELECT tables FROM profile_cache.status;
SELECT profile_cache.detach();
DROP ROLE regress_somebody;
