-- Functions that return no set, in FROM: one row for each of what they are given, so for the profile, its one account
-- and the account's plan.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('name', u.name, 'beta', s.beta, 'n', s.n, 'plan', t.title, 'both', to_jsonb(b)) AS document
FROM accounts_profile AS p
CROSS JOIN LATERAL upper(p.name) AS u (name)
LEFT JOIN billing_account AS a ON a.profile_id = p.id
LEFT JOIN billing_plan AS l ON l.id = a.plan_id
CROSS JOIN jsonb_to_record(p.settings) AS s (beta boolean, n numeric)
LEFT JOIN LATERAL initcap(l.title) AS t (title) ON l.monthly > 1
CROSS JOIN LATERAL ROWS FROM (lower(u.name), length(t.title)) WITH ORDINALITY AS b (name, length, n);
