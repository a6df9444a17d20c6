-- UNION ALL in a view of its own, of two types, with a condition that passes into both arms.
CREATE VIEW activity AS
SELECT d.profile_id AS who, 'd' || d.id AS what FROM accounts_device AS d
UNION ALL SELECT s.profile_id, 's' || s.id || coalesce(l.title, '') FROM billing_subscription AS s LEFT JOIN billing_plan AS l ON l.id = s.plan_id;
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('activity', (SELECT string_agg(a.what, ',' ORDER BY a.what COLLATE "C") FROM activity AS a WHERE a.who = p.id)) AS document
FROM accounts_profile AS p;
