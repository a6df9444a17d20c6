-- COALESCE of two columns: the country of billing, or else the home country.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('country', k.name, 'plan', l.title) AS document
FROM accounts_profile AS p
    LEFT JOIN geo_country AS k ON k.iso = coalesce(p.billing_country, p.home_country)
    LEFT JOIN billing_account AS a ON a.profile_id = p.id
    LEFT JOIN billing_account AS m ON m.profile_id = p.manager_id
    LEFT JOIN billing_plan AS l ON l.id = coalesce(a.plan_id, m.plan_id, 'free');
