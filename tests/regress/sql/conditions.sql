-- Conditions and values that attach() understands, and their nearest neighbours, which it must refuse: over the tables of
-- tests/catalogue/schema.sql, where the accepted ones are under random writes (tests/catalogue/accepted, 80 to 89).
\set ECHO none
\i include/output.sql
SET client_min_messages = warning;
CREATE EXTENSION profile_cache;
\i ../catalogue/schema.sql
\set attach 'SELECT profile_cache.attach(\'accounts_profile\', key => \'auth_id\', document => \'document\'); DROP VIEW document;'
\set ECHO all

-- ONE ROW BY A PARTIAL UNIQUE INDEX

-- Its predicate is no condition here.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('m', a.mail) AS document FROM accounts_profile AS p LEFT JOIN accounts_address AS a ON a.profile_id = p.id;
:attach
-- More than it holds for: another flag's rows, one more state, NULLs too, another comparison.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('m', a.mail) AS document FROM accounts_profile AS p LEFT JOIN accounts_address AS a ON a.profile_id = p.id AND NOT a.main;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('m', a.mail) AS document FROM accounts_profile AS p LEFT JOIN accounts_address AS a ON a.profile_id = p.id AND a.main IS NOT FALSE;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('m', a.mail) AS document FROM accounts_profile AS p LEFT JOIN accounts_address AS a ON a.profile_id = p.id AND a.state IN ('current', 'past');
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('m', a.mail) AS document FROM accounts_profile AS p LEFT JOIN accounts_address AS a ON a.profile_id = p.id AND a.state >= 'current';
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('m', a.mail) AS document FROM accounts_profile AS p LEFT JOIN accounts_address AS a ON a.profile_id = p.id AND a.state = p.name;
:attach
-- By a collation that takes 'CURRENT' for 'current'.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('m', a.mail) AS document FROM accounts_profile AS p LEFT JOIN accounts_address AS a ON a.profile_id = p.id AND a.state = 'current' COLLATE any_case;
:attach
-- By the order of another collation.
CREATE UNIQUE INDEX own ON accounts_address (profile_id) WHERE state < 'm' COLLATE "C";
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('m', a.mail) AS document FROM accounts_profile AS p LEFT JOIN accounts_address AS a ON a.profile_id = p.id AND a.state < 'm';
:attach
DROP INDEX own;
-- One half of it.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('m', a.mail) AS document FROM accounts_profile AS p LEFT JOIN accounts_address AS a ON a.profile_id = p.id AND a.gone IS NULL;
:attach
-- Of another occurrence of the table; and in the ON of a join that leaves none of its rows out.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('m', a.mail) AS document FROM accounts_profile AS p LEFT JOIN accounts_address AS b ON b.profile_id = p.id AND b.main LEFT JOIN accounts_address AS a ON a.profile_id = p.id AND b.main;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('m', a.mail) AS document FROM accounts_profile AS p JOIN accounts_address AS a ON a.profile_id = p.id LEFT JOIN accounts_preference AS f ON f.profile_id = p.id AND a.state = 'current';
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('m', a.mail) AS document FROM accounts_profile AS p LEFT JOIN accounts_address AS a ON a.profile_id = p.id AND (a.main OR a.gone IS NULL);
:attach
-- The predicate without the index's columns.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('m', a.mail) AS document FROM accounts_profile AS p LEFT JOIN accounts_address AS a ON a.profile_id = p.manager_id AND a.state = 'past' AND a.plan_id IS NOT NULL;
:attach
-- A predicate that calls what is not the server's may mean something else tomorrow, and the index what it meant when it was made.
CREATE FUNCTION same(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN $1 = $2;
CREATE OPERATOR === (FUNCTION = same, LEFTARG = text, RIGHTARG = text);
CREATE UNIQUE INDEX own ON accounts_address (profile_id) WHERE state === 'primary';
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('m', a.mail) AS document FROM accounts_profile AS p LEFT JOIN accounts_address AS a ON a.profile_id = p.id AND a.state === 'primary';
:attach
DROP INDEX own;
DROP FUNCTION same CASCADE;
-- A partial index says nothing of a constant, nor of the same row again.
CREATE UNIQUE INDEX own ON accounts_address (mail) WHERE main;
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('m', (SELECT a.gone FROM accounts_address AS a WHERE a.mail = 'mail1' AND a.main)) AS document FROM accounts_profile AS p;
:attach
DROP INDEX own;

-- Dropped, it proves nothing any more; nor does another one of the same columns.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('m', a.mail) AS document FROM accounts_profile AS p LEFT JOIN accounts_address AS a ON a.profile_id = p.id AND a.state = 'current';
SELECT profile_cache.attach('accounts_profile', key => 'auth_id', document => 'document');
CALL profile_cache.refresh();
SELECT definition -> 'tables' -> 1 -> 'partial' AS partial, problem FROM profile_cache.attachment;
SELECT warnings FROM profile_cache.status;
BEGIN;
DROP INDEX accounts_address_profile_id_idx;
SELECT warnings FROM profile_cache.status;
CREATE UNIQUE INDEX accounts_address_profile_id_idx ON accounts_address (profile_id) WHERE state IN ('confirmed', 'past');
SELECT warnings FROM profile_cache.status;
ROLLBACK;
SELECT warnings FROM profile_cache.status;
-- What it is called, and what its column is called, is nothing to it.
ALTER INDEX accounts_address_profile_id_idx RENAME TO one_current;
ALTER TABLE accounts_address RENAME COLUMN state TO condition;
CALL profile_cache.refresh();
SELECT definition -> 'tables' -> 1 -> 'partial' AS partial, problem FROM profile_cache.attachment;
SELECT warnings FROM profile_cache.status;
-- An index that is not valid, as DROP INDEX CONCURRENTLY leaves it first.
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'one_current'::regclass;
\c -
SET client_min_messages = warning;
SELECT warnings FROM profile_cache.status;
UPDATE pg_index SET indisvalid = true WHERE indexrelid = 'one_current'::regclass;
SELECT profile_cache.detach();
DROP VIEW document;
ALTER TABLE accounts_address RENAME COLUMN condition TO state;

-- Whether an outer join finds its one row may be different for each row of a third table.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('q', q.title) AS document
    FROM accounts_profile AS p JOIN billing_plan AS q ON true LEFT JOIN billing_account AS a ON a.profile_id = p.id AND q.title = 'x' WHERE q.id = coalesce(a.plan_id, 'free');
:attach

-- OR

-- One arm ties nothing; the arms tie different tables; not by a key.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM geo_country AS k WHERE k.iso = p.home_country OR k.name = p.name)) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM accounts_device AS d, accounts_preference AS f WHERE d.profile_id = p.id OR f.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM access_grant AS g WHERE g.holder = p.auth_id OR g.role_id IS NULL)) AS document FROM accounts_profile AS p;
:attach
-- An OR in one arm need not hold.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM geo_country AS k WHERE (k.iso = p.home_country OR k.iso = p.billing_country) OR p.kind = 'bot')) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM geo_country AS k WHERE p.kind = 'bot' OR (p.name = 'x' AND (k.iso = p.home_country OR k.iso = p.billing_country)))) AS document FROM accounts_profile AS p;
:attach
-- Under NOT; as a value, which is NULL as soon as one row is.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM geo_country AS k WHERE NOT (k.iso = p.home_country OR k.iso = p.billing_country))) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p WHERE NOT (p.id IN (SELECT s.profile_id FROM billing_subscription AS s) OR p.kind = 'bot');
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('in', p.id IN (SELECT d.profile_id FROM accounts_device AS d) OR p.kind = 'bot') AS document FROM accounts_profile AS p;
:attach
-- Of an outer join's other side.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', x.n) AS document FROM accounts_profile AS p LEFT JOIN LATERAL (
        SELECT count(*) AS n FROM geo_country AS k LEFT JOIN accounts_company AS c ON k.iso = p.home_country OR k.iso = p.billing_country) AS x ON true;
