-- The company's country; joined with commas and WHERE, the profile last.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('company', c.name, 'country', k.name, 'eu', k.eu) AS document
FROM geo_country AS k, accounts_company AS c, accounts_profile AS p
WHERE k.id = c.country_id AND p.company_id = c.id;
