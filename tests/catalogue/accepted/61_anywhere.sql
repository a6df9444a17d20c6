-- Subqueries where one does not look for them: in ON, ORDER BY, FILTER, HAVING and LIMIT.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('first', x.list, 'devices', (
        SELECT jsonb_agg(d.serial ORDER BY d.id % (SELECT 1 + count(*) FROM billing_subscription AS s WHERE s.profile_id = d.profile_id), d.id)
        FROM accounts_device AS d WHERE d.profile_id = p.id
        HAVING count(*) < (SELECT t.id FROM accounts_tenant AS t WHERE t.id = p.tenant_id) + 1),
    'pushed', (SELECT count(*) FILTER (WHERE EXISTS (SELECT FROM accounts_preference AS f WHERE f.profile_id = d.profile_id AND f.digest)) FROM accounts_device AS d WHERE d.profile_id = p.id)) AS document
FROM accounts_profile AS p LEFT JOIN LATERAL (
    SELECT jsonb_agg(g.id ORDER BY g.id) AS list FROM (
        SELECT g.id FROM access_grant AS g WHERE g.holder = p.auth_id ORDER BY g.id LIMIT (SELECT r.years % 2 FROM accounts_profile_skill AS r WHERE r.profile_id = p.id ORDER BY r.skill LIMIT 1)) AS g) AS x
    ON EXISTS (SELECT FROM accounts_company AS c WHERE c.id = p.company_id AND c.active);
