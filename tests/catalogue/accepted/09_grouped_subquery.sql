-- A plain subquery grouped by the column that refers to the key: the condition on the key passes into it.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('grants', coalesce(g.n, 0), 'first', g.first) AS document
FROM accounts_profile AS p
    LEFT JOIN (SELECT g.holder, count(*) AS n, min(g.id) AS first FROM access_grant AS g GROUP BY g.holder) AS g ON g.holder = p.auth_id;
