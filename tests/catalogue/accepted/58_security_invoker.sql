-- A view that would read as whoever asks: documents are computed as the owner all the same.
CREATE VIEW plan_of WITH (security_invoker) AS SELECT a.profile_id, l.title FROM billing_account AS a JOIN billing_plan AS l ON l.id = a.plan_id;
CREATE VIEW document WITH (security_invoker) AS
SELECT p.auth_id, jsonb_build_object('plan', (SELECT x.title FROM plan_of AS x WHERE x.profile_id = p.id)) AS document
FROM accounts_profile AS p;
