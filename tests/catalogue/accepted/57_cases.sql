-- Ties in a CASE: a plan of one's own, the manager's, or none, and a subquery that only bots have.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('plan', l.title, 'roles', CASE p.kind WHEN 'bot' THEN (
        SELECT count(*) FROM access_grant AS g WHERE g.holder = p.auth_id) ELSE -1 END) AS document
FROM accounts_profile AS p
    LEFT JOIN billing_account AS a ON a.profile_id = p.id
    LEFT JOIN billing_account AS b ON b.profile_id = p.manager_id
    LEFT JOIN billing_plan AS l ON l.id = CASE WHEN p.kind = 'person' THEN a.plan_id WHEN p.kind = 'guest' THEN b.plan_id END;
