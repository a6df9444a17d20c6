-- ARRAY(SELECT …) and DISTINCT in an aggregate over permissions of roles.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object(
        'serials', ARRAY(SELECT d.serial FROM accounts_device AS d WHERE d.profile_id = p.id ORDER BY d.serial, d.id),
        'may', (SELECT jsonb_agg(DISTINCT m.codename) FROM access_grant AS g
            JOIN access_role_permission AS x ON x.role_id = g.role_id JOIN access_permission AS m ON m.id = x.permission_id WHERE g.holder = p.auth_id)) AS document
FROM accounts_profile AS p;
