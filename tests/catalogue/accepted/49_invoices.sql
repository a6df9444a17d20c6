-- The members of a member, with HAVING in a grouped LATERAL subquery.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('due', coalesce(d.list, '{}')) AS document
FROM accounts_profile AS p LEFT JOIN LATERAL (
    SELECT jsonb_object_agg(x.id, x.due) AS list FROM (
        SELECT s.id, sum(i.total) AS due FROM billing_subscription AS s JOIN billing_invoice AS i ON i.subscription_id = s.id
        WHERE s.profile_id = p.id GROUP BY s.id HAVING bool_or(NOT i.paid)) AS x) AS d ON true;
