-- A composite key tied by two occurrences that are equal where it matters: the seat's tenant is the profile's.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('floor', d.floor, 'phone', s.phone) AS document
FROM accounts_profile AS p LEFT JOIN hr_seat AS s USING (tenant_id, user_no) LEFT JOIN hr_desk AS d ON d.tenant_id = p.tenant_id AND d.desk_no = s.desk_no;
