-- Tables of another app than the conventional ones, and what its tests ask after each step. Included
-- with \i, quietly. A person has a company (of a country), a manager (another person), contracts (of
-- a tariff), badges and a desk; the settings' one row named 'currency' is everyone's.
CREATE EXTENSION profile_cache;
CREATE SCHEMA crm;
CREATE FUNCTION u(n integer) RETURNS uuid LANGUAGE sql IMMUTABLE
    AS $$SELECT pg_catalog.lpad(n::text, 32, '0')::uuid$$;
CREATE TYPE crm.standing AS ENUM ('new', 'good', 'bad');
CREATE TYPE crm.setting_name AS ENUM ('currency', 'language');
CREATE TABLE crm.country (code text PRIMARY KEY, name text, memo text);
CREATE TABLE crm.company (id int PRIMARY KEY, name text, country text REFERENCES crm.country ON UPDATE CASCADE, memo text);
CREATE TABLE crm.person (
    id int PRIMARY KEY,
    uid uuid NOT NULL UNIQUE,
    name text,
    standing crm.standing DEFAULT 'new',
    company_id int REFERENCES crm.company ON UPDATE CASCADE,
    manager_id int REFERENCES crm.person ON UPDATE CASCADE ON DELETE SET NULL DEFERRABLE,
    branch text,
    staff_no int,
    memo text,
    UNIQUE (branch, staff_no)
);
CREATE TABLE crm.tariff (code text PRIMARY KEY, label text, price numeric);
CREATE TABLE crm.contract (
    id int PRIMARY KEY,
    person_id int REFERENCES crm.person ON UPDATE CASCADE ON DELETE CASCADE,
    tariff text REFERENCES crm.tariff ON UPDATE CASCADE,
    ends timestamptz
);
CREATE TABLE crm.badge (person_id int REFERENCES crm.person ON UPDATE CASCADE ON DELETE CASCADE, label text, memo text, PRIMARY KEY (person_id, label));
CREATE TABLE crm.desk (
    id int PRIMARY KEY,
    branch text,
    staff_no int,
    room text,
    FOREIGN KEY (branch, staff_no) REFERENCES crm.person (branch, staff_no) ON UPDATE CASCADE ON DELETE CASCADE,
    CONSTRAINT one_desk UNIQUE (branch, staff_no)
);
CREATE TABLE crm.setting (name crm.setting_name PRIMARY KEY, value text);
CREATE INDEX ON crm.company (country);
CREATE INDEX ON crm.person (company_id);
CREATE INDEX ON crm.person (manager_id);
CREATE INDEX ON crm.contract (person_id);
CREATE INDEX ON crm.contract (tariff);

INSERT INTO crm.country VALUES ('at', 'Austria'), ('be', 'Belgium');
INSERT INTO crm.company VALUES (1, 'Acme', 'at'), (2, 'Blunt', 'be'), (3, 'Nowhere', NULL);
INSERT INTO crm.person (id, uid, name, company_id, manager_id, branch, staff_no) VALUES
    (1, u(1), 'Ann', 1, NULL, 'north', 1), (2, u(2), 'Bob', 1, 1, 'north', 2), (3, u(3), 'Cat', 2, 1, 'south', 1),
    (4, u(4), 'Dan', 3, 2, NULL, 4), (5, u(5), 'Eve', NULL, NULL, 'south', NULL);
INSERT INTO crm.tariff VALUES ('s', 'Small', 1), ('l', 'Large', 9.50);
INSERT INTO crm.contract VALUES (1, 1, 's', NULL), (2, 1, 'l', '2100-01-01'), (3, 3, 'l', NULL), (4, 4, NULL, NULL);
INSERT INTO crm.badge VALUES (1, 'admin'), (1, 'first aid'), (2, 'first aid');
INSERT INTO crm.desk VALUES (1, 'north', 1, '1.01'), (2, 'south', 1, '2.02'), (3, 'south', NULL, '3.03');
INSERT INTO crm.setting VALUES ('currency', 'EUR'), ('language', 'de');

-- The attached table and view by whatever names they have now.
-- wrong(): what get_profile serves and what the view says, wherever they differ to the byte, and
-- whatever verify() finds; no row is good.
CREATE FUNCTION wrong() RETURNS TABLE (what text, user_id uuid, served text, expected text)
    LANGUAGE plpgsql SET TimeZone = 'UTC' SET DateStyle = 'ISO, MDY' SET IntervalStyle = 'postgres' AS $$
DECLARE
    a profile_cache.attachment := (SELECT a FROM profile_cache.attachment AS a);
BEGIN
    RETURN QUERY EXECUTE format('SELECT ''served'', p.key, left(get_profile(p.key)::text, 500), left(v.document::text, 500)
        FROM (SELECT %I AS key FROM %s) AS p LEFT JOIN (SELECT %I AS key, document FROM %s) AS v USING (key)
        WHERE get_profile(p.key)::text IS DISTINCT FROM v.document::text', a.definition ->> 'key', a.profile, a.definition ->> 'view_key', a.document);
    RETURN QUERY SELECT v.problem, v.user_id, left(v.served::text, 500), left(v.expected::text, 500) FROM profile_cache.verify() AS v;
END
$$;
-- state(): how many are served from the cache, and of the others whose last digit is which, why not.
CREATE FUNCTION state() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    a profile_cache.attachment := (SELECT a FROM profile_cache.attachment AS a);
    result text;
BEGIN
    EXECUTE format('SELECT string_agg(w || '': '' || CASE WHEN w = ''cache'' THEN n::text ELSE who END, '', '' ORDER BY w) FROM (
        SELECT CASE e ->> ''served_from'' WHEN ''view'' THEN e ->> ''reason'' ELSE e ->> ''served_from'' END AS w,
            count(*) AS n, string_agg(right(key::text, 1), '' '' ORDER BY key) AS who
        FROM (SELECT %I AS key FROM %s) AS p CROSS JOIN LATERAL profile_cache.explain(p.key) AS e GROUP BY w) AS s', a.definition ->> 'key', a.profile) INTO result;
    RETURN result;
END
$$;
-- pending(): what refresh has still to do.
CREATE FUNCTION pending() RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT line FROM profile_cache.pending AS p CROSS JOIN LATERAL concat_ws(', ', p.kind || ': ' || p.reason,
            p.link_table || '.' || array_to_string(p.link_columns, ',') || ' in ' || ARRAY(SELECT v FROM unnest(p.link_values) AS v ORDER BY v)::text,
            array_to_string(p.key_columns, ',') || ' = ' || array_to_string(p.key_values, ',')) AS line
        ORDER BY line COLLATE "C";
END
$$;
-- What refresh says has rates in it that change: its tests ask for it.
SET client_min_messages = warning;
