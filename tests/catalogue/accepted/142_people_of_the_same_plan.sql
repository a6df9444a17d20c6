-- A membership that leads to a plan, and the plan to every membership: the same table at once and later.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('beside', (
        SELECT jsonb_agg(o.level ORDER BY o.id) FROM people_membership AS m JOIN people_membership AS o ON o.plan_id = m.plan_id
        WHERE m.person_id = p.person_id), 'username', (SELECT u.username FROM people_person AS u WHERE u.id = p.person_id)) AS document
FROM accounts_profile AS p;
