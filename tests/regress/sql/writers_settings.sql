-- What is stored does not follow the settings of whoever writes: none that a role may set for itself changes a trusted
-- document, nor what verify compares it with.
\set ECHO none
\i include/output.sql
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE ROLE regress_settings_app;
CREATE ROLE regress_settings_dbo IN ROLE regress_settings_app;
CREATE ROLE regress_settings_web;
\set app regress_settings_app
\set dbo regress_settings_dbo
\set web regress_settings_web
\i include/owners_code.sql
CALL begin_anew();
SET ROLE regress_settings_app;
CREATE TABLE app.note (id int PRIMARY KEY, person int REFERENCES app.person ON DELETE CASCADE, words text[], at timestamptz, length interval, price money,
    weight float8, small float4, raw bytea, page xml, gaps int[], day date, span tstzrange);
CREATE INDEX note_words ON app.note USING gin (words);
CREATE INDEX note_person ON app.note (person);
-- Many rows of one word, so that an inexact search by it leaves some out.
INSERT INTO app.note SELECT n, 1 + n % 2, ARRAY['common', 'w' || n], '2026-03-01 12:00+00'::timestamptz + n * '1 hour'::interval, n * '1 day 2 hours'::interval,
    1000 + n, n / 3.0, n / 7.0, decode(lpad(to_hex(n), 8, '0'), 'hex'), xmlparse(content '<a>' || n || '</a>'), ARRAY[n, NULL], '2026-03-01'::date + n,
    tstzrange('2026-03-01 12:00+00', NULL) FROM generate_series(1, 6000) AS n;