:attach
-- Behind a LIMIT.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM (SELECT k.iso FROM geo_country AS k ORDER BY k.iso LIMIT 3) AS k WHERE k.iso = p.home_country OR k.iso = p.billing_country)) AS document FROM accounts_profile AS p;
:attach

-- ROWS, ARRAYS, VALUES

-- Half of a key; a row that is none of them, or less than one.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p WHERE (p.tenant_id, p.name) IN (SELECT s.tenant_id, s.phone FROM hr_seat AS s);
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p WHERE (p.tenant_id, p.user_no) NOT IN (SELECT s.tenant_id, s.user_no FROM hr_seat AS s);
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p WHERE (p.tenant_id, p.user_no) < ANY (SELECT s.tenant_id, s.user_no FROM hr_seat AS s);
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p WHERE (p.tenant_id, p.user_no) <> ANY (SELECT s.tenant_id, s.user_no FROM hr_seat AS s);
:attach
-- Of an array: all of it; its first rows; as a value.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p WHERE p.id = ALL (ARRAY(SELECT s.profile_id FROM billing_subscription AS s));
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p WHERE p.id = ANY (ARRAY(SELECT s.profile_id FROM billing_subscription AS s ORDER BY s.id LIMIT 3));
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('in', p.id = ANY (ARRAY(SELECT d.profile_id FROM accounts_device AS d))) AS document FROM accounts_profile AS p;
:attach
-- Computed, if only in one case; the second operand of NULLIF is no result, and a computed first one is.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('plan', l.title) AS document FROM accounts_profile AS p LEFT JOIN billing_account AS a ON a.profile_id = p.id LEFT JOIN billing_plan AS l ON l.id = coalesce(nullif(lower(a.plan_id), ''), 'free');
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('country', k.name) AS document FROM accounts_profile AS p LEFT JOIN geo_country AS k ON k.iso = GREATEST(p.home_country, p.billing_country || '');
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('country', k.name) AS document FROM accounts_profile AS p LEFT JOIN geo_country AS k ON k.iso = CASE p.kind WHEN 'bot' THEN p.home_country ELSE p.name END;
:attach
-- Rows of VALUES of which several are equal: the same twice, in any case, in other words.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('label', v.label) AS document FROM accounts_profile AS p JOIN (VALUES ('bot', 'A'), ('bot', 'B')) AS v (kind, label) ON v.kind = p.kind::text;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('label', v.label) AS document FROM accounts_profile AS p JOIN (VALUES ('bot', 'A'), ('BOT', 'B')) AS v (kind, label) ON v.kind = p.kind::text COLLATE any_case;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('label', v.label) AS document FROM accounts_profile AS p JOIN (VALUES (1.0, 'A'), (1.00, 'B')) AS v (tenant, label) ON v.tenant = p.tenant_id;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('label', v.label) AS document FROM accounts_profile AS p JOIN (VALUES ('bot', 'A'), (lower('BOT'), 'B')) AS v (kind, label) ON v.kind = p.kind::text;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('label', v.label) AS document FROM accounts_profile AS p JOIN (VALUES ('bot', 'A'), ('person', 'B')) AS v (kind, label) ON v.kind <> p.kind::text;
:attach
-- Two columns that may both be NULL are not distinct, and no equality: write = where neither can be.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('country', k.name) AS document FROM accounts_profile AS p LEFT JOIN geo_country AS k ON k.iso IS NOT DISTINCT FROM p.home_country;
:attach

