-- A member of another profile: the roles that the manager holds.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('inherited', r.list) AS document
FROM accounts_profile AS p LEFT JOIN accounts_profile AS m ON p.manager_id = m.id
    LEFT JOIN LATERAL (SELECT jsonb_agg(r.name ORDER BY g.id) AS list FROM access_grant AS g JOIN access_role AS r ON r.id = g.role_id WHERE g.holder = m.auth_id) AS r ON true;
