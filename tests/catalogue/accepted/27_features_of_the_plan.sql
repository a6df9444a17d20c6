-- Three steps away: the features of the plan of the account.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('features', (
        SELECT jsonb_object_agg(f.code, jsonb_build_object('label', f.label, 'quota', x.quota))
        FROM billing_account AS a JOIN billing_plan AS l ON l.id = a.plan_id JOIN billing_plan_feature AS x ON x.plan_id = l.id JOIN billing_feature AS f ON f.code = x.feature
        WHERE a.profile_id = p.id AND l.monthly >= 0)) AS document
FROM accounts_profile AS p;
