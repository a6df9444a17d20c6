-- Profile and memberships refer to a person each, as a framework's user model has it.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('name', p.name, 'username', u.username, 'phone', c.phone, 'memberships', (
        SELECT jsonb_agg(jsonb_build_array(m.level, b.title) ORDER BY m.id)
        FROM people_membership AS m LEFT JOIN billing_plan AS b ON b.id = m.plan_id WHERE m.person_id = u.id)) AS document
FROM accounts_profile AS p LEFT JOIN people_person AS u ON u.id = p.person_id LEFT JOIN people_contact AS c ON c.person_id = u.id;
