-- Grouped by the primary key, which decides the key.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('name', p.name, 'skills', array_agg(s.skill || ':' || s.years ORDER BY s.skill)) AS document
FROM accounts_profile AS p JOIN accounts_profile_skill AS s ON s.profile_id = p.id
GROUP BY p.id;
