-- Scalar subqueries in the target list, one inside the other's arguments.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object(
        'company', (SELECT c.name FROM accounts_company AS c WHERE c.id = p.company_id),
        'country', (SELECT upper(k.name) FROM geo_country AS k WHERE k.id = (SELECT c.country_id FROM accounts_company AS c WHERE c.id = p.company_id)),
        'devices', (SELECT count(*) FROM accounts_device AS d WHERE d.profile_id = p.id AND d.push)) AS document
FROM accounts_profile AS p;
