-- JOIN … USING where the columns are composite foreign keys: the seat's to the profile, the desk's from the seat.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('phone', phone, 'tenant', tenant_id, 'floor', floor) AS document
FROM accounts_profile AS p JOIN hr_seat USING (tenant_id, user_no) JOIN hr_desk USING (tenant_id, desk_no);
