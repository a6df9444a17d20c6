-- Time: an active subscription, until it ends; valid_until says when the document changes by itself.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('active', coalesce(s.list, '[]')) AS document, s.until AS valid_until
FROM accounts_profile AS p LEFT JOIN LATERAL (
    SELECT jsonb_agg(s.plan_id ORDER BY s.id) FILTER (WHERE s.status = 'active') AS list, min(s.ends) AS until
    FROM billing_subscription AS s WHERE s.profile_id = p.id AND (s.ends > now() OR s.ends IS NULL)) AS s ON true;
