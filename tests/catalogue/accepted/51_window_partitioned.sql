-- A plain subquery with a window over the column that refers to the key: the condition passes below the window.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('grants', jsonb_agg(jsonb_build_array(g.id, g.n) ORDER BY g.id)) AS document
FROM accounts_profile AS p
    LEFT JOIN (SELECT g.holder, g.id, rank() OVER (PARTITION BY g.holder ORDER BY g.role_id, g.id) AS n FROM access_grant AS g) AS g ON g.holder = p.auth_id AND g.n < 3
GROUP BY p.auth_id;
