-- There and back: who pays for whom, and on which plan.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('pays_for', (
        SELECT jsonb_agg(jsonb_build_array(o.shown_name, l.title) ORDER BY a.id)
        FROM billing_account AS a JOIN accounts_profile AS o ON o.id = a.profile_id LEFT JOIN billing_plan AS l ON l.id = a.plan_id WHERE a.payer = p.id)) AS document
FROM accounts_profile AS p;
