-- The manager's name and the manager's manager: a profile touched through another profile's change.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('name', p.name, 'manager', m.name, 'above', (SELECT b.name FROM accounts_profile AS b WHERE b.id = m.manager_id)) AS document
FROM accounts_profile AS p LEFT JOIN accounts_profile AS m ON m.id = p.manager_id;
