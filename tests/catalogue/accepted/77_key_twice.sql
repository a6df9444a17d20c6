-- The key in two columns, a tie by CASE to a constant or a column, and a profile found again by its key.
CREATE VIEW document AS
SELECT p.auth_id AS uid, p.auth_id, jsonb_build_object(
        'again', (SELECT q.name FROM accounts_profile AS q WHERE q.auth_id = p.auth_id),
        'role', (SELECT r.name FROM access_role AS r WHERE r.id = CASE p.kind WHEN 'bot' THEN 4.50 ELSE p.primary_role END),
        'managers', (SELECT jsonb_agg(g.id ORDER BY g.id) FROM access_grant AS g JOIN accounts_profile AS q ON q.auth_id = g.holder WHERE q.id = p.manager_id)) AS document
FROM accounts_profile AS p;
