-- An anti-join with a group, and somebody else's preference where there is a manager.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('quiet', count(*), 'theme', (SELECT f.theme FROM accounts_preference AS f WHERE f.profile_id = coalesce(p.manager_id, p.id))) AS document
FROM accounts_profile AS p LEFT JOIN accounts_device AS d ON d.profile_id = p.id AND d.push
WHERE d.id IS NULL
GROUP BY p.id;
