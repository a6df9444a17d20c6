-- What is equal: views that attach() must refuse since not all of their conditions, groupings, foreign keys
-- and unique indexes mean the same by it, and beside each the one that means the same. Tables of
-- tests/catalogue/schema.sql and a few more.
\set ECHO none
\i include/output.sql
SET client_min_messages = warning;
CREATE EXTENSION profile_cache;
CREATE EXTENSION citext;
\i ../catalogue/schema.sql
\set attach 'SELECT profile_cache.attach(\'accounts_profile\', key => \'auth_id\', document => \'document\'); DROP VIEW document; SELECT profile_cache.detach();'
\set ECHO all

-- FOREIGN KEYS

-- Of citext, but to an index that tells a from A: the foreign key leads from 'a' to 'a', the view shows 'A' too.
CREATE TABLE tag (tenant int, name citext, label text);
CREATE UNIQUE INDEX exactly ON tag (name text_ops);
CREATE TABLE tagged (profile_id bigint REFERENCES accounts_profile, tag citext REFERENCES tag (name));
CREATE INDEX ON tagged (profile_id);
CREATE INDEX ON tagged (tag);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('tags', (SELECT jsonb_agg(t.label ORDER BY t.label) FROM tagged AS g JOIN tag AS t ON t.name = g.tag WHERE g.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
-- The same between two that refer to it, which the view does not read.
CREATE TABLE liked (id int PRIMARY KEY, tag citext REFERENCES tag (name));
CREATE INDEX ON liked (tag);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('likes', (SELECT count(*) FROM tagged AS g JOIN liked AS l ON l.tag = g.tag WHERE g.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
-- A constant finds one row by that index; citext's = may find two: any row counts, which is said.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('tag', (SELECT max(t.label) FROM tag AS t WHERE t.name = 'a')) AS document FROM accounts_profile AS p;
:attach
DROP TABLE liked, tagged;
-- In one of two columns.
CREATE UNIQUE INDEX exactly_each ON tag (tenant, name text_ops);
CREATE TABLE tagged (profile_id bigint REFERENCES accounts_profile, tenant int, tag citext, FOREIGN KEY (tenant, tag) REFERENCES tag (tenant, name));
CREATE INDEX ON tagged (profile_id);
CREATE INDEX ON tagged (tenant, tag);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('tags', (SELECT jsonb_agg(t.label ORDER BY t.label) FROM tagged AS g JOIN tag AS t ON t.tenant = g.tenant AND t.name = g.tag WHERE g.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
DROP TABLE tagged, tag;
-- By citext's own index all three are tied.
CREATE TABLE tag (name citext PRIMARY KEY, label text);
CREATE TABLE tagged (profile_id bigint REFERENCES accounts_profile, tag citext REFERENCES tag);
CREATE INDEX ON tagged (profile_id);
CREATE INDEX ON tagged (tag);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('tags', (SELECT jsonb_agg(t.label ORDER BY t.label) FROM tagged AS g JOIN tag AS t ON t.name = g.tag WHERE g.profile_id = p.id), 'tag', (SELECT max(t.label) FROM tag AS t WHERE t.name = 'a')) AS document FROM accounts_profile AS p;
:attach
DROP TABLE tagged, tag;
-- Compared by the session's time zone when the row was written, and by ours when the view is read.
CREATE TABLE slot (at timestamptz PRIMARY KEY, label text);
CREATE TABLE booked (profile_id bigint UNIQUE REFERENCES accounts_profile, at timestamp REFERENCES slot);
CREATE INDEX ON booked (at);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('slot', s.label) AS document FROM accounts_profile AS p LEFT JOIN booked AS b ON b.profile_id = p.id LEFT JOIN slot AS s ON s.at = b.at;
:attach
DROP TABLE booked, slot;
-- name and text, char(n) and varchar are each of one mind.
CREATE TABLE word (name name PRIMARY KEY, label text);
CREATE TABLE worded (profile_id bigint UNIQUE REFERENCES accounts_profile, name text REFERENCES word);
CREATE INDEX ON worded (name);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('word', w.label) AS document FROM accounts_profile AS p LEFT JOIN worded AS d ON d.profile_id = p.id LEFT JOIN word AS w ON w.name = d.name;
:attach
DROP TABLE worded, word;

-- COLLATIONS

CREATE DOMAIN ci AS text COLLATE any_case;
-- A cast to a domain under which more is equal, below a condition that tells it apart: 'DE' and 'de' are one row.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM (SELECT DISTINCT l.code::ci AS code FROM geo_locale AS l) AS l WHERE l.code = p.locale COLLATE "C")) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM (SELECT l.code::ci AS code, count(*) AS n FROM geo_locale AS l GROUP BY 1) AS l WHERE l.code = p.locale COLLATE "C")) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(l.n) FROM (SELECT l.code::ci AS code, count(*) OVER (PARTITION BY l.code::ci) AS n FROM geo_locale AS l) AS l WHERE l.code = p.locale COLLATE "C")) AS document FROM accounts_profile AS p;
:attach
-- UNION takes the collation of whichever arm has one.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM (
        SELECT l.code AS x FROM geo_locale AS l UNION SELECT s.skill FROM accounts_profile_skill AS s WHERE s.profile_id = p.id) AS u WHERE u.x = p.locale COLLATE "C")) AS document FROM accounts_profile AS p;
