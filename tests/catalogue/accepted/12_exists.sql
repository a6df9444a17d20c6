-- EXISTS and NOT EXISTS, in the target list and in WHERE, and under OR, where they change nothing but a value.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object(
        'pays', EXISTS (SELECT FROM billing_subscription AS s WHERE s.profile_id = p.id AND s.status = 'active'),
        'quiet', NOT EXISTS (SELECT FROM accounts_device AS d WHERE d.profile_id = p.id AND d.push) OR p.kind = 'bot') AS document
FROM accounts_profile AS p
WHERE NOT EXISTS (SELECT FROM accounts_profile_skill AS s WHERE s.profile_id = p.id AND s.years > 11);
