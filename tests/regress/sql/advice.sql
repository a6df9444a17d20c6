-- What attach() says of views that teams write: each refusal tells what to write instead, and that is accepted; and no
-- warning says what is not so.
\set ECHO none
\i include/output.sql
SET client_min_messages = warning;
CREATE EXTENSION profile_cache;
CREATE TABLE person (id int PRIMARY KEY, uid uuid NOT NULL UNIQUE, name text, settings jsonb);
CREATE TABLE purchase (id int PRIMARY KEY, person int NOT NULL REFERENCES person, item text, price numeric, at timestamptz, extra jsonb);
CREATE TABLE feature_flag (id int PRIMARY KEY, name text);
CREATE TABLE user_flag (flag int NOT NULL REFERENCES feature_flag, person int NOT NULL REFERENCES person, PRIMARY KEY (flag, person));
CREATE INDEX ON purchase (person, id);
CREATE INDEX ON user_flag (person);
INSERT INTO person SELECT n, gen_random_uuid(), 'p' || n, '{"born": "2000-01-02", "seen": "2024-01-02T03:04:05"}' FROM generate_series(1, 300) AS n;
INSERT INTO purchase SELECT n, 1 + n % 300, 'i' || n, n, now(), '{}' FROM generate_series(1, 3000) AS n;
INSERT INTO feature_flag SELECT n, 'f' || n FROM generate_series(1, 10) AS n;
INSERT INTO user_flag SELECT f.id, p.id FROM person AS p, feature_flag AS f;
ANALYZE;
CREATE FUNCTION attached(document text, alone boolean DEFAULT false) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'CREATE VIEW document AS SELECT p.uid, ' || document || CASE WHEN document ~ ' AS document' THEN '' ELSE ' AS document FROM person AS p' END;
    PERFORM profile_cache.attach('person', key => 'uid', document => 'document');
    PERFORM profile_cache.detach();
    DROP VIEW document;
END $$;
\set ECHO all
-- The first of several rows.
SELECT attached($$jsonb_build_object('last', g.item) AS document FROM person AS p LEFT JOIN (SELECT s.person, s.item, row_number() OVER (ORDER BY s.person, s.id DESC) AS n FROM purchase AS s) AS g ON g.person = p.id AND g.n = 1$$);
SELECT attached($$jsonb_build_object('some', g.item) AS document FROM person AS p LEFT JOIN (SELECT s.person, s.item, row_number() OVER (PARTITION BY s.person ORDER BY s.id DESC) AS n FROM purchase AS s) AS g ON g.person = p.id AND g.n <= 3$$);
SELECT attached($$jsonb_build_object('last', g.item) AS document FROM person AS p LEFT JOIN LATERAL (SELECT s.item FROM purchase AS s WHERE s.person = p.id ORDER BY s.id DESC LIMIT 1) AS g ON true$$);
-- Whether there is any.
SELECT attached($$jsonb_build_object('bought', p.id IN (SELECT s.person FROM purchase AS s))$$);
SELECT attached($$jsonb_build_object('bought', NOT (p.id IN (SELECT s.person FROM purchase AS s WHERE s.price > 5)))$$);
SELECT attached($$jsonb_build_object('bought', EXISTS (SELECT FROM purchase AS s WHERE s.person = p.id))$$);
-- A date in JSON.
SELECT attached($$jsonb_build_object('born', (p.settings ->> 'born')::date)$$);
SELECT attached($$jsonb_build_object('seen', (p.settings ->> 'seen')::timestamptz)$$);
SELECT attached($$jsonb_build_object('at', (p.settings ->> 'at')::time)$$);
SELECT attached($$jsonb_build_object('born', to_date(p.settings ->> 'born', 'YYYY-MM-DD'), 'seen', to_timestamp(p.settings ->> 'seen', 'YYYY-MM-DD"T"HH24:MI:SS'))$$);
-- A service's table.
CREATE ROLE regress_service;
CREATE SCHEMA auth;
GRANT USAGE ON SCHEMA auth TO regress_service;
CREATE TABLE auth.users (id uuid PRIMARY KEY, email text);
ALTER TABLE auth.users OWNER TO regress_service;
ALTER TABLE person ADD COLUMN user_id uuid UNIQUE REFERENCES auth.users;
SELECT attached($$jsonb_build_object('email', u.email) AS document FROM person AS p LEFT JOIN auth.users AS u ON u.id = p.user_id$$);
-- A copy is kept by a trigger of the service's table, and shown.
ALTER TABLE person ADD COLUMN email text;
CREATE FUNCTION copy_email() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE public.person SET email = NEW.email WHERE user_id = NEW.id;
    RETURN NULL;
