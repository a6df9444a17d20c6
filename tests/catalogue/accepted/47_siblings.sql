-- Members tied to each other and only one of them to the profile: foreign keys to the same column.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('currency', a.currency, 'theme', f.theme, 'statuses', (
        SELECT jsonb_agg(s.status ORDER BY s.id) FROM billing_subscription AS s WHERE s.profile_id = f.profile_id)) AS document
FROM accounts_profile AS p JOIN billing_account AS a ON a.profile_id = p.id LEFT JOIN accounts_preference AS f ON f.profile_id = a.profile_id;
