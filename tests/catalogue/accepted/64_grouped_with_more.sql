-- Grouped by the key and by what the profile decides: still one row.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('company', c.name, 'roles', count(g.id)) AS document
FROM accounts_profile AS p LEFT JOIN accounts_company AS c ON c.id = p.company_id LEFT JOIN access_grant AS g ON g.holder = p.auth_id
GROUP BY p.auth_id, c.name, p.company_id;
