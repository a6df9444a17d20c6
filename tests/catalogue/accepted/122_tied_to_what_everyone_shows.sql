-- What is tied to a table that everyone shows: the plan of one's own, or the one that the first row of another table names; all roles with their permissions; and
-- the same table twice, once for everyone and once by a profile's foreign key.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('plan', (SELECT l.title FROM billing_plan AS l WHERE l.id = coalesce(a.plan_id, d.plan_id)),
        'roles', (SELECT jsonb_agg(jsonb_build_array(r.name, c.codename) ORDER BY r.id, c.id)
                  FROM access_role AS r JOIN access_role_permission AS rp ON rp.role_id = r.id JOIN access_permission AS c ON c.id = rp.permission_id
                  WHERE c.codename <> 'delete'),
        'locale', (SELECT l.label FROM geo_locale AS l WHERE l.code = p.locale), 'locales', (SELECT array_agg(l.code ORDER BY l.id) FROM geo_locale AS l)) AS document
FROM accounts_profile AS p
LEFT JOIN billing_account AS a ON a.profile_id = p.id
LEFT JOIN (SELECT f.plan_id FROM billing_plan_feature AS f ORDER BY f.quota DESC NULLS LAST, f.plan_id, f.feature LIMIT 1) AS d ON true;
