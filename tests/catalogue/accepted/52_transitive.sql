-- The tie by way of a third table: the seat's tenant equals the profile's, and that equals the tenant's own.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('tenant', t.title, 'desks', (
        SELECT count(*) FROM hr_desk AS d JOIN accounts_tenant AS x ON x.id = d.tenant_id WHERE x.id = t.id AND d.floor > 1)) AS document
FROM accounts_tenant AS t JOIN accounts_profile AS p ON p.tenant_id = t.id;
