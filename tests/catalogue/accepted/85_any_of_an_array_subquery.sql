-- = ANY (ARRAY (SELECT …)), of rows that are tied by it, and of those that tie the others.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('roles', (SELECT jsonb_agg(r.name ORDER BY r.id) FROM access_role AS r
            WHERE r.id = ANY (ARRAY(SELECT g.role_id FROM access_grant AS g WHERE g.holder = p.auth_id ORDER BY g.id))),
        'plans', (SELECT jsonb_agg(l.title ORDER BY l.id) FROM billing_plan AS l
            WHERE l.id = ANY (ARRAY(SELECT s.plan_id FROM billing_subscription AS s WHERE s.profile_id = p.id)))) AS document
FROM accounts_profile AS p
WHERE p.id = ANY (ARRAY(SELECT f.profile_id FROM accounts_preference AS f)) OR p.kind = 'person';
