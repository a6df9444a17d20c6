-- IN as a condition inside a subquery, and an anti-join, three deep.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('dear', (
        SELECT jsonb_agg(s.id ORDER BY s.id) FROM billing_subscription AS s
        WHERE s.profile_id = p.id AND s.plan_id IN (SELECT l.id FROM billing_plan AS l WHERE l.monthly > 5)
            AND NOT EXISTS (SELECT FROM billing_invoice AS i WHERE i.subscription_id = s.id AND i.paid AND EXISTS (SELECT FROM accounts_profile AS q WHERE q.id = s.profile_id AND q.kind = 'guest')))) AS document
FROM accounts_profile AS p;
