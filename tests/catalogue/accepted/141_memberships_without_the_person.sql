-- The same without the person between: foreign keys of both to a table that the view does not read.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('phone', c.phone, 'levels', (
        SELECT jsonb_agg(m.level ORDER BY m.id) FROM people_membership AS m WHERE m.person_id = p.person_id), 'person', p.person_id) AS document
FROM accounts_profile AS p LEFT JOIN people_contact AS c ON c.person_id = p.person_id;
