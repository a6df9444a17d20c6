-- A view of the app's own as the document, over tables with names of their own: attached, refreshed,
-- read from the cache, kept true by writes on every table in it; changed for another view, and for the
-- generated one and back; detached. And who may.
\set ECHO none
\i include/own.sql
\i include/output.sql
-- What one write distrusts; then everything is refreshed.
\set check 'SELECT state(); SELECT * FROM pending(); SELECT * FROM wrong(); CALL profile_cache.refresh(); SELECT state(); SELECT * FROM wrong();'
-- Which tables have triggers of ours.
\set triggers 'SELECT string_agg(DISTINCT g.tgrelid::regclass::text, '', '') FROM pg_trigger AS g JOIN pg_proc AS f ON f.oid = g.tgfoid WHERE f.pronamespace = ''profile_cache''::regnamespace AND g.tgrelid <> ''profile_cache.attachment''::regclass;'
\set ECHO all
CREATE VIEW crm.api_profile AS
SELECT p.uid AS account, jsonb_build_object(
        'name', p.name, 'standing', p.standing,
        'company', CASE WHEN c.id IS NOT NULL THEN jsonb_build_object('name', c.name, 'country', n.name) END,
        'manager', m.name,
        'team', (SELECT jsonb_agg(r.name ORDER BY r.id) FROM crm.person AS r WHERE r.manager_id = p.id),
        'contracts', k.contracts,
        'badges', ARRAY(SELECT b.label FROM crm.badge AS b WHERE b.person_id = p.id ORDER BY b.label),
        'room', d.room,
        'currency', (SELECT s.value FROM crm.setting AS s WHERE s.name = 'currency')) AS document,
    k.next_end AS valid_until
FROM crm.person AS p
LEFT JOIN crm.company AS c ON c.id = p.company_id
LEFT JOIN crm.country AS n ON n.code = c.country
LEFT JOIN crm.person AS m ON m.id = p.manager_id
LEFT JOIN crm.desk AS d ON (d.branch, d.staff_no) = (p.branch, p.staff_no)
CROSS JOIN LATERAL (
    SELECT jsonb_agg(t.label ORDER BY k.id) FILTER (WHERE k.ends IS NULL OR k.ends > now()) AS contracts, min(k.ends) FILTER (WHERE k.ends > now()) AS next_end
    FROM crm.contract AS k JOIN crm.tariff AS t ON t.code = k.tariff WHERE k.person_id = p.id) AS k;

-- Attached, refreshed, read from the cache.
SELECT profile_cache.attach('crm.person', document => 'crm.api_profile', key => 'uid');
SELECT get_profile(u(1));
SELECT state();
CALL profile_cache.refresh();
SELECT state();
SELECT get_profile(u(1));
SELECT get_profile(u(5));
SELECT get_profile(u(9));
SELECT * FROM wrong();
SELECT profile, document, rows, cached, pending_keys, pending_epochs, disabled_triggers, warnings FROM profile_cache.status;
SELECT profile_cache.explain(u(1)) - '{epoch,updated_at,bytes}'::text[];
:triggers
-- How it is found from a changed row whom it concerns.
SELECT t ->> 'name', l -> 'columns' -> 0 ->> 'column', l -> 'watched', l -> 'member', l -> 'everyone', (SELECT jsonb_agg(s ->> 'table') FROM jsonb_array_elements(l -> 'route') AS s)
FROM profile_cache.attachment AS a, jsonb_array_elements(a.definition -> 'tables') AS t, jsonb_array_elements(t -> 'links') AS l ORDER BY 1, 2;

-- attach() again changes nothing, and distrusts nothing.
SELECT profile_cache.attach('crm.person', document => 'crm.api_profile', key => 'uid');
SELECT state();
SELECT * FROM pending();

