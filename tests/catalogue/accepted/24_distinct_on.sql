-- DISTINCT ON the key: the first device of each profile.
CREATE VIEW document AS
SELECT DISTINCT ON (p.auth_id) p.auth_id, jsonb_build_object('device', d.serial) AS document
FROM accounts_profile AS p LEFT JOIN accounts_device AS d ON d.profile_id = p.id
ORDER BY p.auth_id, d.push DESC NULLS LAST, d.id;
