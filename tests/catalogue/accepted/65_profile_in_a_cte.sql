-- The profile by a CTE, read twice: once for the key, once for the reports.
CREATE VIEW document AS
WITH person AS NOT MATERIALIZED (SELECT p.auth_id, p.id, p.manager_id, p.shown_name, p.kind FROM accounts_profile AS p WHERE p.kind <> 'bot')
SELECT x.auth_id, jsonb_build_object('name', x.shown_name, 'reports', (SELECT jsonb_agg(r.shown_name ORDER BY r.id) FROM person AS r WHERE r.manager_id = x.id)) AS document
FROM person AS x;
