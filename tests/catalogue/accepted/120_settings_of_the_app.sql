-- Tables that everyone shows: one row of settings beside each profile, all plans as a list with the profile's own marked, and how many features there are.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('name', p.name, 'currency', s.name,
        'plans', (SELECT jsonb_agg(jsonb_build_object('plan', l.title, 'mine', l.id = a.plan_id) ORDER BY l.id) FROM billing_plan AS l),
        'features', (SELECT count(*) FROM billing_feature)) AS document
FROM accounts_profile AS p
LEFT JOIN billing_account AS a ON a.profile_id = p.id
CROSS JOIN (SELECT c.name FROM geo_currency AS c ORDER BY c.code LIMIT 1) AS s;
