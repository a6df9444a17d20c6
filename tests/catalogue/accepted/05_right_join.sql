-- RIGHT JOIN with the profile on its preserved side, and a condition in ON that is no equality of columns.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('theme', f.theme) AS document
FROM accounts_preference AS f RIGHT JOIN accounts_profile AS p ON p.id = f.profile_id AND f.digest;
