-- A composite foreign key on from there: the desk, and the tenant of all three.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('floor', d.floor, 'desk', s.desk_no, 'tenant', t.title) AS document
FROM accounts_profile AS p
    LEFT JOIN (hr_seat AS s JOIN hr_desk AS d ON d.tenant_id = s.tenant_id AND d.desk_no = s.desk_no) ON s.tenant_id = p.tenant_id AND s.user_no = p.user_no
    JOIN accounts_tenant AS t ON t.id = p.tenant_id;
