-- A table with two foreign keys to the profile, read by one and by the other; each way is a route.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object(
        'held', (SELECT jsonb_agg(jsonb_build_array(g.id, b.shown_name) ORDER BY g.id) FROM access_grant AS g LEFT JOIN accounts_profile AS b ON b.id = g.granted_by WHERE g.holder = p.auth_id),
        'given', (SELECT jsonb_agg(jsonb_build_array(g.id, h.shown_name) ORDER BY g.id) FROM access_grant AS g JOIN accounts_profile AS h ON h.auth_id = g.holder WHERE g.granted_by = p.id)) AS document
FROM accounts_profile AS p;
