-- Time in a nested view, and a period that has not begun.
CREATE VIEW current_subscription AS
SELECT s.profile_id, s.id, s.plan_id, least(CASE WHEN s.started > now() THEN s.started END, CASE WHEN s.ends > now() THEN s.ends END) AS changes,
    (s.started IS NULL OR s.started <= now()) AND (s.ends IS NULL OR s.ends > now()) AS active
FROM billing_subscription AS s;
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('plans', (SELECT jsonb_agg(l.title ORDER BY c.id) FROM current_subscription AS c JOIN billing_plan AS l ON l.id = c.plan_id WHERE c.profile_id = p.id AND c.active)) AS document,
    (SELECT min(c.changes) FROM current_subscription AS c WHERE c.profile_id = p.id) AS valid_until
FROM accounts_profile AS p;
