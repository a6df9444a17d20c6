-- IN of rows: of a subquery by a composite key, and written out.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('seated', CASE WHEN x.n > 0 THEN 1 END, 'seats', y.seats) AS document
FROM accounts_profile AS p
    LEFT JOIN LATERAL (SELECT count(*) AS n FROM accounts_preference AS f
        WHERE f.profile_id = p.id AND (p.tenant_id, p.user_no) IN (SELECT s.tenant_id, s.user_no FROM hr_seat AS s)) AS x ON true
    LEFT JOIN LATERAL (SELECT jsonb_agg(s.status ORDER BY s.id) AS seats FROM billing_subscription AS s
        WHERE (s.profile_id, s.status) IN ((p.id, 'active'), (p.manager_id, 'trialing'))) AS y ON true;
