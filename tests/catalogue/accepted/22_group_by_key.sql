-- Grouped by the key at the top: one row a profile whatever is joined, with FILTER and HAVING.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('devices', count(d.id), 'push', count(*) FILTER (WHERE d.push), 'last', max(d.serial)) AS document
FROM accounts_profile AS p LEFT JOIN accounts_device AS d ON d.profile_id = p.id
GROUP BY p.auth_id
HAVING count(d.id) <> 2;
