-- A list of columns: IN (home, billing) finds either.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('countries', (SELECT jsonb_agg(k.name ORDER BY k.id) FROM geo_country AS k WHERE k.iso IN (p.home_country, p.billing_country))) AS document
FROM accounts_profile AS p;
