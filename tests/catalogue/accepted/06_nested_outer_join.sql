-- A join on the nullable side of another: a plan is shown only where the account has one.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('currency', a.currency, 'plan', l.title) AS document
FROM accounts_profile AS p LEFT JOIN (billing_account AS a JOIN billing_plan AS l ON l.id = a.plan_id) ON a.profile_id = p.id;
