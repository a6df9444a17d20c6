-- = ANY (SELECT …) as a condition of the whole row, of a column that may be NULL.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('name', p.name) AS document
FROM accounts_profile AS p
WHERE p.id = ANY (SELECT d.profile_id FROM accounts_device AS d WHERE d.push);
