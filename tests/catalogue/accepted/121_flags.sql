-- Every skill there is, with the profile's own where it has one: the outer side is tied by nothing, the other by its foreign key.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_object_agg(k.name::text, jsonb_build_object('level', k.level, 'years', ps.years) ORDER BY k.name COLLATE "C") AS document
FROM accounts_profile AS p
CROSS JOIN accounts_skill AS k
LEFT JOIN accounts_profile_skill AS ps ON ps.skill = k.name AND ps.profile_id = p.id
GROUP BY p.auth_id;
