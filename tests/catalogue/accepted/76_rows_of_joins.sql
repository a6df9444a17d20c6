-- Whole rows of a join, of a subquery and of an outer query's table, and their number.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object(
        'joined', (SELECT jsonb_agg(j ORDER BY j.id) FROM (accounts_preference AS f JOIN accounts_device AS d USING (profile_id)) AS j WHERE j.profile_id = p.id),
        'home', (SELECT to_jsonb(x) FROM (SELECT k.* FROM geo_country AS k WHERE k.iso = p.home_country) AS x),
        'company', (SELECT to_jsonb(c) FROM (SELECT 1) AS one), 'billing', (SELECT count(DISTINCT k.*) FROM geo_country AS k WHERE k.iso = p.billing_country)) AS document
FROM accounts_profile AS p LEFT JOIN accounts_company AS c ON c.id = p.company_id;
