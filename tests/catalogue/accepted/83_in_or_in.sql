-- IN or IN: each ties its own rows, whatever the others say.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('name', p.name, 'tenant', t.title) AS document
FROM accounts_profile AS p JOIN accounts_tenant AS t ON t.id = p.tenant_id
WHERE p.id IN (SELECT s.profile_id FROM billing_subscription AS s WHERE s.status = 'active')
    OR p.kind = 'bot' AND p.auth_id IN (SELECT g.holder FROM access_grant AS g WHERE g.role_id = 1)
    OR (p.name < 'User 5' AND (p.seen IS NULL OR p.id = ANY (SELECT d.profile_id FROM accounts_device AS d WHERE d.push)));
