-- OR whose every arm ties the same table: by one column twice, by two of its columns, with more beside, through a subquery.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object(
        'countries', (SELECT jsonb_agg(k.name ORDER BY k.iso) FROM geo_country AS k WHERE k.iso = p.home_country OR k.iso = p.billing_country),
        'grants', (SELECT jsonb_agg(g.id ORDER BY g.id) FROM access_grant AS g WHERE g.holder = p.auth_id AND g.role_id = 1 OR (g.granted_by = p.id AND (g.role_id IS NULL OR g.role_id > 1))),
        'plans', (SELECT jsonb_agg(l.title ORDER BY l.id) FROM billing_plan AS l LEFT JOIN billing_account AS a ON a.profile_id = p.id WHERE l.id = a.plan_id OR l.id = 'free'),
        'devices', (SELECT count(d.serial) FROM (SELECT d.profile_id AS mine, d.serial FROM accounts_device AS d) AS d WHERE d.mine = p.id OR d.mine = p.manager_id)) AS document
FROM accounts_profile AS p;