-- Writes on every table: whom each of them concerns.
UPDATE crm.person SET name = 'Anna' WHERE id = 1;
:check
UPDATE crm.person SET memo = 'not shown' WHERE id = 1;
SELECT state();
SELECT * FROM pending();
UPDATE crm.company SET name = 'Acme & Sons' WHERE id = 1;
:check
UPDATE crm.company SET memo = 'not shown';
SELECT state();
UPDATE crm.country SET name = 'België' WHERE code = 'be';
:check
UPDATE crm.country SET memo = 'not shown';
SELECT state();
UPDATE crm.country SET code = 'bel' WHERE code = 'be';
:check
UPDATE crm.person SET company_id = 3, manager_id = 3 WHERE id = 2;
:check
INSERT INTO crm.contract VALUES (5, 2, 's', '2000-01-01'), (6, 5, 'l', NULL);
:check
UPDATE crm.contract SET person_id = 5, ends = NULL WHERE id = 5;
:check
DELETE FROM crm.contract WHERE id = 2;
:check
UPDATE crm.tariff SET label = 'Huge' WHERE code = 'l';
:check
UPDATE crm.tariff SET price = price + 1;
SELECT state();
UPDATE crm.badge SET label = 'fire', person_id = 3 WHERE person_id = 2;
:check
UPDATE crm.badge SET memo = 'not shown';
SELECT state();
UPDATE crm.desk SET room = '1.11' WHERE id = 1;
:check
UPDATE crm.desk SET staff_no = 2 WHERE id = 1;
:check
UPDATE crm.desk SET room = 'nobody''s' WHERE id = 3;
SELECT state();
UPDATE crm.desk SET staff_no = NULL WHERE id = 1;
:check
UPDATE crm.person SET branch = 'east' WHERE id = 3;
:check
UPDATE crm.setting SET value = 'fr' WHERE name = 'language';
SELECT state();
UPDATE crm.setting SET value = 'CHF' WHERE name = 'currency';
:check
INSERT INTO crm.person (id, uid, name, company_id, manager_id) VALUES (6, u(6), 'Fay', 1, 5);
:check
DELETE FROM crm.person WHERE id = 3;
:check
TRUNCATE crm.badge;
:check
SELECT get_profile(u(1));

-- A view that a caller cannot be given, or that cannot be one.
SELECT profile_cache.attach('crm.person', document => 'crm.api_profile', key => 'uid', exclude => '{memo}');
SELECT profile_cache.attach('crm.person', document => 'crm.company', key => 'uid');
SELECT profile_cache.attach('crm.person', document => 'crm.no_view', key => 'uid');
SELECT profile_cache.attach('crm.company', document => 'crm.api_profile', key => 'uid');
CREATE VIEW crm.text_document AS SELECT uid, name AS document FROM crm.person;
SELECT profile_cache.attach('crm.person', document => 'crm.text_document', key => 'uid');
CREATE VIEW crm.without_document AS SELECT uid, to_jsonb(name) AS doc FROM crm.person;
SELECT profile_cache.attach('crm.person', document => 'crm.without_document', key => 'uid');
CREATE VIEW crm.without_key AS SELECT id, to_jsonb(name) AS document FROM crm.person;
SELECT profile_cache.attach('crm.person', document => 'crm.without_key', key => 'uid');
CREATE VIEW crm.until_text AS SELECT uid, to_jsonb(name) AS document, '2100-01-01' AS valid_until FROM crm.person;
SELECT profile_cache.attach('crm.person', document => 'crm.until_text', key => 'uid');
-- A function that is not IMMUTABLE, whatever it says: its own body reads a table, or a function's that it calls.
CREATE FUNCTION crm.country_name(code text) RETURNS text LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT c.name FROM crm.country AS c WHERE c.code = country_name.code; END;
CREATE FUNCTION crm.by_another(code text) RETURNS text LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT crm.country_name(code); END;
CREATE VIEW crm.reads AS SELECT uid, to_jsonb(crm.country_name('at')) AS document FROM crm.person;
SELECT profile_cache.attach('crm.person', document => 'crm.reads', key => 'uid');
CREATE OR REPLACE VIEW crm.reads AS SELECT uid, to_jsonb(crm.by_another('at')) AS document FROM crm.person;
SELECT profile_cache.attach('crm.person', document => 'crm.reads', key => 'uid');
DROP VIEW crm.reads;
DROP FUNCTION crm.by_another, crm.country_name;
DROP VIEW crm.text_document, crm.without_document, crm.without_key, crm.until_text;
-- What failed has changed nothing.
SELECT state();
SELECT * FROM pending();

