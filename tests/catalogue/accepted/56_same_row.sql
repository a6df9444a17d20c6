-- A table joined to itself by its own key: both occurrences are the same row.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('kind', q.kind, 'status', (
        SELECT jsonb_agg(t.status ORDER BY t.id) FROM billing_subscription AS s JOIN billing_subscription AS t ON t.id = s.id WHERE s.profile_id = p.id)) AS document
FROM accounts_profile AS p JOIN accounts_profile AS q ON q.id = p.id;