INSERT INTO app.note (id, person, words) SELECT n, 1 + n % 2, ARRAY['w' || n] FROM generate_series(20001, 60000) AS n;
CREATE FUNCTION app.cleaned(t text) RETURNS text LANGUAGE sql IMMUTABLE RETURN pg_catalog.regexp_replace(t, '\s+\\?', '\\-', 'g');
CREATE FUNCTION app.empty(t text) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN t = NULL;
CREATE VIEW app.every AS SELECT p.uid, jsonb_build_object(
    'cleaned', app.cleaned(p.email), 'empty', app.empty(NULLIF(p.email, p.email)), 'quoted', quote_literal(p.email || '\') || quote_ident(p.email || 'A'),
    'common', (SELECT count(*) FROM app.note AS n WHERE n.person = p.id AND n.words @> '{common}'),
    'notes', (SELECT jsonb_agg(jsonb_build_array(n.at, n.length, n.price, n.weight, n.small, n.raw, n.page, n.gaps, n.day, n.span, n.weight::text, n.price::text,
            n.at::text, n.length::text, n.raw::text, n.gaps::text, n.span::text, to_char(n.day, 'TMMonth'), to_char(n.weight, '9D99')) ORDER BY n.id)
        FROM app.note AS n WHERE n.person = p.id AND n.id < 10)) AS document FROM app.person AS p;
GRANT USAGE ON SCHEMA app TO regress_settings_web;
GRANT SELECT, UPDATE, INSERT, DELETE ON app.person, app.badge, app.note TO regress_settings_web;
RESET ROLE;
VACUUM ANALYZE app.note;
-- What a session without any of it computes.
SELECT set_config('test.database', current_database(), false) \g /dev/null
SELECT attempt($$SELECT profile_cache.attach('app.person', 'uid', 'app.every')$$);
CALL profile_cache.refresh();
\set ECHO all
SELECT cached, warnings FROM profile_cache.status;
SELECT jsonb_pretty(get_profile('00000000-0000-0000-0000-000000000001') #- '{notes}');

-- Every setting that a role may set and that could change a result.
SET ROLE regress_settings_web;
\set ECHO none
SET search_path = app, public;
SET standard_conforming_strings = off;
SET escape_string_warning = off;
SET backslash_quote = on;
SET transform_null_equals = on;
SET gin_fuzzy_search_limit = 1;
SET array_nulls = off;
SET bytea_output = escape;
SET DateStyle = 'SQL, DMY';
SET IntervalStyle = 'sql_standard';
SET TimeZone = 'Asia/Kathmandu';
SET extra_float_digits = -10;
SET lc_monetary = 'C.UTF-8';
SET lc_time = 'C.UTF-8';
SET lc_numeric = 'C.UTF-8';
SET xmlbinary = hex;
SET xmloption = document;
SET quote_all_identifiers = on;
SET default_text_search_config = 'pg_catalog.german';
SET client_encoding = 'LATIN1';
SET check_function_bodies = off;
SET default_toast_compression = pglz;
SET row_security = on;
SET parallel_leader_participation = off;
SET synchronize_seqscans = on;
SET enable_seqscan = off;
SET enable_indexscan = off;
SET enable_indexonlyscan = off;
SET jit = off;
\set ECHO all
UPDATE app.person SET email = E'a  b \\ c' WHERE id = 1;
INSERT INTO app.note (id, person, words) VALUES (10001, 1, '{common}'), (10002, 2, '{common}');
UPDATE app.note SET weight = weight + 1 WHERE id IN (3, 4);
-- Its own reads of a miss are under the same settings as everybody's.
SET profile_cache.enabled = off;
SELECT get_profile('00000000-0000-0000-0000-000000000001') -> 'common', get_profile('00000000-0000-0000-0000-000000000002') -> 'common';
RESET profile_cache.enabled;
SELECT profile_cache.explain('00000000-0000-0000-0000-000000000001') ->> 'served_from', profile_cache.explain('00000000-0000-0000-0000-000000000002') ->> 'served_from';
SELECT get_profile('00000000-0000-0000-0000-000000000001') -> 'common', get_profile('00000000-0000-0000-0000-000000000002') -> 'common';

-- The oracle is another session, without any of it.
\c -
SET client_min_messages = warning;
SET TimeZone = 'UTC';
SET IntervalStyle = 'postgres';
SET DateStyle = 'ISO, MDY';
SELECT jsonb_pretty(get_profile('00000000-0000-0000-0000-000000000001') #- '{notes}');
SELECT p.id, profile_cache.explain(p.uid) ->> 'served_from' AS "from", get_profile(p.uid)::text IS NOT DISTINCT FROM v.document::text AS same
FROM app.person AS p LEFT JOIN app.every AS v USING (uid) ORDER BY 1;
SELECT user_id, problem FROM profile_cache.verify();

-- Refresh and verify by one who has such settings.
SET standard_conforming_strings = off;
SET escape_string_warning = off;
SET transform_null_equals = on;
SET gin_fuzzy_search_limit = 1;
SET array_nulls = off;
SET quote_all_identifiers = on;
SET enable_seqscan = off;
SET enable_indexscan = off;
SELECT profile_cache.invalidate_all();
CALL profile_cache.refresh();
SELECT user_id, problem FROM profile_cache.verify();
SELECT cached, warnings FROM profile_cache.status;
SELECT profile_cache.attach('app.person', 'uid', 'app.every');
RESET ALL;
SET TimeZone = 'UTC';
SET IntervalStyle = 'postgres';
SET DateStyle = 'ISO, MDY';
SET client_min_messages = warning;
SELECT p.id, profile_cache.explain(p.uid) ->> 'served_from' AS "from", get_profile(p.uid)::text IS NOT DISTINCT FROM v.document::text AS same
FROM app.person AS p LEFT JOIN app.every AS v USING (uid) ORDER BY 1;
SELECT user_id, problem FROM profile_cache.verify();

\set ECHO none
SELECT profile_cache.detach() \g /dev/null
DROP EXTENSION profile_cache;
DROP SCHEMA app CASCADE;
SELECT format('ALTER DATABASE %I OWNER TO %I', current_database(), current_user) \gexec
DROP OWNED BY regress_settings_app, regress_settings_dbo, regress_settings_web;
DROP ROLE regress_settings_app, regress_settings_dbo, regress_settings_web;
