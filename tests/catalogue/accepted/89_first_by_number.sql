-- row_number() = 1, partitioned by what the rows are tied by: the key, and in a LATERAL subquery whatever it is.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('first', g.id, 'role', r.name, 'latest', s.status) AS document
FROM accounts_profile AS p
    LEFT JOIN (SELECT g.holder, g.id, g.role_id, row_number() OVER (PARTITION BY g.holder ORDER BY g.id) AS n FROM access_grant AS g) AS g ON g.holder = p.auth_id AND g.n = 1
    LEFT JOIN access_role AS r ON r.id = g.role_id
    LEFT JOIN LATERAL (SELECT s.status, row_number() OVER (ORDER BY s.started DESC NULLS LAST, s.id) AS n FROM billing_subscription AS s WHERE s.profile_id = p.id) AS s ON s.n = 1;
