-- NULLIF, GREATEST, LEAST and CASE as what a key is compared with.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('plan', l.title, 'country', k.name, 'last', n.name, 'tenant', t.title) AS document
FROM accounts_profile AS p
    LEFT JOIN billing_account AS a ON a.profile_id = p.id
    LEFT JOIN billing_plan AS l ON l.id = coalesce(nullif(a.plan_id, 'team'), 'free')
    LEFT JOIN geo_country AS k ON k.iso = CASE WHEN p.kind = 'bot' THEN p.billing_country WHEN a.currency = 'EUR' THEN p.home_country END
    LEFT JOIN geo_country AS n ON n.iso = GREATEST(p.home_country, p.billing_country)
    LEFT JOIN accounts_tenant AS t ON t.id = LEAST(p.tenant_id, 2);
