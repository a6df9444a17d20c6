-- A plain subquery of a table with at most one row for each profile, with expressions in it: uniqueness passes through.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('theme', f.theme, 'plan', a.plan) AS document
FROM accounts_profile AS p
    LEFT JOIN (SELECT f.profile_id, upper(f.theme) AS theme FROM accounts_preference AS f WHERE f.digest) AS f ON f.profile_id = p.id
    LEFT JOIN (SELECT b.profile_id AS who, l.title || ' ' || coalesce(b.currency, '') AS plan FROM billing_account AS b LEFT JOIN billing_plan AS l ON l.id = b.plan_id) AS a ON a.who = p.id;
