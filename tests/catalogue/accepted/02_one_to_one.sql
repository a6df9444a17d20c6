-- LEFT JOIN of a table that has at most one row for each profile, by a UNIQUE constraint.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('name', p.name, 'theme', coalesce(f.theme, 'light'), 'digest', f.digest) AS document
FROM accounts_profile AS p LEFT JOIN accounts_preference AS f ON f.profile_id = p.id;
