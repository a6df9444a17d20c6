-- The account's plan or a constant one: a plan touches those who have it, 'free' also those who have none.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('plan', l.title, 'yearly', l.yearly) AS document
FROM accounts_profile AS p LEFT JOIN billing_account AS a ON a.profile_id = p.id LEFT JOIN billing_plan AS l ON l.id = coalesce(a.plan_id, 'free');
