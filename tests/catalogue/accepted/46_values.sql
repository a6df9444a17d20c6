-- Constant rows: VALUES as a lookup table in a subquery, and CASE.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('kind', (SELECT v.label FROM (VALUES ('person', 'A person'), ('bot', 'A machine')) AS v (kind, label) WHERE v.kind = p.kind::text),
        'theme', CASE f.theme WHEN 'dark' THEN 1 WHEN 'light' THEN 2 ELSE 0 END) AS document
FROM accounts_profile AS p LEFT JOIN accounts_preference AS f ON f.profile_id = p.id;