-- Another view of the app's own: triggers on tables that are no longer used go.
CREATE VIEW crm.short AS SELECT uid, to_jsonb(p.name || ' of ' || coalesce(c.name, 'no company')) AS document FROM crm.person AS p LEFT JOIN crm.company AS c ON c.id = p.company_id;
SELECT profile_cache.attach('crm.person', document => 'crm.short', key => 'uid');
:triggers
SELECT state();
SELECT get_profile(u(1));
:check
UPDATE crm.tariff SET label = 'no matter';
UPDATE crm.setting SET value = 'no matter';
SELECT state();
SELECT get_profile(u(1));
SELECT profile_cache.attach('crm.person', document => 'crm.api_profile', key => 'uid');
:triggers
:check
SELECT get_profile(u(1)) -> 'currency';

-- The generated view instead, and back. It needs the conventional names beside the profile table.
CREATE TABLE crm.subscription_plan (id int PRIMARY KEY, display_name text);
CREATE TABLE crm.user_subscription (id int PRIMARY KEY, user_id int REFERENCES crm.person ON DELETE CASCADE, plan_id int REFERENCES crm.subscription_plan, status text);
CREATE TABLE crm.role (id int PRIMARY KEY, name text);
CREATE TABLE crm.user_role (user_id int REFERENCES crm.person ON DELETE CASCADE, role_id int REFERENCES crm.role, PRIMARY KEY (user_id, role_id));
CREATE INDEX ON crm.user_subscription (user_id);
CREATE INDEX ON crm.user_subscription (plan_id);
CREATE INDEX ON crm.user_role (role_id);
INSERT INTO crm.role VALUES (1, 'editor');
INSERT INTO crm.user_role VALUES (1, 1);
SELECT profile_cache.attach('crm.person', key => 'uid', exclude => '{memo,staff_no}');
:triggers
SELECT document, exclude FROM profile_cache.attachment;
SELECT get_profile(u(1));
SET search_path = crm, public;
:check
UPDATE crm.country SET name = 'no matter';
SELECT state();
RESET search_path;
SELECT profile_cache.attach('crm.person', document => 'crm.api_profile', key => 'uid');
:triggers
SELECT document, exclude FROM profile_cache.attachment;
SELECT count(*) FROM pg_views WHERE schemaname = 'crm' AND viewname = 'profile_document';
SELECT get_profile(u(1)) -> 'name';
:check
-- The generated view given by name is the generated view.
SELECT profile_cache.attach('crm.person', document => 'crm.profile_document', key => 'uid', exclude => '{memo}');
:triggers
SELECT document, exclude FROM profile_cache.attachment;
SELECT profile_cache.attach('crm.person', document => 'crm.api_profile', key => 'uid');
-- detach leaves the app's own view; the generated one goes, and every trigger.
SELECT profile_cache.detach();
:triggers
SELECT viewname FROM pg_views WHERE schemaname = 'crm' ORDER BY 1;
SELECT document FROM crm.short WHERE uid = u(1);
SELECT column_name FROM information_schema.columns WHERE table_schema = 'crm' AND table_name = 'person' AND column_name ~ 'cache';
SELECT count(*) FROM profile_cache.pending;
-- A view that has a name of the generated one, and is not: left alone.
CREATE VIEW crm.profile_document AS SELECT uid, to_jsonb(name) AS document FROM crm.person;
SELECT profile_cache.attach('crm.person', document => 'crm.profile_document', key => 'uid');
CALL profile_cache.refresh();
SELECT state();
SELECT profile_cache.attach('crm.person', key => 'uid');
SELECT state();
SELECT profile_cache.detach();
SELECT viewname FROM pg_views WHERE schemaname = 'crm' ORDER BY 1;
DROP VIEW crm.profile_document;

