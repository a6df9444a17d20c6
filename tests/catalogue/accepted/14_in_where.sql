-- IN (SELECT …) as a condition of the whole row: profiles without a row in the view come and go.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('name', p.name) AS document
FROM accounts_profile AS p
WHERE p.company_id IN (SELECT c.id FROM accounts_company AS c WHERE c.active) AND p.kind <> 'bot';
