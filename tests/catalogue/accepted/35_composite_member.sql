-- A member with a composite foreign key, in a row comparison.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('phone', (SELECT s.phone FROM hr_seat AS s WHERE (s.tenant_id, s.user_no) = (p.tenant_id, p.user_no))) AS document
FROM accounts_profile AS p;
