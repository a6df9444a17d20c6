-- Foreign keys across types: int to bigint, int to numeric (with the cast that the parser writes), varchar to text.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('role', r.name, 'role_id', r.id, 'plan', l.title, 'devices', (SELECT count(*) FROM accounts_device AS d WHERE d.profile_id = p.id)) AS document
FROM accounts_profile AS p
    LEFT JOIN access_role AS r ON r.id = p.primary_role
    LEFT JOIN billing_account AS a ON a.profile_id = p.id
    LEFT JOIN billing_plan AS l ON l.id = a.plan_id;
