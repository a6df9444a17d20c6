-- NATURAL LEFT JOIN: the columns of one name are the foreign key.
CREATE VIEW document AS
SELECT auth_id, jsonb_build_object('phone', phone, 'no', user_no) AS document
FROM (SELECT auth_id, tenant_id, user_no FROM accounts_profile) AS p NATURAL LEFT JOIN hr_seat;