:attach
-- UNION ALL merges nothing.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM (
        SELECT l.code COLLATE "C" AS x FROM geo_locale AS l UNION ALL SELECT s.skill FROM accounts_profile_skill AS s WHERE s.profile_id = p.id) AS u WHERE u.x = p.locale COLLATE "C")) AS document FROM accounts_profile AS p;
:attach
-- Nor does a cast to a domain that changes nothing, and UNION of one mind.
CREATE DOMAIN code AS text COLLATE "C";
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(*) FROM (
        SELECT l.code::code AS x FROM geo_locale AS l UNION SELECT l.code COLLATE "C" FROM geo_locale AS l) AS u WHERE u.x = p.locale)) AS document FROM accounts_profile AS p;
:attach
-- A unique index that tells a from A, on a column that does not: two rows, whoever asks.
CREATE TABLE nick (name text COLLATE any_case NOT NULL, label text);
CREATE UNIQUE INDEX by_bytes ON nick (name COLLATE "C");
ALTER TABLE accounts_profile ADD COLUMN nick text COLLATE any_case REFERENCES nick (name);
CREATE INDEX ON accounts_profile (nick);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('nick', n.label) AS document FROM accounts_profile AS p LEFT JOIN nick AS n ON n.name = p.nick;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('nick', n.label) AS document FROM accounts_profile AS p LEFT JOIN (SELECT n.name, n.label FROM nick AS n) AS n ON n.name = p.nick;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('nick', (SELECT n.label FROM (SELECT DISTINCT n.name, n.label FROM nick AS n) AS n WHERE n.name = 'a' COLLATE any_case)) AS document FROM accounts_profile AS p;
:attach
-- By an index of the column's own collation it is one.
CREATE UNIQUE INDEX by_name ON nick (name);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('nick', n.label) AS document FROM accounts_profile AS p LEFT JOIN (SELECT n.name, n.label FROM nick AS n) AS n ON n.name = p.nick;
:attach
ALTER TABLE accounts_profile DROP COLUMN nick;
DROP TABLE nick;
-- Grouped by a finer equality than the condition's: ORDER BY says by which operators.
CREATE TABLE tag (name citext PRIMARY KEY, label text);
ALTER TABLE accounts_profile ADD COLUMN tag citext REFERENCES tag;
CREATE INDEX ON accounts_profile (tag);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', t.n) AS document
    FROM accounts_profile AS p LEFT JOIN LATERAL (SELECT t.name, count(*) AS n FROM tag AS t GROUP BY t.name ORDER BY t.name USING OPERATOR(pg_catalog.~<~)) AS t ON t.name = p.tag;
