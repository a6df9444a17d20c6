-- UNION ALL of two tables inside a LATERAL subquery, each arm with its own tie.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('feed', f.feed) AS document
FROM accounts_profile AS p CROSS JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_array(u.what, u.id, u.said) ORDER BY u.what, u.id) AS feed
    FROM (SELECT 'device' AS what, d.id, d.serial AS said FROM accounts_device AS d WHERE d.profile_id = p.id
        UNION ALL SELECT 'subscription', s.id, s.status FROM billing_subscription AS s WHERE s.profile_id = p.id) AS u) AS f;
