-- EXCEPT and INTERSECT, ALL or not, of arms that are tied each by itself.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object(
        'unused', (SELECT jsonb_agg(x.plan_id ORDER BY x.plan_id) FROM (
            SELECT s.plan_id FROM billing_subscription AS s WHERE s.profile_id = p.id
            EXCEPT SELECT a.plan_id FROM billing_account AS a WHERE a.profile_id = p.id) AS x),
        'both', ARRAY(SELECT g.role_id FROM access_grant AS g WHERE g.holder = p.auth_id
            INTERSECT ALL SELECT h.role_id FROM access_grant AS h WHERE h.granted_by = p.id ORDER BY 1),
        'titles', (SELECT jsonb_agg(l.title ORDER BY l.id) FROM billing_plan AS l WHERE l.id IN (
            SELECT s.plan_id FROM billing_subscription AS s WHERE s.profile_id = p.id EXCEPT ALL SELECT 'free'))) AS document
FROM accounts_profile AS p;