:attach
ALTER TABLE accounts_profile DROP COLUMN tag;
DROP TABLE tag;
-- Grouped by a coarser one: PostgreSQL shows the other columns of 'de' or of 'DE', since that is a primary key.
CREATE FUNCTION before(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT RETURN lower($1) < lower($2);
CREATE FUNCTION alike(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT RETURN lower($1) = lower($2);
CREATE FUNCTION compared(text, text) RETURNS int LANGUAGE sql IMMUTABLE STRICT RETURN bttextcmp(lower($1), lower($2));
CREATE OPERATOR <<< (FUNCTION = before, LEFTARG = text, RIGHTARG = text);
CREATE OPERATOR === (FUNCTION = alike, LEFTARG = text, RIGHTARG = text);
CREATE OPERATOR CLASS alike_ops FOR TYPE text USING btree AS OPERATOR 1 <<<, OPERATOR 3 ===, FUNCTION 1 compared(text, text);
CREATE TABLE dialect (code text PRIMARY KEY, spoken_in text REFERENCES geo_country (iso));
CREATE INDEX ON dialect (spoken_in);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(d.spoken_in) FROM (
        SELECT d.spoken_in FROM dialect AS d GROUP BY d.code ORDER BY d.code USING <<<) AS d WHERE d.spoken_in = p.home_country)) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(d.spoken_in) FROM (
        SELECT d.spoken_in FROM dialect AS d GROUP BY d.code) AS d WHERE d.spoken_in = p.home_country)) AS document FROM accounts_profile AS p;
:attach
-- A foreign key to a column that is unique by that one.
CREATE UNIQUE INDEX alike ON dialect (code alike_ops);
ALTER TABLE accounts_profile ADD COLUMN dialect text REFERENCES dialect (code);
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (SELECT count(d.spoken_in) FROM dialect AS d WHERE d.code === p.dialect)) AS document FROM accounts_profile AS p;
:attach

-- ROWS THAT TIE

-- Two subscriptions may have begun together: which one is shown is a matter of luck. A warning, since the app may know better.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('plan', (SELECT s.plan_id FROM billing_subscription AS s WHERE s.profile_id = p.id ORDER BY s.started DESC LIMIT 1)) AS document FROM accounts_profile AS p;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('plan', l.plan_id) AS document FROM accounts_profile AS p LEFT JOIN LATERAL (
        SELECT min(d.plan_id) AS plan_id FROM (SELECT DISTINCT ON (s.status) s.plan_id FROM billing_subscription AS s WHERE s.profile_id = p.id ORDER BY s.status, s.started DESC) AS d) AS l ON true;
:attach
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('plans', (SELECT jsonb_agg(s.plan_id ORDER BY s.n) FROM (
        SELECT s.profile_id, s.plan_id, row_number() OVER (PARTITION BY s.profile_id ORDER BY s.started) AS n FROM billing_subscription AS s) AS s WHERE s.profile_id = p.id)) AS document FROM accounts_profile AS p;
:attach
-- None where a unique column ends the order, one that conditions fix or a join brings along, where all that is shown is ordered by, or the same.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object(
        'by id', (SELECT s.plan_id FROM billing_subscription AS s WHERE s.profile_id = p.id ORDER BY s.started DESC, s.id LIMIT 1),
        'by pair', (SELECT s.years FROM accounts_profile_skill AS s WHERE s.profile_id = p.id ORDER BY s.skill LIMIT 1),
        'joined', (SELECT l.title FROM billing_subscription AS s JOIN billing_plan AS l ON l.id = s.plan_id WHERE s.profile_id = p.id ORDER BY s.ends, s.id LIMIT 1),
        'shown', (SELECT s.status FROM billing_subscription AS s WHERE s.profile_id = p.id ORDER BY s.status LIMIT 1),
        'any', (SELECT 1 FROM billing_subscription AS s WHERE s.profile_id = p.id ORDER BY s.started LIMIT 1),
        'grouped', (SELECT s.status FROM billing_subscription AS s WHERE s.profile_id = p.id GROUP BY s.status ORDER BY max(s.started), s.status LIMIT 1),
        'numbered', (SELECT count(s.n) FROM (SELECT s.profile_id, row_number() OVER (PARTITION BY s.profile_id ORDER BY s.started, s.id) AS n FROM billing_subscription AS s) AS s WHERE s.profile_id = p.id)) AS document
    FROM accounts_profile AS p;
:attach
