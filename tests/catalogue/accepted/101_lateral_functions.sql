-- Functions beside tables: over the profile's columns, over a member's, over those of what the member refers to; and
-- members that are compared with a function's rows, too.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object(
        'tags', jsonb_agg(DISTINCT t.tag),
        'words', (SELECT jsonb_agg(jsonb_build_array(s.id, w) ORDER BY s.id, w)
            FROM billing_subscription AS s JOIN billing_plan AS l ON l.id = s.plan_id CROSS JOIN LATERAL string_to_table(l.title, ' ') AS w
            WHERE s.profile_id = p.id),
        'tagged', (SELECT count(*) FROM unnest(p.tags) AS t (tag) JOIN accounts_device AS d ON d.profile_id = p.id AND d.serial > t.tag),
        'none', (SELECT jsonb_agg(d.id ORDER BY d.id) FROM accounts_device AS d LEFT JOIN LATERAL regexp_matches(d.serial, '(x|S)(\d)') AS m ON m[2] > '1'
            WHERE d.profile_id = p.id AND m IS NULL)) AS document
FROM accounts_profile AS p LEFT JOIN LATERAL unnest(p.tags) AS t (tag) ON true
GROUP BY p.auth_id, p.id, p.tags;
