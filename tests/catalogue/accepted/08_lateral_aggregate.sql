-- Roles aggregated in a LATERAL subquery, over a foreign key to the key itself, through a domain over uuid.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('email', p.email, 'roles', r.list) AS document
FROM accounts_profile AS p
    CROSS JOIN LATERAL (
        SELECT coalesce(jsonb_agg(jsonb_build_object('role', r.name) ORDER BY g.id), '[]') AS list
        FROM access_grant AS g LEFT JOIN access_role AS r ON r.id = g.role_id
        WHERE g.holder = p.auth_id) AS r;
