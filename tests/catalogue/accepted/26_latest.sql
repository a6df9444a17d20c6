-- ORDER BY … LIMIT 1 in a LATERAL subquery, and the plan of what it found.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('status', s.status, 'plan', l.title, 'monthly', l.monthly) AS document
FROM accounts_profile AS p
    LEFT JOIN LATERAL (SELECT s.status, s.plan_id FROM billing_subscription AS s WHERE s.profile_id = p.id ORDER BY s.started DESC NULLS LAST, s.id DESC LIMIT 1) AS s ON true
    LEFT JOIN billing_plan AS l ON l.id = s.plan_id;