-- Who may: the owner of the tables and of the view, who is a member of the extension's owner.
CREATE ROLE regress_crm;
CREATE ROLE regress_other;
GRANT USAGE, CREATE ON SCHEMA crm TO regress_crm, regress_other;
SET ROLE regress_crm;
SELECT profile_cache.attach('crm.person', document => 'crm.short', key => 'uid');
\echo :SQLSTATE
RESET ROLE;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA profile_cache TO regress_crm, regress_other;
GRANT USAGE ON SCHEMA profile_cache TO regress_crm, regress_other;
SET ROLE regress_crm;
SELECT profile_cache.attach('crm.person', document => 'crm.short', key => 'uid');
RESET ROLE;
DO $$ BEGIN EXECUTE format('GRANT %I TO regress_crm', current_user); END $$;
SET ROLE regress_crm;
-- A member of the owner may, and everything still is the owner's.
SELECT profile_cache.attach('crm.person', document => 'crm.short', key => 'uid');
RESET ROLE;
CALL profile_cache.refresh();
SELECT state();
SELECT profile_cache.detach();
-- Not the owner of the view.
ALTER VIEW crm.short OWNER TO regress_other;
SELECT profile_cache.attach('crm.person', document => 'crm.short', key => 'uid');
ALTER VIEW crm.short OWNER TO CURRENT_USER;
-- Nor of one of its tables, of a nested view, of a function.
ALTER TABLE crm.company OWNER TO regress_other;
SELECT profile_cache.attach('crm.person', document => 'crm.short', key => 'uid');
ALTER TABLE crm.company OWNER TO CURRENT_USER;
CREATE VIEW crm.named_company AS SELECT id, name FROM crm.company;
CREATE VIEW crm.nested AS SELECT uid, to_jsonb(c.name) AS document FROM crm.person AS p LEFT JOIN crm.named_company AS c ON c.id = p.company_id;
ALTER VIEW crm.named_company OWNER TO regress_other;
SELECT profile_cache.attach('crm.person', document => 'crm.nested', key => 'uid');
ALTER VIEW crm.named_company OWNER TO CURRENT_USER;
CREATE FUNCTION crm.shout(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN upper($1);
CREATE VIEW crm.shouted AS SELECT uid, to_jsonb(crm.shout(name)) AS document FROM crm.person;
ALTER FUNCTION crm.shout OWNER TO regress_other;
SELECT profile_cache.attach('crm.person', document => 'crm.shouted', key => 'uid');
ALTER FUNCTION crm.shout OWNER TO CURRENT_USER;
SELECT profile_cache.attach('crm.person', document => 'crm.shouted', key => 'uid');
SELECT profile_cache.detach();

-- All of it another role's. A reader needs nothing but the cached document's column and its key.
ALTER SCHEMA crm OWNER TO regress_crm;
DO $$ DECLARE r record; BEGIN
    FOR r IN SELECT c.oid::regclass AS name, c.relkind FROM pg_class AS c WHERE c.relnamespace = 'crm'::regnamespace AND c.relkind IN ('r', 'v') ORDER BY c.relkind LOOP
        EXECUTE format('ALTER %s %s OWNER TO regress_crm', CASE r.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, r.name);
    END LOOP;
END $$;
ALTER FUNCTION crm.shout OWNER TO regress_crm;
ALTER TABLE crm.contract ENABLE ROW LEVEL SECURITY;
CREATE POLICY nobody ON crm.contract TO regress_other USING (false);
SET ROLE regress_crm;
SELECT profile_cache.attach('crm.person', document => 'crm.api_profile', key => 'uid');
CALL profile_cache.refresh();
GRANT USAGE ON SCHEMA crm TO regress_other;
GRANT SELECT (uid, cached_profile) ON crm.person TO regress_other;
SET ROLE regress_other;
SELECT count(*) FROM crm.contract;
SELECT get_profile(u(1)) -> 'contracts';
SELECT profile_cache.explain(u(1)) ->> 'served_from';
SET profile_cache.enabled = off;
SELECT get_profile(u(1)) -> 'contracts';
RESET profile_cache.enabled;
SELECT profile_cache.detach();
RESET ROLE;
SELECT state(), (SELECT count(*) FROM wrong());
-- All of it given to another again.
REASSIGN OWNED BY regress_crm TO regress_other;
SELECT state(), (SELECT count(*) FROM wrong());
UPDATE crm.person SET name = 'another owner' WHERE id = 1;
UPDATE crm.tariff SET label = 'another owner' WHERE code = 's';
SELECT state(), (SELECT count(*) FROM wrong());
CALL profile_cache.refresh();
SELECT state(), (SELECT count(*) FROM wrong());
SELECT warnings FROM profile_cache.status;
SELECT profile_cache.detach();
DROP SCHEMA crm CASCADE;
DROP OWNED BY regress_crm, regress_other;
DROP ROLE regress_crm, regress_other;