-- EXCEPT AND INTERSECT

-- An arm that nothing ties; a condition outside, which PostgreSQL does not move into it.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('plans', ARRAY(SELECT l.id FROM billing_plan AS l EXCEPT SELECT a.plan_id FROM billing_account AS a WHERE a.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('plans', ARRAY(SELECT a.plan_id FROM billing_account AS a WHERE a.profile_id = p.id INTERSECT SELECT l.id FROM billing_plan AS l)) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM (SELECT d.profile_id FROM accounts_device AS d EXCEPT SELECT s.profile_id FROM billing_subscription AS s) AS x WHERE x.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
-- Several rows.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('plan', x.plan_id) AS document FROM accounts_profile AS p LEFT JOIN LATERAL (SELECT s.plan_id FROM billing_subscription AS s WHERE s.profile_id = p.id EXCEPT SELECT 'free') AS x ON true;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('name', p.name) AS document FROM accounts_profile AS p EXCEPT SELECT p.auth_id, jsonb_build_object('name', 'x') FROM accounts_profile AS p;
:attach

-- row_number()

-- Within more than the tie; none of it; not one of them; another function.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('first', g.id) AS document FROM accounts_profile AS p
    LEFT JOIN (SELECT g.holder, g.id, row_number() OVER (PARTITION BY g.holder, g.role_id ORDER BY g.id) AS n FROM access_grant AS g) AS g ON g.holder = p.auth_id AND g.n = 1;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('first', g.id) AS document FROM accounts_profile AS p
    LEFT JOIN (SELECT g.holder, g.id, row_number() OVER (PARTITION BY g.role_id ORDER BY g.id) AS n FROM access_grant AS g) AS g ON g.holder = p.auth_id AND g.n = 1;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('first', g.id) AS document FROM accounts_profile AS p
    LEFT JOIN (SELECT g.holder, g.id, row_number() OVER (PARTITION BY g.holder ORDER BY g.id) AS n FROM access_grant AS g) AS g ON g.holder = p.auth_id AND g.n <= 2;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('first', g.id) AS document FROM accounts_profile AS p
    LEFT JOIN (SELECT g.holder, g.id, rank() OVER (PARTITION BY g.holder ORDER BY g.role_id) AS n FROM access_grant AS g) AS g ON g.holder = p.auth_id AND g.n = 1;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('first', g.id) AS document FROM accounts_profile AS p
    LEFT JOIN (SELECT g.holder, g.id, row_number() OVER (PARTITION BY g.holder ORDER BY g.id) / 2 AS n FROM access_grant AS g) AS g ON g.holder = p.auth_id AND g.n = 1;
:attach
-- By another column than the key: the whole table would be numbered for one document, and LATERAL says the same.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('latest', s.status) AS document FROM accounts_profile AS p
    LEFT JOIN (SELECT s.profile_id, s.status, row_number() OVER (PARTITION BY s.profile_id ORDER BY s.id) AS n FROM billing_subscription AS s) AS s ON s.profile_id = p.id AND s.n = 1;
:attach
-- A function in the SELECT list makes several rows of the numbered one.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', s.n) AS document FROM accounts_profile AS p
    LEFT JOIN LATERAL (SELECT row_number() OVER (ORDER BY g.id) AS number, generate_series(1, 2) AS n FROM access_grant AS g WHERE g.holder = p.auth_id) AS s ON s.number = 1;
:attach

-- WHAT DECIDES WHETHER A ROW IS MISSING
-- One row of the plans finds the account by what a function makes of it, and another none.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('plan', l.id, 'account', a.id) AS document FROM accounts_profile AS p JOIN billing_plan AS l ON true
    LEFT JOIN (LATERAL upper(l.title) AS f (title) JOIN billing_account AS a ON a.currency = f.title) ON a.profile_id = p.id
    WHERE l.id = coalesce(a.plan_id, 'free');
:attach
