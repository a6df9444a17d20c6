-- A row by a constant key: it touches everyone.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('name', p.name, 'free', l.title, 'limits', (SELECT jsonb_agg(x.quota ORDER BY x.feature) FROM billing_plan_feature AS x WHERE x.plan_id = l.id)) AS document
FROM accounts_profile AS p LEFT JOIN billing_plan AS l ON l.id = 'free';
