-- A list of constant keys, and a constant that only some profiles look at.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object(
        'offers', (SELECT jsonb_agg(l.title ORDER BY l.id) FROM billing_plan AS l WHERE l.id IN ('free', 'team')),
        'special', CASE WHEN p.kind = 'guest' THEN (SELECT f.label FROM billing_feature AS f WHERE f.code = 'export') END) AS document
FROM accounts_profile AS p;