END $$;
CREATE TRIGGER copy_email AFTER INSERT OR UPDATE OF email ON auth.users FOR EACH ROW EXECUTE FUNCTION copy_email();
INSERT INTO auth.users SELECT p.uid, 'old@example.com' FROM person AS p WHERE p.id = 1;
UPDATE person SET user_id = uid WHERE id = 1;
CREATE VIEW document AS SELECT p.uid, jsonb_build_object('email', p.email) AS document FROM person AS p;
SELECT profile_cache.attach('person', key => 'uid', document => 'document');
CALL profile_cache.refresh();
UPDATE auth.users SET email = 'new@example.com';
SELECT get_profile(uid), profile_cache.explain(uid) ->> 'served_from' FROM person WHERE id = 1;
SELECT profile_cache.detach();
DROP VIEW document;
ALTER TABLE person DROP COLUMN user_id, DROP COLUMN email;
DROP TABLE auth.users;
DROP SCHEMA auth;
DROP ROLE regress_service;
-- DISTINCT sorts, and what is left of equal values is the same but for some types.
SELECT attached($$jsonb_build_object('items', (SELECT jsonb_agg(DISTINCT s.item) FROM purchase AS s WHERE s.person = p.id), 'at', (SELECT string_agg(DISTINCT s.item, ', ') FROM purchase AS s WHERE s.person = p.id))$$);
SELECT attached($$jsonb_build_object('prices', (SELECT jsonb_agg(DISTINCT s.price) FROM purchase AS s WHERE s.person = p.id))$$);
SELECT attached($$jsonb_build_object('items', (SELECT jsonb_agg(s.item) FROM purchase AS s WHERE s.person = p.id))$$);
-- An anti-join by indexes reads no table whole.
SELECT attached($$jsonb_build_object('off', (SELECT jsonb_agg(f.name ORDER BY f.id) FROM feature_flag AS f LEFT JOIN user_flag AS u ON u.flag = f.id AND u.person = p.id WHERE u.person IS NULL),
    'off, too', (SELECT jsonb_agg(f.name ORDER BY f.id) FROM feature_flag AS f WHERE NOT EXISTS (SELECT FROM user_flag AS u WHERE u.flag = f.id AND u.person = p.id)),
    'and so', (SELECT jsonb_agg(f.name ORDER BY f.id) FROM feature_flag AS f WHERE NOT f.id IN (SELECT u.flag FROM user_flag AS u WHERE u.person = p.id)))$$);
-- Rows may tie in an aggregate's order: what it shows then may be in another order the next time. Not by a key, nor where it shows nothing else.
SELECT attached($$jsonb_build_object('items', (SELECT jsonb_agg(s.item ORDER BY s.at) FROM purchase AS s WHERE s.person = p.id))$$);
SELECT attached($$jsonb_build_object('items', (SELECT string_agg(s.item, ', ' ORDER BY s.at, s.item) FROM purchase AS s WHERE s.person = p.id), 'too', (SELECT jsonb_agg(s.item ORDER BY s.at, s.id) FROM purchase AS s WHERE s.person = p.id),
    'flags', (SELECT jsonb_agg(jsonb_build_object('name', f.name, 'of', p.name) ORDER BY f.id) FROM user_flag AS u JOIN feature_flag AS f ON f.id = u.flag WHERE u.person = p.id))$$);
SELECT attached($$jsonb_build_object('items', jsonb_agg(s.item ORDER BY s.id)) AS document FROM person AS p LEFT JOIN purchase AS s ON s.person = p.id GROUP BY p.uid$$);
SELECT attached($$jsonb_build_object('items', jsonb_agg(s.item ORDER BY s.price)) AS document FROM person AS p LEFT JOIN purchase AS s ON s.person = p.id GROUP BY p.uid$$);
