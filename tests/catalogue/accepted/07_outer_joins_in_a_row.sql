-- A chain of outer joins; each step hangs on a row that may not be there.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('currency', a.currency, 'plan', l.title, 'payer', b.shown_name, 'payer_company', c.name) AS document
FROM accounts_profile AS p
    LEFT JOIN billing_account AS a ON a.profile_id = p.id
    LEFT JOIN billing_plan AS l ON l.id = a.plan_id
    LEFT JOIN accounts_profile AS b ON b.id = a.payer
    LEFT JOIN accounts_company AS c ON c.id = b.company_id;
