-- A whole row of a dimension, and one of a member, as JSON.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('country', to_jsonb(k), 'preference', row_to_json(f)::jsonb) AS document
FROM accounts_profile AS p LEFT JOIN geo_country AS k ON k.iso = p.home_country LEFT JOIN accounts_preference AS f ON f.profile_id = p.id;
