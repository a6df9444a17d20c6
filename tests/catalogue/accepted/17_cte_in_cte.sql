-- A CTE that reads another one, inside a subquery, and is materialized there for one profile.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('billed', b.total, 'most', b.most) AS document
FROM accounts_profile AS p CROSS JOIN LATERAL (
    WITH mine AS MATERIALIZED (SELECT s.id FROM billing_subscription AS s WHERE s.profile_id = p.id),
        bills AS (SELECT i.id, i.total FROM billing_invoice AS i JOIN mine ON mine.id = i.subscription_id)
    SELECT (SELECT sum(x.total) FROM bills AS x) AS total, (SELECT max(x.total) FROM bills AS x) AS most) AS b;
