-- Ties by computed values: a scalar subquery's, a CASE on EXISTS of constants, and a list of constants in VALUES.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object(
        'last', (SELECT l.title FROM billing_plan AS l WHERE l.id = (SELECT s.plan_id FROM billing_subscription AS s WHERE s.profile_id = p.id ORDER BY s.id DESC LIMIT 1)),
        'kind', (SELECT l.monthly FROM billing_plan AS l WHERE l.id = CASE WHEN EXISTS (SELECT FROM billing_account AS a WHERE a.profile_id = p.id) THEN 'pro' ELSE 'free' END),
        'offers', (SELECT jsonb_agg(l.title ORDER BY l.id) FROM (VALUES ('free'), ('team')) AS v (id) JOIN billing_plan AS l ON l.id = v.id)) AS document
FROM accounts_profile AS p;
