-- The self-reference the other way: the list of those who report to a profile, and their countries.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('reports', (
        SELECT jsonb_agg(jsonb_build_array(r.shown_name, k.name) ORDER BY r.id)
        FROM accounts_profile AS r LEFT JOIN geo_country AS k ON k.iso = r.home_country WHERE r.manager_id = p.id)) AS document
FROM accounts_profile AS p;
