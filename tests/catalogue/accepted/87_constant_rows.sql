-- Joins to VALUES: one row where all of them differ in what is compared; and constants that tie.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('kind', v.label, 'theme', w.n, 'plan', l.title) AS document
FROM accounts_profile AS p
    JOIN (VALUES ('person', 'A person', 'free'), ('bot', 'A machine', 'pro'), (NULL, 'Nobody', NULL), ('org', 'Some', 'none')) AS v (kind, label, plan) ON v.kind = p.kind::text
    LEFT JOIN billing_plan AS l ON l.id = v.plan
    LEFT JOIN accounts_preference AS f ON f.profile_id = p.id
    LEFT JOIN (VALUES ('dark', 1), ('light', 2)) AS w (theme, n) ON w.theme = f.theme;
